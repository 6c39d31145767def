"""The causal video tokenizer: clips -> encoder -> quantizer -> codes (t, h, w) -> decoder -> clips.

Space is halved at every level after the first, time at those that say so. The first frame is a
latent frame of its own, so a picture is a clip of one frame, and latent frame j depends on the
frames 0 .. j * time_stride alone: the beginning of a clip has the beginning of its codes.

Shapes: pixels (B, 3, T, H, W) in [-1, 1]; grid t = (T - 1) // time_stride + 1, h = H / stride,
w = W / stride; C = quantizer channels. Spec: nbp.md 2 (NBP, arXiv 2502.07737, after MAGVIT-v2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from mmgen.errors import ConfigError, UserError
from mmgen.saving import Saved
from mmgen.tokenizers_vis.causal import (
    CausalConv,
    CausalResBlock,
    DepthToSpace,
    FrameNorm,
    Stride,
    Swish,
)
from mmgen.tokenizers_vis.protocol import Codes, Quantized
from mmgen.tokenizers_vis.quantizers import (
    FSQConfig,
    IBQConfig,
    LFQConfig,
    VQConfig,
    build_quantizer,
)


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
    """

    quantizer: FSQConfig | VQConfig | LFQConfig | IBQConfig
    widths: tuple[int, ...] = (128, 256, 256, 512)
    time_strides: tuple[int, ...] = (1, 2, 2)
    res_blocks: int = 4
    z_channels: int | None = None
    norm_groups: int = 32
    norm_eps: float = 1e-5
    pixels: Literal["signed", "unit"] = "signed"

    def __post_init__(self) -> None:
        """Refuse sizes that make no network, and widths that the group norm cannot divide."""
        for name in ("res_blocks", "norm_groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"The video tokenizer's {name} must be at least 1.")
        if not self.widths or len(self.time_strides) != len(self.widths) - 1:
            raise ConfigError(
                f"A video tokenizer with {len(self.widths)} widths needs {len(self.widths) - 1} "
                f"time_strides, one less, not {len(self.time_strides)}."
            )
        if not set(self.time_strides) <= {1, 2}:
            raise ConfigError(f"time_strides must be 1 or 2 each, not {self.time_strides}.")
        for width in self.widths:
            if width < 1 or width % self.norm_groups:
                raise ConfigError(
                    f"Width {width} of the video tokenizer is no multiple of norm_groups "
                    f"{self.norm_groups}; change one of them."
                )

    @property
    def stride(self) -> int:
        """Pixels a side for one code."""
        return int(2 ** len(self.time_strides))

    @property
    def time_stride(self) -> int:
        """Frames for one code."""
        return math.prod(self.time_strides)

    def stride_of(self, level: int) -> Stride:
        """How much coarser than this level the next one is."""
        return self.time_strides[level], 2, 2


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
        """Reconstruct; returns pixels like the clip and the quantizer's output, channels last."""
        quantized = self.quantizer(self.features(pixels))
        return self.decode_embeddings(quantized.quantized), quantized

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the codes; the decoder may be trained on without changing it."""
        return self.hash_of_weights(("encoder.", "to_code.", "quantizer."))

    def features(self, pixels: Tensor) -> Tensor:
        """Encoder output before quantization: (B, t, h, w, C)."""
        clip = pixels if pixels.ndim == 5 else pixels.unsqueeze(2)  # a picture is one frame
        self.grid_for(tuple(clip.shape[2:]))
        clip = clip.to(self.encoder.conv_out.weight.dtype)
        if self.config.pixels == "unit":
            clip = (clip + 1) / 2
        z: Tensor = self.to_code(self.encoder(clip).movedim(1, -1))
        return z

    def encode(self, pixels: Tensor) -> Codes:
        """Clips (B, 3, T, H, W), or pictures (B, 3, H, W), to `Codes` with indices (B, t, h, w).

        Frames behind the last whole group of `time_stride` leave no trace in the codes.
        """
        return Codes(indices=self.quantizer.assign(self.features(pixels)))

    def decode(self, codes: Codes) -> Tensor:
        """`Codes` with indices (B, t, h, w) to clips (B, 3, T, H, W), not clamped.

        T is `(t - 1) * time_stride + 1`, so a picture comes back as a clip of one frame.
        """
        if codes.indices is None:
            raise UserError("This tokenizer decodes indices; these codes hold only latents.")
        return self.decode_embeddings(self.embed(codes.indices))

    def decode_embeddings(self, embeddings: Tensor) -> Tensor:
        """Code embeddings (B, t, h, w, C) to clips (B, 3, T, H, W)."""
        z = self.from_code(embeddings.to(self.encoder.conv_out.weight.dtype))
        clip: Tensor = self.decoder(z.movedim(-1, 1))
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
        widths = config.widths
        self.conv_in = CausalConv(3, widths[0])
        self.levels = nn.ModuleList()
        previous = widths[0]
        for i, width in enumerate(widths):
            level = ClipLevel(previous, width, config)
            if i + 1 < len(widths):
                level.resample = CausalConv(width, width, stride=config.stride_of(i))
            self.levels.append(level)
            previous = width
        self.middle = ClipLevel(previous, previous, config)
        self.norm_out = FrameNorm(config.norm_groups, previous, config.norm_eps)
        self.act_out = Swish(previous)
        self.conv_out = nn.Conv3d(previous, z_channels, 1)

    def forward(self, clip: Tensor) -> Tensor:
        """Encode."""
        x = self.conv_in(clip)
        for level in self.levels:
            x = level(x)
        out: Tensor = self.conv_out(self.act_out(self.norm_out(self.middle(x))))
        return out


class ClipDecoder(nn.Module):
    """(B, z_channels, t, h, w) to clips (B, 3, T, H, W); `levels` run from coarse to fine."""

    def __init__(self, config: CausalVideoTokenizerConfig, z_channels: int) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = CausalConv(z_channels, widths[-1])
        self.middle = ClipLevel(widths[-1], widths[-1], config)
        self.levels = nn.ModuleList()
        previous = widths[-1]
        for i in reversed(range(len(widths))):
            level = ClipLevel(previous, widths[i], config)
            if i > 0:
                level.resample = DepthToSpace(widths[i], config.stride_of(i - 1))
            self.levels.append(level)
            previous = widths[i]
        self.norm_out = FrameNorm(config.norm_groups, previous, config.norm_eps)
        self.act_out = Swish(previous)
        self.conv_out = CausalConv(previous, 3)

    def forward(self, z: Tensor) -> Tensor:
        """Decode."""
        x = self.middle(self.conv_in(z))
        for level in self.levels:
            x = level(x)
        out: Tensor = self.conv_out(self.act_out(self.norm_out(x)))
        return out


class ClipLevel(nn.Module):
    """Residual blocks of one resolution, then a resampling where there is one."""

    def __init__(self, inputs: int, outputs: int, config: CausalVideoTokenizerConfig) -> None:
        super().__init__()
        groups, eps = config.norm_groups, config.norm_eps
        self.blocks = nn.ModuleList(
            CausalResBlock(inputs if j == 0 else outputs, outputs, groups, eps)
            for j in range(config.res_blocks)
        )
        self.resample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, H, W) to (B, outputs, T', H', W')."""
        for block in self.blocks:
            x = block(x)
        return x if self.resample is None else self.resample(x)
