"""The convolutional visual tokenizer: pixels -> encoder -> quantizer -> codes -> decoder -> pixels.

The classic VQGAN autoencoder (residual blocks, group norm, single-head attention at chosen levels)
at any stride, with any bottleneck, a continuous one too. Networks of published systems that share
its topology are configurations of it: see `mmgen.published`.

Shapes: pixels (B, 3, H, W) in [-1, 1]; grid h = H / stride, w = W / stride; C = quantizer channels.
Spec: LlamaGen's VQ-16 (arXiv 2406.06525) is `widths=(128, 128, 256, 256, 512)`, `patch_size=1`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmgen.errors import UserError
from mmgen.saving import Saved
from mmgen.tokenizers_vis.autoencoder import ConvTokenizerConfig, Decoder, Encoder
from mmgen.tokenizers_vis.protocol import Codes, Quantized
from mmgen.tokenizers_vis.quantizers import KL, build_quantizer

__all__ = ["ConvTokenizer", "ConvTokenizerConfig"]


class ConvTokenizer(nn.Module, Saved):
    """Pictures to codes and back; see `mmgen.tokenizers_vis.protocol.VisualTokenizer`.

    With a KL bottleneck, codes are scaled latents (B, 1, h, w, C) instead of indices.
    """

    config_class: ClassVar[type] = ConvTokenizerConfig

    def __init__(self, config: ConvTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        self.codebook_size: int | None = self.quantizer.codebook_size
        self.channels: int = self.quantizer.channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config, self.channels)
        moments, bare = config.moments, config.family == "magvit2"
        self.to_code = _pointwise(moments * config.z_channels, moments * self.channels, bare)
        self.from_code = _pointwise(self.channels, config.z_channels, bare)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstruct; returns pixels (B, 3, H, W) and the quantizer's output, channels last."""
        quantized = self.quantizer(self.features(pixels))
        return self.decode_embeddings(quantized.quantized), quantized

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the codes; the decoder may be trained on without changing it."""
        return self.hash_of_weights(("encoder.", "to_code.", "quantizer."))

    def features(self, pixels: Tensor) -> Tensor:
        """Encoder output before the bottleneck: (B, h, w, C), for KL the moments (B, h, w, 2C)."""
        self.grid_for((pixels.shape[-2], pixels.shape[-1]))
        z: Tensor = self.to_code(self.encoder(pixels.to(self.encoder.conv_in.weight.dtype)))
        return z.permute(0, 2, 3, 1)  # (B, h, w, C)

    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Codes:
        """Pixels (B, 3, H, W) in [-1, 1] to `Codes` of the grid (1, h, w).

        Args:
            pixels: float.
            noise: (B, 1, h, w, C) standard normal, for a sample of a KL posterior; None: its mean.
        """
        features = self.features(pixels).unsqueeze(1)  # (B, 1, h, w, C)
        if isinstance(self.quantizer, KL):
            latents, deviations = self.quantizer.latents(features, noise)
            return Codes(indices=None, latents=latents, deviations=deviations)
        return Codes(indices=self.quantizer.assign(features))

    def decode(self, codes: Codes) -> Tensor:
        """`Codes` of the grid (1, h, w) to pixels (B, 3, H, W), not clamped."""
        if isinstance(self.quantizer, KL):
            if codes.latents is None:
                raise UserError("A KL tokenizer decodes latents; these codes hold only indices.")
            return self.decode_embeddings(self.quantizer.unscaled(codes.latents[:, 0]))
        if codes.indices is None:
            raise UserError("A ConvTokenizer decodes indices; these codes hold only latents.")
        return self.decode_embeddings(self.embed(codes.indices[:, 0]))

    def decode_embeddings(self, embeddings: Tensor) -> Tensor:
        """Code embeddings, or latents without their scale, (B, h, w, C) to pixels (B, 3, H, W)."""
        z = embeddings.to(self.decoder.conv_in.weight.dtype).permute(0, 3, 1, 2)
        z = z.contiguous(memory_format=torch.channels_last)
        pixels: Tensor = self.decoder(self.from_code(z), z)
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


def _pointwise(inputs: int, outputs: int, bare: bool) -> nn.Module:
    return nn.Identity() if bare else nn.Conv2d(inputs, outputs, 1)
