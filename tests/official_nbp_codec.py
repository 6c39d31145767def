"""NBP's video tokenizer as its description has it: `shared/specs/nbp.md` 2. Nothing of `mmgen`.

Shapes: B batch, pixels (B, 3, T, H, W) in [0, 1], d levels of the quantizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]
Layer = tuple[str, Sequence[int]]


def encoder_layers(units: int) -> list[Layer]:
    """What stands at each index, and its stride."""
    stage: list[Layer] = [("unit", ())] * units
    layers: list[Layer] = [("conv", (1, 1, 1)), *stage]
    for stride in ((1, 2, 2), (2, 2, 2), (2, 2, 2)):
        layers += [("conv", stride), *stage]
    return [*layers, *stage, ("norm", ()), ("swish", ()), ("plain", ())]


def decoder_layers(units: int) -> list[Layer]:
    stage: list[Layer] = [("unit", ())] * units
    layers: list[Layer] = [("conv", (1, 1, 1)), *stage, *stage]
    for block in ((2, 2, 2), (2, 2, 2), (1, 2, 2)):
        layers += [("conv", (1, 1, 1)), ("d2s", block), *stage]
    return [*layers, ("norm", ()), ("swish", ()), ("conv", (1, 1, 1))]


class Codec:
    """The network with its weights, under official keys."""

    def __init__(
        self, weights: Weights, units: int, levels: Sequence[int], groups: int, eps: float
    ) -> None:
        self.weights, self.units, self.groups, self.eps = weights, units, groups, eps
        self.levels = torch.tensor(levels)
        self.half_width = self.levels // 2
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self.basis = torch.tensor(basis)

    def bounded(self, pixels: Tensor) -> Tensor:
        """(B, t, h, w, d): what is rounded to a code."""
        z = self._run("encoder_layers", encoder_layers(self.units), pixels).movedim(1, -1)
        z = self._project("project_in", z)
        half = (self.levels - 1) * (1 - 0.001) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z + torch.tan(offset / half)) * half - offset

    def index(self, bounded: Tensor) -> Tensor:
        return ((bounded.round() + self.half_width) * self.basis).sum(-1).long()

    def decode(self, index: Tensor) -> Tensor:
        """(B, t, h, w) to pixels, not clamped."""
        digit = (index[..., None] // self.basis) % self.levels
        code = (digit - self.half_width) / self.half_width
        z = self._project("project_out", code.float()).movedim(-1, 1)
        return self._run("decoder_layers", decoder_layers(self.units), z)

    def _project(self, name: str, x: Tensor) -> Tensor:
        name = f"quantizers.{name}"
        if f"{name}.weight" not in self.weights:
            return x
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _run(self, side: str, layers: Sequence[Layer], x: Tensor) -> Tensor:
        for i, (kind, argument) in enumerate(layers):
            name = f"{side}.{i}"
            match kind:
                case "conv":
                    x = self._conv(f"{name}.conv", x, argument)
                case "plain":
                    x = F.conv3d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])
                case "unit":
                    x = self._unit(name, x)
                case "norm":
                    x = self._norm(name, x)
                case "swish":
                    x = self._swish(name, x)
                case "d2s":
                    x = depth_to_space(x, argument)
        return x

    def _unit(self, name: str, x: Tensor) -> Tensor:
        y = self._swish(f"{name}.fn.1", self._norm(f"{name}.fn.0", x))
        y = self._conv(f"{name}.fn.2.conv", y)
        y = self._swish(f"{name}.fn.4", self._norm(f"{name}.fn.3", y))
        y = self._conv(f"{name}.fn.5.conv", y)
        skip = f"{name}.residual_fn.0.conv"
        return y + (self._conv(skip, x) if f"{skip}.weight" in self.weights else x)

    def _conv(self, name: str, x: Tensor, stride: Sequence[int] = (1, 1, 1)) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        t, h, w = (size // 2 for size in weight.shape[2:])
        x = F.pad(x, (w, w, h, h, 2 * t, 0), mode="replicate")
        return F.conv3d(x, weight, self.weights[f"{name}.bias"], stride=tuple(stride))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)  # (B T, C, H, W)
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        normed = F.group_norm(frames, self.groups, weight, bias, self.eps)
        return normed.unflatten(0, (len(x), -1)).transpose(1, 2)

    def _swish(self, name: str, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.weights[f"{name}.beta"] * x)


def depth_to_space(x: Tensor, block: Sequence[int]) -> Tensor:
    """Channels (bt, bh, bw, c), c fastest; the first bt - 1 frames are dropped."""
    bt, bh, bw = block
    batch, _, t, h, w = x.shape
    x = x.unflatten(1, (bt, bh, bw, -1)).permute(0, 4, 5, 1, 6, 2, 7, 3)
    return x.reshape(batch, -1, t * bt, h * bh, w * bw)[:, :, bt - 1 :]
