"""Pieces of convolutional autoencoders: residual blocks, attention, resampling and norms.

Two families share them: VQGAN's (arXiv 2012.09841; LlamaGen, KL-16, IBQ, Emu3) and that of
Open-MAGVIT2 (arXiv 2409.04410). Where a decoder is conditioned on the code that it decodes, the
code (B, E, h, w) travels with the features (B, C, H, W) as the second argument of every piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import UserError

Family = Literal["vqgan", "magvit2"]
EPS = 1e-6  # of every norm in VQGAN-type checkpoints


@dataclass(frozen=True)
class Pieces:
    """What the blocks of one network are made of.

    Args:
        groups: of every group norm.
        family: "magvit2": no biases in residual blocks, symmetric padding when halving.
        code_channels: width E of the code that conditions every norm; None: plain norms.
    """

    groups: int
    family: Family = "vqgan"
    code_channels: int | None = None

    def norm(self, width: int) -> nn.Module:
        """Return a norm over `width` channels."""
        if self.code_channels is None:
            return PlainNorm(self.groups, width, eps=EPS)
        return SpatialNorm(self.groups, width, self.code_channels)

    def conv(self, inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
        """Return a convolution of a residual block, which keeps the resolution."""
        bias = self.family == "vqgan"
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)

    def middle(self, width: int, blocks: int, attention: bool) -> nn.Module:
        """Return the part at the coarsest resolution; `blocks` counts in magvit2 only."""
        if self.family == "magvit2":
            return MiddleBlocks(width, blocks, self)
        return Middle(width, attention, self)

    def downsample(self, width: int) -> nn.Module:
        """Return what halves the resolution."""
        return Downsample(width, symmetric=self.family == "magvit2")

    def upsample(self, width: int) -> nn.Module:
        """Return what doubles the resolution."""
        return DepthToSpace(width) if self.family == "magvit2" else Upsample(width)


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention if asked, then a resampling."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, attention: bool, pieces: Pieces
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResBlock(inputs if j == 0 else outputs, outputs, pieces) for j in range(blocks)
        )
        self.attentions = nn.ModuleList(
            Attention(outputs, pieces) for _ in range(blocks if attention else 0)
        )
        self.adapt: nn.Module | None = None
        self.resample: nn.Module | None = None

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        if self.adapt is not None:
            x = self.adapt(x, code)
        for j, block in enumerate(self.blocks):
            x = block(x, code)
            if len(self.attentions):
                x = self.attentions[j](x, code)
        return x if self.resample is None else self.resample(x)


class Middle(nn.Module):
    """Block, attention, block at the coarsest resolution."""

    def __init__(self, width: int, attention: bool, pieces: Pieces) -> None:
        super().__init__()
        self.block_in = ResBlock(width, width, pieces)
        self.attention = Attention(width, pieces) if attention else nn.Identity()
        self.block_out = ResBlock(width, width, pieces)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(B, width, h, w) to the same shape."""
        x = self.block_in(x, code)
        if isinstance(self.attention, Attention):
            x = self.attention(x, code)
        out: Tensor = self.block_out(x, code)
        return out


class MiddleBlocks(nn.Module):
    """Residual blocks alone at the coarsest resolution."""

    def __init__(self, width: int, blocks: int, pieces: Pieces) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(width, width, pieces) for _ in range(blocks))

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(B, width, h, w) to the same shape."""
        for block in self.blocks:
            x = block(x, code)
        return x


class ResBlock(nn.Module):
    """Two 3x3 convolutions with pre-norm and SiLU, and a 1x1 shortcut where the width changes."""

    def __init__(self, inputs: int, outputs: int, pieces: Pieces) -> None:
        super().__init__()
        self.norm1 = pieces.norm(inputs)
        self.conv1 = pieces.conv(inputs, outputs, 3)
        self.norm2 = pieces.norm(outputs)
        self.conv2 = pieces.conv(outputs, outputs, 3)
        self.shortcut = nn.Identity() if inputs == outputs else pieces.conv(inputs, outputs, 1)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        y = self.conv1(F.silu(self.norm1(x, code)))
        y = self.conv2(F.silu(self.norm2(y, code)))
        out: Tensor = self.shortcut(x) + y
        return out


class Attention(nn.Module):
    """Single-head self-attention over all places, with 1x1 convolutions as projections."""

    def __init__(self, width: int, pieces: Pieces) -> None:
        super().__init__()
        self.norm = pieces.norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(B, width, h, w) to the same shape."""
        h = self.norm(x, code)
        q, k, v = (p(h).flatten(2).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)  # (B, h*w, width)
        y = y.transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.proj_out(y)
        return out


class Downsample(nn.Module):
    """Halve the resolution; VQGAN pads one zero column right and one zero row below."""

    def __init__(self, width: int, symmetric: bool = False) -> None:
        super().__init__()
        self.pads = (0, 0, 0, 0) if symmetric else (0, 1, 0, 1)
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to (B, width, H/2, W/2)."""
        out: Tensor = self.conv(F.pad(x, self.pads))
        return out


class Upsample(nn.Module):
    """Double the resolution by nearest neighbour, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to (B, width, 2H, 2W)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class DepthToSpace(nn.Module):
    """Double the resolution by a 3x3 convolution to 4 times the channels, which become places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to (B, width, 2H, 2W)."""
        batch, width, height, columns = x.shape
        # The place inside a 2x2 square is the outer factor, not the inner one of pixel_shuffle.
        y = self.conv(x).reshape(batch, 2, 2, width, height, columns)
        out: Tensor = y.permute(0, 3, 4, 1, 5, 2).reshape(batch, width, 2 * height, 2 * columns)
        return out


class PlainNorm(nn.GroupNorm):
    """Group norm that ignores the code."""

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Normalise (B, C, H, W)."""
        return super().forward(x)


class SpatialNorm(nn.Module):
    """Group norm scaled and shifted by the code at the same place (MoVQ, arXiv 2209.09002)."""

    def __init__(self, groups: int, width: int, code_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=EPS)
        self.scale = nn.Conv2d(code_channels, width, 1)
        self.shift = nn.Conv2d(code_channels, width, 1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Normalise (B, C, H, W); the code (B, E, h, w) is resized by nearest neighbour."""
        code = F.interpolate(code, size=x.shape[-2:], mode="nearest")
        out: Tensor = self.norm(x) * self.scale(code) + self.shift(code)
        return out


class AdaptiveNorm(nn.Module):
    """Group norm scaled and shifted by the code's deviation and mean over all places."""

    def __init__(self, groups: int, width: int, code_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=EPS, affine=False)
        self.scale = nn.Linear(code_channels, width)
        self.shift = nn.Linear(code_channels, width)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by the code (B, E, h, w).

        Raises:
            UserError: the code has one place only, and so no deviation.
        """
        places = code.flatten(2)  # (B, E, h*w)
        if places.shape[-1] < 2:
            raise UserError("This tokenizer decodes 2 codes or more; give a larger picture.")
        deviation = torch.sqrt(places.var(-1) + EPS)  # of the sample: divided by h*w - 1
        scale, shift = self.scale(deviation), self.shift(places.mean(-1))
        out: Tensor = self.norm(x) * scale[..., None, None] + shift[..., None, None]
        return out
