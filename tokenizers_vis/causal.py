"""Causal 3-D convolutions and what goes with them: layers of clips that never look ahead.

A frame's features depend on that frame and earlier ones: convolutions are padded in front of time
only, norms are taken frame by frame, and a picture is a clip of one frame.

A long clip can be fed in chunks: a `Memory` keeps for each convolution the frames that its next
window still sees, so chunks give what the whole clip would, in the memory of one chunk.

Shapes: (B, C, T, H, W). Spec: nbp.md 2.1 (after MAGVIT-v2, arXiv 2310.05737).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Stride = tuple[int, int, int]  # (time, rows, columns)
Edges = Literal["replicate", "constant"]


class Memory:
    """What the layers remember of the chunks of a clip that were fed so far; one for each pass."""

    def __init__(self) -> None:
        self._kept: dict[nn.Module, Tensor] = {}

    def before(self, layer: nn.Module) -> Tensor | None:
        """Frames (B, C, T, H, W) that `layer` kept; None: it has not seen a chunk yet."""
        return self._kept.get(layer)

    def keep(self, layer: nn.Module, frames: Tensor) -> None:
        """Let `layer` keep frames, possibly none, in place of what it kept."""
        self._kept[layer] = frames.clone()  # not the whole chunk that they are a part of


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
        edges: Edges = "replicate",
    ) -> None:
        super().__init__()
        time, rows, columns = (kernel,) * 3 if isinstance(kernel, int) else kernel
        self.around = (rows // 2, columns // 2)
        self.before = time - 1 if before is None else before
        self.edges = edges
        self.conv = nn.Conv3d(inputs, outputs, (time, rows, columns), stride=stride)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """(B, inputs, T, H, W) to (B, outputs, T', ceil(H/sh), ceil(W/sw)).

        T' is ceil(T/st) where `before` is one less than the kernel. With a memory, x goes on where
        the last chunk ended, and T is a multiple of st but for the first chunk.
        """
        weight, stride = self.conv.weight, self.conv.stride
        kernel = weight.shape[2]
        if x.shape[2] == 1 and self.before == kernel - 1 and memory is None:
            return self._picture(x)
        kept = None if memory is None else memory.before(self)
        x = self._in_front(x) if kept is None else torch.cat([kept, x], dim=2)
        if memory is not None:
            seen = (x.shape[2] - kernel) // stride[0] + 1
            memory.keep(self, x[:, :, seen * stride[0] :])
        y, z = self.around
        if self.edges == "constant":
            return F.conv3d(x, weight, self.conv.bias, stride, (0, y, z))
        if y or z:
            x = F.pad(x, (z, z, y, y, 0, 0), mode="replicate")
        out: Tensor = self.conv(x)
        return out

    def _in_front(self, x: Tensor) -> Tensor:
        """Pad x in front of its first frame."""
        if not self.before:
            return x
        first = x[:, :, :1].expand(-1, -1, self.before, -1, -1)
        front = first if self.edges == "replicate" else torch.zeros_like(first)
        return torch.cat([front, x], dim=2)

    def _picture(self, x: Tensor) -> Tensor:
        """One frame, without the work on those in front, which are all alike."""
        weight, (y, z) = self.conv.weight, self.around
        if self.edges == "replicate":
            frame, flat = F.pad(x[:, :, 0], (z, z, y, y), mode="replicate"), weight.sum(2)
            out = F.conv2d(frame, flat, self.conv.bias, self.conv.stride[1:])
        else:
            flat = weight[:, :, -1]
            out = F.conv2d(x[:, :, 0], flat, self.conv.bias, self.conv.stride[1:], (y, z))
        return out.unsqueeze(2)


class FactorizedConv(nn.Module):
    """A convolution over rows and columns, then one over time; arguments as of `CausalConv`."""

    def __init__(
        self, inputs: int, outputs: int, time: int, stride: Stride, edges: Edges = "replicate"
    ) -> None:
        super().__init__()
        self.space = CausalConv(inputs, outputs, (1, 3, 3), (1, *stride[1:]), edges=edges)
        self.time = CausalConv(outputs, outputs, (time, 1, 1), (stride[0], 1, 1), edges=edges)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """(B, inputs, T, H, W) to (B, outputs, T', H', W')."""
        out: Tensor = self.time(self.space(x, memory), memory)
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
    """Two causal convolutions with pre-norm and activation; a 1x1x1 skip where the width changes.

    Args:
        inputs: channels.
        outputs: channels.
        layers: what the network is made of.
        time: frames that a kernel spans.
    """

    def __init__(self, inputs: int, outputs: int, layers: Layers, time: int = 3) -> None:
        super().__init__()
        self.norm1 = layers.norm(inputs)
        self.act1 = layers.activation(inputs)
        self.conv1 = layers.conv(inputs, outputs, time)
        self.norm2 = layers.norm(outputs)
        self.act2 = layers.activation(outputs)
        self.conv2 = layers.conv(outputs, outputs, time)
        self.shortcut = nn.Identity() if inputs == outputs else CausalConv(inputs, outputs, 1)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """(B, inputs, T, H, W) to (B, outputs, T, H, W)."""
        y = self.conv1(self.act1(self.norm1(x)), memory)
        y = self.conv2(self.act2(self.norm2(y)), memory)
        out: Tensor = y + self.shortcut(x)
        return out


@dataclass(frozen=True)
class Layers:
    """What every layer of a causal network has in common.

    Args:
        norm_groups: groups of every group norm.
        norm_eps: added to the variance there.
        edges: see `CausalConv`.
        slope: activations learn a slope (`Swish`); without, they are plain SiLU.
        factorized: a kernel over three axes is one over rows and columns, then one over time, and
            unfolding convolutions see one place alone: a third of the weights and of the work.
    """

    norm_groups: int
    norm_eps: float
    edges: Edges = "replicate"
    slope: bool = True
    factorized: bool = False

    def norm(self, width: int) -> nn.Module:
        """A norm of each frame alone."""
        return FrameNorm(self.norm_groups, width, self.norm_eps)

    def activation(self, width: int) -> nn.Module:
        """An activation."""
        return Swish(width) if self.slope else nn.SiLU()

    def conv(
        self, inputs: int, outputs: int, time: int = 3, stride: Stride = (1, 1, 1)
    ) -> CausalConv | FactorizedConv:
        """A convolution over `time` frames and 3x3 places."""
        if self.factorized and time > 1:
            return FactorizedConv(inputs, outputs, time, stride, self.edges)
        return CausalConv(inputs, outputs, (time, 3, 3), stride, edges=self.edges)

    def unfolding(self, inputs: int, outputs: int, time: int) -> CausalConv:
        """The convolution whose channels are unfolded."""
        kernel = (1, 1, 1) if self.factorized else (time, 3, 3)
        return CausalConv(inputs, outputs, kernel, edges=self.edges)


class DepthToSpace(nn.Module):
    """A causal convolution whose channels unfold into a finer clip.

    Channels are ordered (time, row, column, output channel), the last one fastest. Doubling time
    makes a frame before the first one, which is dropped: T becomes `st * T - (st - 1)`.

    Args:
        width: channels before and after.
        stride: (time, rows, columns), how many times finer.
        layers: what the network is made of.
        time: frames that the kernel spans.
    """

    def __init__(self, width: int, stride: Stride, layers: Layers, time: int = 3) -> None:
        super().__init__()
        self.stride = stride
        self.conv = layers.unfolding(width, width * math.prod(stride), time)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """(B, C, T, H, W) to (B, C, st * T - (st - 1), sh * H, sw * W), the first chunk at least.

        Later chunks have no frame to drop.
        """
        begins = memory is None or memory.before(self.conv) is None
        y: Tensor = self.conv(x, memory)
        y = y.reshape(len(y), *self.stride, -1, *y.shape[2:])  # (B, st, sh, sw, C, T, H, W)
        y = y.permute(0, 5, 1, 6, 2, 7, 3, 4)  # (B, T, st, H, sh, W, sw, C), channels_last_3d
        y = y.flatten(5, 6).flatten(3, 4).flatten(1, 2).movedim(-1, 1)
        return y[:, :, self.stride[0] - 1 :] if begins else y
