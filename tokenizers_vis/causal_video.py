"""The causal video tokenizer: clips -> encoder -> quantizer -> codes (t, h, w) -> decoder -> clips.

Between two levels space and time are halved, or not, as the configuration says. The first frame is
a latent frame of its own, so a picture is a clip of one frame, and latent frame j depends on the
frames 0 .. j * time_stride alone: the beginning of a clip has the beginning of its codes. Long
clips go through in chunks, in the memory of one.

Shapes: pixels (B, 3, T, H, W) in [-1, 1]; grid t = (T - 1) // time_stride + 1, h = H / stride,
w = W / stride; C = quantizer channels. Spec: nbp.md 2 (NBP, arXiv 2502.07737, after MAGVIT-v2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mmgen.config import later
from mmgen.errors import ConfigError, UserError
from mmgen.saving import Saved
from mmgen.tokenizers_vis.causal import (
    CausalResBlock,
    DepthToSpace,
    Layers,
    Memory,
    Stride,
)
from mmgen.tokenizers_vis.protocol import Codes, Quantized
from mmgen.tokenizers_vis.quantizers import (
    FSQConfig,
    IBQConfig,
    LFQConfig,
    VQConfig,
    build_quantizer,
)

CHUNK = 4  # codes along time that a long clip is read and painted by


@dataclass(frozen=True)
class CausalVideoTokenizerConfig:
    """Sizes of a `CausalVideoTokenizer`.

    Args:
        quantizer: kind and size of the bottleneck.
        widths: channels of each level, fine to coarse.
        time_strides: how many times each level but the last shortens time (1 or 2).
        res_blocks: residual blocks a level, and in the middle.
        z_channels: channels of the encoder's output where they differ from the quantizer's; linear
            maps then lead in and out.
        norm_groups: groups of every group norm; each width is a multiple of it.
        norm_eps: added to the variance there.
        pixels: range that the networks see: "signed" is [-1, 1]; "unit" is [0, 1], as NBP was
            trained. Callers always give and get [-1, 1].
        patch_size: pixels a side that are folded into channels before the first convolution.
        space_strides: how many times each level but the last shortens rows and columns (1 or 2);
            None: 2 everywhere.
        time_kernels: frames that the kernels of each level span (1 or 3); None: 3 everywhere.
            A level of 1 sees each frame alone, which costs a third.
        decoder_res_blocks: residual blocks a level of the decoder; None: `res_blocks`.
        edges: what convolutions see around a clip and before it: the nearest values, or zeros.
        slope: activations learn a slope for each channel; without, they are plain SiLU.
        factorized: see `causal.Layers`.
    """

    quantizer: FSQConfig | VQConfig | LFQConfig | IBQConfig
    widths: tuple[int, ...] = (128, 256, 256, 512)
    time_strides: tuple[int, ...] = (1, 2, 2)
    res_blocks: int = 4
    z_channels: int | None = None
    norm_groups: int = 32
    norm_eps: float = 1e-5
    pixels: Literal["signed", "unit"] = "signed"
    patch_size: int = later(1)
    space_strides: tuple[int, ...] | None = later(None)
    time_kernels: tuple[int, ...] | None = later(None)
    decoder_res_blocks: int | None = later(None)
    edges: Literal["replicate", "constant"] = later("replicate")
    slope: bool = later(True)
    factorized: bool = later(False)

    def __post_init__(self) -> None:
        """Refuse sizes that make no network, and widths that the group norm cannot divide."""
        for name in ("res_blocks", "norm_groups", "patch_size", "decoder_res_blocks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"The video tokenizer's {name} must be at least 1.")
        levels = len(self.widths)
        for name, length, allowed in (
            ("time_strides", levels - 1, (1, 2)),
            ("space_strides", levels - 1, (1, 2)),
            ("time_kernels", levels, (1, 3)),
        ):
            values = getattr(self, name)
            if values is not None and (not levels or len(values) != length):
                raise ConfigError(
                    f"A video tokenizer with {levels} widths needs {max(length, 0)} {name}, "
                    f"{'one less' if length < levels else 'one each'}, not {len(values)}."
                )
            if values is not None and not set(values) <= set(allowed):
                low, high = allowed
                raise ConfigError(f"{name} must be {low} or {high} each, not {values}.")
        for width in self.widths:
            if width < 1 or width % self.norm_groups:
                raise ConfigError(
                    f"Width {width} of the video tokenizer is no multiple of norm_groups "
                    f"{self.norm_groups}; change one of them."
                )

    @property
    def stride(self) -> int:
        """Pixels a side for one code."""
        halvings = self.space_strides or (2,) * len(self.time_strides)
        return self.patch_size * math.prod(halvings)

    @property
    def time_stride(self) -> int:
        """Frames for one code."""
        return math.prod(self.time_strides)

    def stride_of(self, level: int) -> Stride:
        """How much coarser than this level the next one is."""
        space = 2 if self.space_strides is None else self.space_strides[level]
        return self.time_strides[level], space, space

    def kernel_of(self, level: int) -> int:
        """Frames that the kernels of a level span; -1 is the coarsest."""
        return 3 if self.time_kernels is None else self.time_kernels[level]

    def layers(self) -> Layers:
        """What every layer has in common."""
        return Layers(self.norm_groups, self.norm_eps, self.edges, self.slope, self.factorized)


class CausalVideoTokenizer(nn.Module, Saved):
    """Clips to codes and back; see `mmgen.tokenizers_vis.protocol.VisualTokenizer`."""

    config_class: ClassVar[type] = CausalVideoTokenizerConfig

    def __init__(self, config: CausalVideoTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        self.codebook_size = self.quantizer.codebook_size
        self.channels: int = self.quantizer.channels
        z_channels = config.z_channels or self.channels
        self.encoder = ClipEncoder(config, z_channels)
        self.decoder = ClipDecoder(config, z_channels)
        self.to_code: nn.Module = nn.Identity()
        self.from_code: nn.Module = nn.Identity()
        if z_channels != self.channels:
            self.to_code = nn.Linear(z_channels, self.channels)
            self.from_code = nn.Linear(self.channels, z_channels)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstruct; returns pixels like the input and the quantizer's output, channels last."""
        quantized = self.quantizer(self.features(pixels))
        clip = self.decode_embeddings(quantized.quantized)
        return (clip if pixels.ndim == 5 else clip[:, :, 0]), quantized

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the codes; the decoder may be trained on without changing it."""
        return self.hash_of_weights(("encoder.", "to_code.", "quantizer."))

    def features(self, pixels: Tensor, memory: Memory | None = None) -> Tensor:
        """Encoder output before quantization: (B, t, h, w, C); with a memory, of a chunk."""
        clip = pixels if pixels.ndim == 5 else pixels.unsqueeze(2)  # a picture is one frame
        self.grid_for(tuple(clip.shape[2:]))
        clip = clip.to(self.encoder.conv_out.weight.dtype)
        if self.config.pixels == "unit":
            clip = (clip + 1) / 2
        z: Tensor = self.to_code(self.encoder(clip, memory).movedim(1, -1))
        return z

    def encode(self, pixels: Tensor) -> Codes:
        """Clips (B, 3, T, H, W), or pictures (B, 3, H, W), to `Codes` with indices (B, t, h, w).

        Frames behind the last whole group of `time_stride` leave no trace in the codes. A clip
        longer than `CHUNK` groups goes through in chunks.
        """
        if pixels.ndim == 4 or (pixels.shape[2] - 1) // self.config.time_stride <= CHUNK:
            return Codes(indices=self.quantizer.assign(self.features(pixels)))
        chunks = torch.split(pixels, CHUNK * self.config.time_stride, dim=2)
        return Codes(indices=torch.cat(list(self.encode_stream(chunks)), dim=1))

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Codes of a clip that comes bit by bit, in the memory of a bit.

        Args:
            chunks: the frames (B, 3, T, H, W) in order, in bits of any length.

        Yields:
            Indices (B, t, h, w), as soon as the frames of a code are there; all of them together
            are those of the whole clip.
        """
        memory, waiting, group = Memory(), None, 1  # the first code is that of one frame
        for chunk in chunks:
            waiting = chunk if waiting is None else torch.cat([waiting, chunk], dim=2)
            if waiting.shape[2] < group:
                continue
            stride = self.config.time_stride
            ready = group + (waiting.shape[2] - group) // stride * stride
            yield self.quantizer.assign(self.features(waiting[:, :, :ready], memory))
            waiting, group = waiting[:, :, ready:], stride

    def decode(self, codes: Codes) -> Tensor:
        """`Codes` with indices (B, t, h, w) to clips (B, 3, T, H, W), not clamped.

        T is `(t - 1) * time_stride + 1`, so a picture comes back as a clip of one frame.
        """
        if codes.indices is None:
            raise UserError("This tokenizer decodes indices; these codes hold only latents.")
        if codes.indices.shape[1] <= CHUNK + 1:
            return self.decode_embeddings(self.embed(codes.indices))
        return torch.cat(list(self.decode_stream(torch.split(codes.indices, CHUNK, dim=1))), dim=2)

    def decode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Frames (B, 3, T, H, W) of codes (B, t, h, w) that come bit by bit.

        All frames together are those of the whole clip: a finished frame is never changed by later
        codes.
        """
        memory = Memory()
        for chunk in chunks:
            yield self.decode_embeddings(self.embed(chunk), memory)

    def decode_embeddings(self, embeddings: Tensor, memory: Memory | None = None) -> Tensor:
        """Code embeddings (B, t, h, w, C) to clips (B, 3, T, H, W); with a memory, a chunk."""
        z = self.from_code(embeddings.to(self.encoder.conv_out.weight.dtype))
        clip: Tensor = self.decoder(z.movedim(-1, 1), memory)
        return clip * 2 - 1 if self.config.pixels == "unit" else clip

    def embed(self, indices: Tensor) -> Tensor:
        """Codebook embedding of each code: (...) long to (..., C)."""
        embedding: Tensor = self.quantizer.embed(indices)
        return embedding

    def grid_for(self, size: tuple[int, ...]) -> tuple[int, int, int]:
        """Grid (t, h, w) of a clip of `size` (T, H, W), or of a picture (H, W).

        Raises:
            UserError: a side is no multiple of the stride, or there is no frame.
        """
        stride = self.config.stride
        frames, height, width = size if len(size) == 3 else (1, *size)
        if frames < 1 or height % stride or width % stride or not (height and width):
            raise UserError(
                f"A clip of {frames} frames of {width}x{height} does not fit this tokenizer; "
                f"give at least 1 frame and sides that are multiples of {stride}."
            )
        return (frames - 1) // self.config.time_stride + 1, height // stride, width // stride


class ClipEncoder(nn.Module):
    """Clips (B, 3, T, H, W) to (B, z_channels, t, h, w)."""

    def __init__(self, config: CausalVideoTokenizerConfig, z_channels: int) -> None:
        super().__init__()
        widths, layers, self.patch_size = config.widths, config.layers(), config.patch_size
        self.conv_in = layers.conv(3 * self.patch_size**2, widths[0], config.kernel_of(0))
        self.levels = nn.ModuleList()
        previous, blocks = widths[0], config.res_blocks
        for i, width in enumerate(widths):
            time = config.kernel_of(i)
            level = ClipLevel(previous, width, blocks, layers, time)
            if i + 1 < len(widths):
                # A halving of time spans three frames, or it would drop every other one unseen.
                stride = config.stride_of(i)
                level.resample = layers.conv(width, width, max(time, 2 * stride[0] - 1), stride)
            self.levels.append(level)
            previous = width
        self.middle = ClipLevel(previous, previous, blocks, layers, config.kernel_of(-1))
        self.norm_out = layers.norm(previous)
        self.act_out = layers.activation(previous)
        self.conv_out = nn.Conv3d(previous, z_channels, 1)

    def forward(self, clip: Tensor, memory: Memory | None = None) -> Tensor:
        """Encode; with a memory, a chunk."""
        x = self.conv_in(_folded(clip, self.patch_size), memory)
        for level in self.levels:
            x = level(x, memory)
        x = self.middle(x, memory)
        out: Tensor = self.conv_out(self.act_out(self.norm_out(x)))
        return out


class ClipDecoder(nn.Module):
    """(B, z_channels, t, h, w) to clips (B, 3, T, H, W); `levels` run from coarse to fine."""

    def __init__(self, config: CausalVideoTokenizerConfig, z_channels: int) -> None:
        super().__init__()
        widths, layers, self.patch_size = config.widths, config.layers(), config.patch_size
        blocks = config.decoder_res_blocks or config.res_blocks
        self.conv_in = layers.conv(z_channels, widths[-1], config.kernel_of(-1))
        self.middle = ClipLevel(widths[-1], widths[-1], blocks, layers, config.kernel_of(-1))
        self.levels = nn.ModuleList()
        previous = widths[-1]
        for i in reversed(range(len(widths))):
            level = ClipLevel(previous, widths[i], blocks, layers, config.kernel_of(i))
            if i > 0:
                stride = config.stride_of(i - 1)
                level.resample = DepthToSpace(widths[i], stride, layers, config.kernel_of(i))
            self.levels.append(level)
            previous = widths[i]
        self.norm_out = layers.norm(previous)
        self.act_out = layers.activation(previous)
        self.conv_out = layers.conv(previous, 3 * self.patch_size**2, config.kernel_of(0))

    def forward(self, z: Tensor, memory: Memory | None = None) -> Tensor:
        """Decode; with a memory, a chunk."""
        x = self.middle(self.conv_in(z, memory), memory)
        for level in self.levels:
            x = level(x, memory)
        x = self.conv_out(self.act_out(self.norm_out(x)), memory)
        return _unfolded(x, self.patch_size)


class ClipLevel(nn.Module):
    """Residual blocks of one resolution, then a resampling where there is one."""

    def __init__(self, inputs: int, outputs: int, blocks: int, layers: Layers, time: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            CausalResBlock(inputs if j == 0 else outputs, outputs, layers, time)
            for j in range(blocks)
        )
        self.resample: nn.Module | None = None

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """(B, inputs, T, H, W) to (B, outputs, T', H', W')."""
        for block in self.blocks:
            x = block(x, memory)
        return x if self.resample is None else self.resample(x, memory)


def _folded(clip: Tensor, patch: int) -> Tensor:
    """Fold patches of pixels into channels: (B, 3, T, H, W) to (B, 3*p*p, T, H/p, W/p)."""
    if patch == 1:
        return clip
    batch, channels, frames, height, width = clip.shape
    x = clip.reshape(
        batch, channels, frames, height // patch, patch, width // patch, patch
    )  # (B, 3, T, h, p, w, p)
    return x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).movedim(-1, 1)


def _unfolded(x: Tensor, patch: int) -> Tensor:
    """Undo `_folded`."""
    if patch == 1:
        return x
    x = x.reshape(len(x), 3, patch, patch, *x.shape[2:])  # (B, 3, p, p, T, h, w)
    return x.permute(0, 1, 4, 5, 2, 6, 3).flatten(5, 6).flatten(3, 4)
