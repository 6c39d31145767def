"""The convolutional clip tokenizer: the picture network on every frame, then time by itself.

Emu3's vision tokenizer (arXiv 2409.18869). The encoder of `autoencoder.py` sees each frame alone;
a few causal convolutions over its small output halve the time axis. The decoder doubles it again
before it paints the frames, and every norm in it is conditioned on the code. A picture is a clip
that stands still.

Shapes: pictures (B, 3, H, W) or clips (B, 3, T, H, W) in [-1, 1]; grid t = T / temporal_stride,
h = H / stride, w = W / stride; C = quantizer channels. Spec: Emu3 D3 of the IBQ specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError, UserError
from mmgen.saving import Saved
from mmgen.tokenizers_vis.autoencoder import ConvTokenizerConfig, Decoder, Encoder
from mmgen.tokenizers_vis.causal import CausalConv, Stride
from mmgen.tokenizers_vis.losses import as_frames
from mmgen.tokenizers_vis.protocol import Codes, Quantized
from mmgen.tokenizers_vis.quantizers import KLConfig, build_quantizer

HISTORY = 2  # zero frames before every clip, whatever the kernel; none after it


@dataclass(frozen=True)
class VideoConvTokenizerConfig:
    """Sizes of a `VideoConvTokenizer`.

    Args:
        frames: the network of one frame and the quantizer; its `z_channels` are those of a code.
        temporal_stride: frames for one code, a power of 2.
        temporal_res_blocks: residual blocks over time, in the encoder and in the decoder.
    """

    frames: ConvTokenizerConfig
    temporal_stride: int = 4
    temporal_res_blocks: int = 2

    def __post_init__(self) -> None:
        """Refuse what makes no network."""
        stride = self.temporal_stride
        if stride < 1 or stride & (stride - 1) or self.temporal_res_blocks < 0:
            raise ConfigError(
                f"A clip tokenizer's temporal_stride must be a power of 2, not {stride}, and its "
                "temporal_res_blocks cannot be negative."
            )
        if isinstance(self.frames.quantizer, KLConfig) or self.frames.family != "vqgan":
            raise ConfigError(
                'A clip tokenizer takes a discrete quantizer and frames of the family "vqgan".'
            )
        with torch.device("meta"):  # a configuration draws nothing
            channels = build_quantizer(self.frames.quantizer).channels
        if channels != self.frames.z_channels:
            raise ConfigError(
                f"A clip tokenizer's z_channels ({self.frames.z_channels}) must equal the channels "
                f"of its codes ({channels}): features and codes share the layers over time."
            )

    @property
    def halvings(self) -> int:
        """How often the time axis is halved."""
        return self.temporal_stride.bit_length() - 1


class VideoConvTokenizer(nn.Module, Saved):
    """Pictures and clips to codes and back; see `mmgen.tokenizers_vis.protocol.VisualTokenizer`."""

    config_class: ClassVar[type] = VideoConvTokenizerConfig

    def __init__(self, config: VideoConvTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.frames.quantizer)
        self.codebook_size: int | None = self.quantizer.codebook_size
        self.channels: int = self.quantizer.channels
        self.encoder = ClipEncoder(config)
        self.decoder = ClipDecoder(config, self.channels)
        self.to_code = _conv(config.frames.z_channels, self.channels, (3, 1, 1))
        self.from_code = _conv(self.channels, config.frames.z_channels, (3, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstruct; returns pixels like the input and the quantizer's output, channels last."""
        quantized = self.quantizer(self.features(pixels))
        clip = self.decode_embeddings(quantized.quantized)
        return (clip if pixels.ndim == 5 else clip[:, :, 0]), quantized

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the codes; the decoder may be trained on without changing it."""
        return self.hash_of_weights(("encoder.", "to_code.", "quantizer."))

    def features(self, pixels: Tensor) -> Tensor:
        """Encoder output before the quantizer: (B, t, h, w, C)."""
        features: Tensor = self.to_code(self.encoded(pixels))
        return features.movedim(1, -1)  # (B, t, h, w, C)

    def encoded(self, pixels: Tensor) -> Tensor:
        """Output (B, z_channels, t, h, w) of the encoder proper."""
        self.grid_for(tuple(pixels.shape[2:]))
        if pixels.ndim == 4:
            pixels = pixels.unsqueeze(2).expand(-1, -1, self.config.temporal_stride, -1, -1)
        encoded: Tensor = self.encoder(pixels.to(self.encoder.frames.conv_in.weight.dtype))
        return encoded

    def encode(self, pixels: Tensor) -> Codes:
        """Pixels (B, 3, H, W) or (B, 3, T, H, W) in [-1, 1] to `Codes` with indices."""
        return Codes(indices=self.quantizer.assign(self.features(pixels)))

    def decode(self, codes: Codes) -> Tensor:
        """`Codes` (B, 1, h, w) to pictures (B, 3, H, W), longer ones to clips; not clamped."""
        clip = self.decode_clip(codes)
        return clip[:, :, 0] if _indices(codes).shape[1] == 1 else clip

    def decode_clip(self, codes: Codes) -> Tensor:
        """`Codes` (B, t, h, w) to all their frames (B, 3, T, H, W), not clamped."""
        return self.decode_embeddings(self.embed(_indices(codes)))

    def decode_embeddings(self, embeddings: Tensor) -> Tensor:
        """Code embeddings (B, t, h, w, C) to clips (B, 3, T, H, W)."""
        code = embeddings.to(self.from_code.conv.weight.dtype).movedim(-1, 1)
        clip: Tensor = self.decoder(self.from_code(code), code)
        return clip

    def embed(self, indices: Tensor) -> Tensor:
        """Codebook embedding of each code: (...) long to (..., C)."""
        embedding: Tensor = self.quantizer.embed(indices)
        return embedding

    def grid_for(self, size: tuple[int, ...]) -> tuple[int, int, int]:
        """Grid (t, h, w) of a picture (H, W) or of a clip (T, H, W).

        Raises:
            UserError: a side is no multiple of the stride, or the frames not of the temporal one.
        """
        stride, temporal = self.config.frames.stride, self.config.temporal_stride
        height, width = size[-2:]
        frames = size[0] if len(size) == 3 else temporal
        if height % stride or width % stride or frames % temporal or not (height * width * frames):
            raise UserError(
                f"{frames} frames of {width}x{height} do not fit this tokenizer; both sides must "
                f"be multiples of {stride}, the number of frames of {temporal}."
            )
        return frames // temporal, height // stride, width // stride


class ClipEncoder(nn.Module):
    """Clips (B, 3, T, H, W) to (B, z_channels, t, h, w)."""

    def __init__(self, config: VideoConvTokenizerConfig) -> None:
        super().__init__()
        width = config.frames.z_channels
        self.frames = Encoder(config.frames)
        self.halvings = nn.ModuleList(
            _conv(width, width, (4, 3, 3), stride=2) for _ in range(config.halvings)
        )
        self.blocks = nn.ModuleList(TimeBlock(width) for _ in range(config.temporal_res_blocks))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode."""
        x = as_clips(self.frames(as_frames(pixels)), len(pixels))
        for halving in self.halvings:
            x = F.silu(halving(x))
        for block in self.blocks:
            x = block(x)
        return x


class ClipDecoder(nn.Module):
    """Features (B, z_channels, t, h, w) and their code (B, E, t, h, w) to clips (B, 3, T, H, W)."""

    def __init__(self, config: VideoConvTokenizerConfig, code_channels: int) -> None:
        super().__init__()
        width = config.frames.z_channels
        self.blocks = nn.ModuleList(TimeBlock(width) for _ in range(config.temporal_res_blocks))
        self.doublings = nn.ModuleList(
            _conv(width, width, (3, 3, 3)) for _ in range(config.halvings)
        )
        self.frames = Decoder(config.frames, code_channels)

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        """Decode."""
        both = torch.cat([z, code])  # one pass in time for both, in training one batch statistic
        for block in self.blocks:
            both = block(both)
        for doubling in self.doublings:
            both = F.silu(doubling(both.repeat_interleave(2, dim=2)))
        x, condition = (as_frames(part) for part in both.chunk(2))
        return as_clips(self.frames(x, condition), len(z))


class TimeBlock(nn.Module):
    """Two causal 3x3x3 convolutions with batch norm and SiLU before them, and a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(width)
        self.conv1 = _conv(width, width, (3, 3, 3))
        self.norm2 = nn.BatchNorm3d(width)
        self.conv2 = _conv(width, width, (3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, t, h, w) to the same shape."""
        y = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(F.silu(self.norm2(y)))
        return out


def _conv(inputs: int, outputs: int, kernel: Stride, stride: int = 1) -> CausalConv:
    """A causal convolution with zeros around; `stride` is that of time."""
    return CausalConv(inputs, outputs, kernel, (stride, 1, 1), before=HISTORY, edges="constant")


def as_clips(frames: Tensor, batch: int) -> Tensor:
    """Return frames (B*T, C, H, W) as clips (B, C, T, H, W); undoes `losses.as_frames`."""
    return frames.reshape(batch, -1, *frames.shape[1:]).transpose(1, 2)


def _indices(codes: Codes) -> Tensor:
    if codes.indices is None:
        raise UserError("A VideoConvTokenizer decodes indices; these codes hold only latents.")
    return codes.indices
