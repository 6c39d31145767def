"""PatchGAN discriminator: one logit for each overlapping patch (arXiv 1611.07004).

`layers` convolutions of stride 2, one of stride 1, and one to a single channel, all 4x4 with
padding 1 and LeakyReLU 0.2 between. The layout of the tensors is that of the VQGAN family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.tokenizers_vis.losses import as_frames

NormKind = Literal["batch", "group", "none"]


@dataclass(frozen=True)
class DiscriminatorConfig:
    """PatchGAN discriminator.

    Args:
        width: channels after the first convolution; doubled by every further one, up to 8 times.
        layers: number of halvings.
        norm: "batch" as published; "group" or "none" do not depend on the rest of the batch.
        in_channels: of the pictures.
    """

    width: int = 64
    layers: int = 3
    norm: NormKind = "batch"
    in_channels: int = 3

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1 or self.in_channels < 1:
            raise ConfigError("A discriminator needs width, layers and in_channels of at least 1.")


class PatchDiscriminator(nn.Module):
    """Pictures (B, 3, H, W), or clips frame by frame, to logits (B or B*T, 1, h, w)."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * min(2**level, 8) for level in range(config.layers + 1)]
        blocks: list[nn.Module] = [
            nn.Conv2d(config.in_channels, widths[0], 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for level in range(1, config.layers + 1):
            stride = 2 if level < config.layers else 1
            # A batch norm has a shift of its own, so the convolution before it needs none.
            bias = config.norm == "none"
            blocks += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride, 1, bias=bias),
                _norm(config.norm, widths[level]),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.main = nn.Sequential(*blocks, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.apply(_initialise)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits; real and reconstructed batches go through in separate calls."""
        logits: Tensor = self.main(as_frames(pixels))
        return logits


def _norm(kind: NormKind, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(width)
    if kind == "group":
        return nn.GroupNorm(next(n for n in (32, 16, 8, 4, 2, 1) if width % n == 0), width)
    return nn.Identity()


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        module.weight.normal_(0.0, 0.02)
    elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
        module.weight.normal_(1.0, 0.02)
        module.bias.zero_()
