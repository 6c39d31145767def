"""xAR as its description has it, slowly: `shared/specs/xar.md` 3 and 4, with 10 for other cells.

No cache, no plan and nothing of `mmgen`: the whole sequence is recomputed for every velocity.

Shapes: B batch, N tokens in entity order, E entities of n tokens, C channels, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]
STACKS = ("encoder", "decoder")


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model; pairs are (encoder, decoder)."""

    width: int
    depths: tuple[int, int]
    heads: tuple[int, int]
    hidden: int
    side: int
    across: int  # entities along a side
    channels: int
    waves: int

    @property
    def entity(self) -> Tensor:
        """(N,): the entity of each token."""
        return torch.arange(self.side**2) // (self.side // self.across) ** 2

    @property
    def places(self) -> Tensor:
        """(N, 2): row and column of each token, in entity order."""
        k, found = self.side // self.across, []
        for a in range(self.across):
            for b in range(self.across):
                found += [(a * k + i, b * k + j) for i in range(k) for j in range(k)]
        return torch.tensor(found)


def shapes_of(sizes: Sizes, classes: int) -> dict[str, tuple[int, ...]]:
    """Keys of an official state dict without its buffers."""
    width, slots = sizes.width, sizes.side**2
    shapes: dict[str, tuple[int, ...]] = {"class_emb.weight": (classes + 1, width)}
    linear = {
        "time_embed.mlp.0": (width, sizes.waves),
        "time_embed.mlp.2": (width, width),
        "z_proj": (width, sizes.channels),
        "decoder_embed": (width, width),
        "pred": (sizes.channels, width),
    }
    for stack, depth in zip(STACKS, sizes.depths):
        shapes[f"{stack}_pos_embed_learned"] = (1, slots, width)
        for i in range(depth):
            block = f"{stack}_blocks.{i}"
            linear |= {
                f"{block}.attn.qkv": (3 * width, width),
                f"{block}.attn.proj": (width, width),
                f"{block}.mlp.fc1_g": (sizes.hidden, width),
                f"{block}.mlp.fc1_x": (sizes.hidden, width),
                f"{block}.mlp.fc2": (width, sizes.hidden),
                f"{block}.ada_lin.1": (6 * width, width),
            }
    for name in ("z_proj_ln", "encoder_norm", "decoder_norm"):
        shapes[f"{name}.weight"] = (width,)
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def buffers_of(sizes: Sizes) -> dict[str, Tensor]:
    """The mask, and the frequencies of every block."""
    later = sizes.entity[None] > sizes.entity[:, None]
    size = sizes.side**2
    found = {"mask": torch.zeros(size, size).masked_fill(later, -math.inf)[None, None]}
    for stack, depth, heads in zip(STACKS, sizes.depths, sizes.heads):
        for i in range(depth):
            pace = _pace(sizes.width // heads)
            found[f"{stack}_blocks.{i}.attn.rope.freqs"] = pace
    return found


def velocity(
    weights: Weights, sizes: Sizes, latents: Tensor, labels: Tensor, times: Tensor
) -> Tensor:
    """(B, N', C) of the first N' tokens, `times` (B, E') whole numbers of their entities."""
    count = latents.shape[1]
    entity = sizes.entity[:count]
    waves = sizes.waves // 2
    angle = times[..., None] * torch.exp(-math.log(10000.0) * torch.arange(waves) / waves)
    told = torch.cat([angle.cos(), angle.sin()], -1)
    told = _affine(weights, "time_embed.mlp.2", F.silu(_affine(weights, "time_embed.mlp.0", told)))
    told = (weights["class_emb.weight"][labels][:, None] + told)[:, entity]  # (B, N', D)
    seen = entity[None] <= entity[:, None]
    x = _affine(weights, "z_proj", latents) + weights["encoder_pos_embed_learned"][:, :count]
    x = _rms(x) * weights["z_proj_ln.weight"]
    for stack, depth, heads in zip(STACKS, sizes.depths, sizes.heads):
        if stack == "decoder":
            x = _affine(weights, "decoder_embed", x)
            x = x + weights["decoder_pos_embed_learned"][:, :count]
        for i in range(depth):
            x = _block(weights, f"{stack}_blocks.{i}", x, told, heads, sizes.places[:count], seen)
        x = _rms(x) * weights[f"{stack}_norm.weight"]
    return _affine(weights, "pred", x)


def sample(
    weights: Weights, sizes: Sizes, labels: Tensor, noise: Tensor, steps: int, scale: float
) -> Tensor:
    """Latents (B, N, C) by Euler's rule, from `noise` (B, N, C); guidance grows over entities."""
    entities, last = sizes.across**2, len(weights["class_emb.weight"]) - 1
    done = noise[:, :0]
    for e in range(entities):
        weight = scale if entities == 1 else 1 + (scale - 1) * e / (entities - 1)
        x = noise[:, sizes.entity == e].double()
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        for start, end in pairwise(times):
            index = torch.zeros(len(labels), e + 1)
            index[:, e] = (start.float() * 1000).trunc()
            z = torch.cat([done, x.float()], 1)
            cond, null = (
                velocity(weights, sizes, z, each, index)[:, done.shape[1] :].double()
                for each in (labels, torch.full_like(labels, last))
            )
            x = x + (end - start) * (null + weight * (cond - null))
        done = torch.cat([done, x.float()], 1)
    return done


def _block(
    weights: Weights,
    name: str,
    x: Tensor,
    told: Tensor,
    heads: int,
    places: Tensor,
    seen: Tensor,
) -> Tensor:
    six = _affine(weights, f"{name}.ada_lin.1", F.silu(told)).chunk(6, -1)
    gate1, gate2, scale1, scale2, shift1, shift2 = six
    y = _rms(x) * (1 + scale1) + shift1
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in _affine(weights, f"{name}.attn.qkv", y).chunk(3, -1)
    )
    q, k = _turn(q, places), _turn(k, places)
    scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
    y = (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + gate1 * _affine(weights, f"{name}.attn.proj", y)
    y = _rms(x) * (1 + scale2) + shift2
    y = F.gelu(_affine(weights, f"{name}.mlp.fc1_g", y)) * _affine(weights, f"{name}.mlp.fc1_x", y)
    return x + gate2 * _affine(weights, f"{name}.mlp.fc2", y)


def _pace(head: int) -> Tensor:
    half = head // 2
    return 10000.0 ** (-torch.arange(0, half, 2).float() / half)


def _turn(x: Tensor, places: Tensor) -> Tensor:
    """(B, H, N', D): the first half of the channels by rows, the last by columns."""
    angle = (places[:, :, None] * _pace(x.shape[-1])).flatten(1)  # (N', D / 2)
    a, b = x[..., 0::2], x[..., 1::2]
    turned = [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()]
    return torch.stack(turned, -1).flatten(-2)


def _rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def _affine(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
