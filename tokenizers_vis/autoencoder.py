"""Encoder and decoder of the convolutional tokenizers, and the sizes that shape them.

Shapes: pixels (B, 3, H, W) in [-1, 1]; features (B, z_channels, h, w) with h = H / stride. The
stride is `patch_size * 2 ** (len(widths) - 1)`: `patch_size` pixels are folded into channels
first, and every level after the first halves the resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.config import later
from mmgen.errors import ConfigError
from mmgen.tokenizers_vis.blocks import AdaptiveNorm, Level, Pieces
from mmgen.tokenizers_vis.quantizers import (
    FSQConfig,
    IBQConfig,
    KLConfig,
    LFQConfig,
    VQConfig,
)

COUNTS = ("patch_size", "res_blocks", "decoder_res_blocks", "z_channels", "norm_groups")


@dataclass(frozen=True)
class ConvTokenizerConfig:
    """Sizes of a convolutional autoencoder with a bottleneck.

    Args:
        quantizer: kind and size of the bottleneck.
        patch_size: pixels a side that are folded into channels before the first convolution.
        widths: channels of each level, fine to coarse.
        res_blocks: residual blocks a level in the encoder.
        decoder_res_blocks: the same in the decoder.
        attention_levels: levels whose blocks are followed by attention, in encoder and decoder.
        middle_attention: attention between the two blocks at the coarsest resolution.
        z_channels: channels between the encoder and the 1x1 convolution before the quantizer.
        norm_groups: groups of every group norm; each width is a multiple of it.
        stem_width: channels after the encoder's first convolution; None: those of level 0 (VQGAN
            counts it apart, and it differs where the first multiplier is not 1).
        decoder_widths: channels of the decoder's levels, fine to coarse; None: `widths`
            (LlamaGen's configuration has both).
        decoder_attention_levels: the same for attention (KL-16 has none in the decoder's levels).
        decoder_norm: "spatial" conditions every norm of the decoder on the code (Emu3).
        family: "magvit2" is the network of Open-MAGVIT2: residual blocks without biases,
            `res_blocks` of them and no attention in the middle, halving with symmetric padding,
            doubling by depth-to-space, no 1x1 convolutions around the quantizer, and decoder
            levels that begin with a norm conditioned on the code.
    """

    quantizer: VQConfig | FSQConfig | LFQConfig | IBQConfig | KLConfig
    patch_size: int = 1
    widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    res_blocks: int = 2
    decoder_res_blocks: int = 3
    attention_levels: tuple[int, ...] = (4,)
    middle_attention: bool = True
    z_channels: int = 256
    norm_groups: int = 32
    stem_width: int | None = later(None)
    decoder_widths: tuple[int, ...] | None = later(None)
    decoder_attention_levels: tuple[int, ...] | None = later(None)
    decoder_norm: Literal["plain", "spatial"] = later("plain")
    family: Literal["vqgan", "magvit2"] = later("vqgan")

    def __post_init__(self) -> None:
        """Refuse sizes that make no network, and widths that the group norm cannot divide."""
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"The tokenizer's {name} must be at least 1.")
        levels = range(len(self.widths))
        attended = {*self.attention_levels, *(self.decoder_attention_levels or ())}
        if not levels or not attended <= set(levels):
            raise ConfigError(
                f"A tokenizer with widths {self.widths} has the levels {[*levels]}, and its "
                f"attention_levels are {self.attention_levels}; give widths, and levels that exist."
            )
        if self.decoder_widths is not None and len(self.decoder_widths) != len(levels):
            raise ConfigError(
                f"The tokenizer's decoder_widths {self.decoder_widths} have another number of "
                f"levels than its widths {self.widths}; give as many."
            )
        for width in (*self.widths, *(self.decoder_widths or ()), self.stem_width or 0):
            if width % self.norm_groups:
                raise ConfigError(
                    f"Width {width} of the tokenizer is no multiple of norm_groups "
                    f"{self.norm_groups}; change one of them."
                )

    @property
    def stride(self) -> int:
        """Pixels a side for one code."""
        return int(self.patch_size * 2 ** (len(self.widths) - 1))

    @property
    def moments(self) -> int:
        """Numbers that the encoder gives for each channel: 2 (mean and log-variance) for KL."""
        return 2 if isinstance(self.quantizer, KLConfig) else 1


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) to (B, z_channels, h, w); twice the channels for a KL bottleneck."""

    def __init__(self, config: ConvTokenizerConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        widths, pieces = config.widths, Pieces(config.norm_groups, config.family)
        previous = config.stem_width or widths[0]
        self.conv_in = pieces.conv(3 * config.patch_size**2, previous, 3)
        self.levels = nn.ModuleList()
        for i, width in enumerate(widths):
            level = Level(previous, width, config.res_blocks, i in config.attention_levels, pieces)
            level.resample = pieces.downsample(width) if i + 1 < len(widths) else None
            self.levels.append(level)
            previous = width
        self.middle = pieces.middle(previous, config.res_blocks, config.middle_attention)
        self.norm_out = pieces.norm(previous)
        kernel = 1 if config.family == "magvit2" else 3
        outputs = config.moments * config.z_channels
        self.conv_out = nn.Conv2d(previous, outputs, kernel, padding=kernel // 2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode."""
        x = F.pixel_unshuffle(pixels, self.patch_size)
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        for level in self.levels:
            x = level(x)
        x = self.middle(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class Decoder(nn.Module):
    """(B, z_channels, h, w) to pixels (B, 3, H, W); `levels` run from coarse to fine.

    Args:
        config: its sizes.
        code_channels: width E of a code, for norms that are conditioned on it.
    """

    def __init__(self, config: ConvTokenizerConfig, code_channels: int) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        widths = config.decoder_widths or config.widths
        attended = config.decoder_attention_levels
        if attended is None:
            attended = config.attention_levels
        spatial = code_channels if config.decoder_norm == "spatial" else None
        pieces = Pieces(config.norm_groups, config.family, spatial)
        previous, blocks = widths[-1], config.decoder_res_blocks
        self.conv_in = nn.Conv2d(config.z_channels, previous, 3, padding=1)
        self.middle = pieces.middle(previous, blocks, config.middle_attention)
        self.levels = nn.ModuleList()
        for i in reversed(range(len(widths))):
            level = Level(previous, widths[i], blocks, i in attended, pieces)
            if config.family == "magvit2":
                level.adapt = AdaptiveNorm(config.norm_groups, previous, code_channels)
            level.resample = pieces.upsample(widths[i]) if i > 0 else None
            self.levels.append(level)
            previous = widths[i]
        self.norm_out = pieces.norm(previous)
        self.conv_out = nn.Conv2d(previous, 3 * config.patch_size**2, 3, padding=1)

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        """Decode features (B, z_channels, h, w) of the code (B, E, h, w)."""
        x = self.middle(self.conv_in(z), code)
        for level in self.levels:
            x = level(x, code)
        x = self.conv_out(F.silu(self.norm_out(x, code)))
        return F.pixel_shuffle(x, self.patch_size)
