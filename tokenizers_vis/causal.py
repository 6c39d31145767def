"""Causal 3-D convolutions and what goes with them: layers of clips that never look ahead.

A frame's features depend on that frame and earlier ones: convolutions are padded in front of time
only, norms are taken frame by frame, and a picture is a clip of one frame.

Shapes: (B, C, T, H, W). Spec: nbp.md 2.1 (after MAGVIT-v2, arXiv 2310.05737).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Stride = tuple[int, int, int]  # (time, rows, columns)


class CausalConv(nn.Module):
    """A 3-D convolution that sees the past alone: it is padded in front of time and around frames.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: size on every axis, or (time, rows, columns); those of rows and columns are odd.
        stride: (time, rows, columns).
        before: frames in front of the first; None: one less than the kernel has.
        edges: what stands there and around: "replicate" the nearest values, or "constant", zeros.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Stride = 3,
        stride: Stride = (1, 1, 1),
        *,
        before: int | None = None,
        edges: Literal["replicate", "constant"] = "replicate",
    ) -> None:
        super().__init__()
        time, rows, columns = (kernel,) * 3 if isinstance(kernel, int) else kernel
        y, x = rows // 2, columns // 2
        self.pads = (x, x, y, y, time - 1 if before is None else before, 0)
        self.edges = edges
        self.conv = nn.Conv3d(inputs, outputs, (time, rows, columns), stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, H, W) to (B, outputs, T', ceil(H/sh), ceil(W/sw)).

        T' is ceil(T/st) where `before` is one less than the kernel.
        """
        if any(self.pads):
            x = F.pad(x, self.pads, mode=self.edges)
        out: Tensor = self.conv(x)
        return out


class FrameNorm(nn.GroupNorm):
    """Group norm of each frame alone; statistics over time would see the future."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to the same shape."""
        frames = x.transpose(1, 2)  # (B, T, C, H, W)
        normed = super().forward(frames.flatten(0, 1))
        return normed.view(frames.shape).transpose(1, 2)


class Swish(nn.Module):
    """`x * sigmoid(beta * x)` with a learned slope for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to the same shape."""
        return x * torch.sigmoid(self.beta * x)


class CausalResBlock(nn.Module):
    """Two causal convolutions with pre-norm and swish, and a 1x1x1 skip where the width changes."""

    def __init__(self, inputs: int, outputs: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = FrameNorm(groups, inputs, eps)
        self.act1 = Swish(inputs)
        self.conv1 = CausalConv(inputs, outputs)
        self.norm2 = FrameNorm(groups, outputs, eps)
        self.act2 = Swish(outputs)
        self.conv2 = CausalConv(outputs, outputs)
        self.shortcut = nn.Identity() if inputs == outputs else CausalConv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, H, W) to (B, outputs, T, H, W)."""
        y = self.conv1(self.act1(self.norm1(x)))
        y = self.conv2(self.act2(self.norm2(y)))
        out: Tensor = y + self.shortcut(x)
        return out


class DepthToSpace(nn.Module):
    """A causal convolution whose channels unfold into a finer clip.

    Channels are ordered (time, row, column, output channel), the last one fastest. Doubling time
    makes a frame before the first one, which is dropped: T becomes `st * T - (st - 1)`.

    Args:
        width: channels before and after.
        stride: (time, rows, columns), how many times finer.
    """

    def __init__(self, width: int, stride: Stride) -> None:
        super().__init__()
        self.stride = stride
        self.conv = CausalConv(width, width * stride[0] * stride[1] * stride[2])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C, st * T - (st - 1), sh * H, sw * W)."""
        y: Tensor = self.conv(x)
        y = y.view(len(y), *self.stride, -1, *y.shape[2:])  # (B, st, sh, sw, C, T, H, W)
        y = y.permute(0, 4, 5, 1, 6, 2, 7, 3)  # (B, C, T, st, H, sh, W, sw)
        y = y.flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return y[:, :, self.stride[0] - 1 :]
