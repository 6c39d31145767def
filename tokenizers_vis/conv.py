"""The convolutional visual tokenizer: pixels -> encoder -> quantizer -> codes -> decoder -> pixels.

The classic VQGAN autoencoder (residual blocks, group norm, single-head attention at chosen levels)
at any stride: `patch_size` pixels are folded into channels first, and every level after the first
halves the resolution, so that the stride is `patch_size * 2 ** (len(widths) - 1)`.

Shapes: pixels (B, 3, H, W) in [-1, 1]; grid h = H / stride, w = W / stride; C = quantizer channels.
Spec: LlamaGen's VQ-16 (arXiv 2406.06525) is `widths=(128, 128, 256, 256, 512)`, `patch_size=1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError, UserError
from mmgen.saving import Saved
from mmgen.tokenizers_vis.protocol import Codes, Quantized
from mmgen.tokenizers_vis.quantizers import (
    FSQConfig,
    IBQConfig,
    LFQConfig,
    VQConfig,
    build_quantizer,
)


@dataclass(frozen=True)
class ConvTokenizerConfig:
    """Sizes of a `ConvTokenizer`.

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
    """

    quantizer: VQConfig | FSQConfig | LFQConfig | IBQConfig
    patch_size: int = 1
    widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    res_blocks: int = 2
    decoder_res_blocks: int = 3
    attention_levels: tuple[int, ...] = (4,)
    middle_attention: bool = True
    z_channels: int = 256
    norm_groups: int = 32

    def __post_init__(self) -> None:
        """Refuse sizes that make no network, and widths that the group norm cannot divide."""
        for name in ("patch_size", "res_blocks", "decoder_res_blocks", "z_channels", "norm_groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"The tokenizer's {name} must be at least 1.")
        levels = range(len(self.widths))
        if not levels or not set(self.attention_levels) <= set(levels):
            raise ConfigError(
                f"A tokenizer with widths {self.widths} has the levels {[*levels]}, and its "
                f"attention_levels are {self.attention_levels}; give widths, and levels that exist."
            )
        for width in self.widths:
            if width % self.norm_groups:
                raise ConfigError(
                    f"Width {width} of the tokenizer is no multiple of norm_groups "
                    f"{self.norm_groups}; change one of them."
                )

    @property
    def stride(self) -> int:
        """Pixels a side for one code."""
        return int(self.patch_size * 2 ** (len(self.widths) - 1))


class ConvTokenizer(nn.Module, Saved):
    """Pictures to codes and back; see `mmgen.tokenizers_vis.protocol.VisualTokenizer`."""

    config_class: ClassVar[type] = ConvTokenizerConfig

    def __init__(self, config: ConvTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        self.codebook_size: int = self.quantizer.codebook_size
        self.channels: int = self.quantizer.channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.to_code = nn.Conv2d(config.z_channels, self.channels, 1)
        self.from_code = nn.Conv2d(self.channels, config.z_channels, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstruct; returns pixels (B, 3, H, W) and the quantizer's output, channels last."""
        quantized = self.quantizer(self.features(pixels))
        return self.decode_embeddings(quantized.quantized), quantized

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the codes; the decoder may be trained on without changing it."""
        return self.hash_of_weights(("encoder.", "to_code.", "quantizer."))

    def features(self, pixels: Tensor) -> Tensor:
        """Encoder output before quantization: (B, h, w, C)."""
        self.grid_for((pixels.shape[-2], pixels.shape[-1]))
        z: Tensor = self.to_code(self.encoder(pixels.to(self.to_code.weight.dtype)))
        return z.permute(0, 2, 3, 1)  # (B, h, w, C)

    def encode(self, pixels: Tensor) -> Codes:
        """Pixels (B, 3, H, W) in [-1, 1] to `Codes` with indices (B, 1, h, w)."""
        return Codes(indices=self.quantizer.assign(self.features(pixels)).unsqueeze(1))

    def decode(self, codes: Codes) -> Tensor:
        """`Codes` with indices (B, 1, h, w) to pixels (B, 3, H, W), not clamped."""
        if codes.indices is None:
            raise UserError("A ConvTokenizer decodes indices; these codes hold only latents.")
        return self.decode_embeddings(self.embed(codes.indices[:, 0]))

    def decode_embeddings(self, embeddings: Tensor) -> Tensor:
        """Code embeddings (B, h, w, C) to pixels (B, 3, H, W)."""
        z = embeddings.to(self.from_code.weight.dtype).permute(0, 3, 1, 2)
        z = z.contiguous(memory_format=torch.channels_last)
        pixels: Tensor = self.decoder(self.from_code(z))
        return pixels

    def embed(self, indices: Tensor) -> Tensor:
        """Codebook embedding of each code: (...) long to (..., C)."""
        embedding: Tensor = self.quantizer.embed(indices)
        return embedding

    def grid_for(self, size: tuple[int, ...]) -> tuple[int, int, int]:
        """Grid (1, h, w) of a picture of `size` (H, W) pixels.

        Raises:
            UserError: a side is no multiple of the stride.
        """
        stride = self.config.stride
        height, width = size[-2:]
        if height % stride or width % stride or not (height and width):
            raise UserError(
                f"A picture of {width}x{height} does not fit this tokenizer; "
                f"both sides must be multiples of {stride}."
            )
        return 1, height // stride, width // stride


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) to (B, z_channels, h, w)."""

    def __init__(self, config: ConvTokenizerConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        widths, groups = config.widths, config.norm_groups
        self.conv_in = nn.Conv2d(3 * config.patch_size**2, widths[0], 3, padding=1)
        self.levels = nn.ModuleList()
        previous = widths[0]
        for i, width in enumerate(widths):
            level = Level(previous, width, config.res_blocks, i in config.attention_levels, groups)
            level.resample = Downsample(width) if i + 1 < len(widths) else None
            self.levels.append(level)
            previous = width
        self.middle = Middle(previous, config.middle_attention, groups)
        self.norm_out = group_norm(previous, groups)
        self.conv_out = nn.Conv2d(previous, config.z_channels, 3, padding=1)

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
    """(B, z_channels, h, w) to pixels (B, 3, H, W); `levels` run from coarse to fine."""

    def __init__(self, config: ConvTokenizerConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        widths, groups = config.widths, config.norm_groups
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.middle = Middle(widths[-1], config.middle_attention, groups)
        self.levels = nn.ModuleList()
        previous = widths[-1]
        for i in reversed(range(len(widths))):
            level = Level(
                previous,
                widths[i],
                config.decoder_res_blocks,
                i in config.attention_levels,
                groups,
            )
            level.resample = Upsample(widths[i]) if i > 0 else None
            self.levels.append(level)
            previous = widths[i]
        self.norm_out = group_norm(previous, groups)
        self.conv_out = nn.Conv2d(previous, 3 * config.patch_size**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Decode."""
        x = self.middle(self.conv_in(z))
        for level in self.levels:
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(x)))
        return F.pixel_shuffle(x, self.patch_size)


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention if asked, then a resampling."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, attention: bool, groups: int
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResBlock(inputs if j == 0 else outputs, outputs, groups) for j in range(blocks)
        )
        self.attentions = nn.ModuleList(
            Attention(outputs, groups) for _ in range(blocks if attention else 0)
        )
        self.resample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        for j, block in enumerate(self.blocks):
            x = block(x)
            if len(self.attentions):
                x = self.attentions[j](x)
        return x if self.resample is None else self.resample(x)


class Middle(nn.Module):
    """Block, attention, block at the coarsest resolution."""

    def __init__(self, width: int, attention: bool, groups: int) -> None:
        super().__init__()
        self.block_in = ResBlock(width, width, groups)
        self.attention = Attention(width, groups) if attention else nn.Identity()
        self.block_out = ResBlock(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same shape."""
        out: Tensor = self.block_out(self.attention(self.block_in(x)))
        return out


class ResBlock(nn.Module):
    """Two 3x3 convolutions with pre-norm and SiLU, and a 1x1 shortcut where the width changes."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(inputs, groups)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = group_norm(outputs, groups)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = self.shortcut(x) + y
        return out


class Attention(nn.Module):
    """Single-head self-attention over all places, with 1x1 convolutions as projections."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(width, groups)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) to the same shape."""
        h = self.norm(x)
        q, k, v = (p(h).flatten(2).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)  # (B, h*w, width)
        y = y.transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.proj_out(y)
        return out


class Downsample(nn.Module):
    """Halve the resolution; VQGAN pads one zero column right and one zero row below."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to (B, width, H/2, W/2)."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
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


def group_norm(width: int, groups: int) -> nn.GroupNorm:
    """Group norm as in every VQGAN-type checkpoint (eps 1e-6)."""
    return nn.GroupNorm(groups, width, eps=1e-6)
