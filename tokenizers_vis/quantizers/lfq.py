"""Lookup-free quantization: the code is the signs of the channels (arXiv 2310.05737).

As in Open-MAGVIT2 (arXiv 2409.04410) the index is little-endian (channel 0 is bit 0) and an
entropy loss keeps each vector sure of its code and the batch spread over all codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.tokenizers_vis.protocol import Quantized
from mmgen.tokenizers_vis.quantizers.softmax import entropies, full_precision

MOST_CHANNELS = 20  # the average entropy visits a table of all 2^channels codes


@dataclass(frozen=True)
class LFQConfig:
    """Lookup-free quantization; the codebook size is 2 ** channels.

    Args:
        channels: number of bits.
        entropy_weight: weight of the whole entropy term; 0 leaves it out.
        sample_weight: weight in it of the entropy per sample.
        batch_weight: weight in it of the entropy of the average.
        entropy_temperature: divides 2 h.c there.
        commitment_weight: weight of mean((h - sg c)^2).
    """

    kind: Literal["lfq"] = "lfq"
    channels: int = 14
    entropy_weight: float = 0.1
    sample_weight: float = 1.0
    batch_weight: float = 1.0
    entropy_temperature: float = 0.01
    commitment_weight: float = 0.25

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MOST_CHANNELS:
            raise ConfigError(
                f"An LFQ quantizer takes 1 to {MOST_CHANNELS} channels, not {self.channels}."
            )


class LFQ(nn.Module):
    """Signs with a straight-through gradient; losses in training mode only."""

    bits: Tensor

    def __init__(self, config: LFQConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size, self.channels = 2**config.channels, config.channels
        self.register_buffer("bits", 2 ** torch.arange(config.channels), persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        """Quantize z (..., D) float; a channel that is exactly 0 becomes -1."""
        with full_precision(z):
            h = z.float()
            codes = torch.where(h > 0, 1.0, -1.0)
            losses = self._losses(h, codes) if self.training else {}
            quantized = codes + (h - h.detach())  # the second term is 0
        return Quantized(quantized.to(z.dtype), self.assign(z), losses)

    @torch.no_grad()
    def assign(self, z: Tensor) -> Tensor:
        """Return the indices (...,) of z (..., D)."""
        return ((z > 0) * self.bits).sum(-1)

    def embed(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D), -1 or +1, of indices (...,)."""
        return (indices[..., None] & self.bits).ne(0).float() * 2 - 1

    def _losses(self, h: Tensor, codes: Tensor) -> dict[str, Tensor]:
        config = self.config
        losses = {"commitment": config.commitment_weight * F.mse_loss(h, codes)}
        if config.entropy_weight:
            table = 2 * self.embed(torch.arange(self.codebook_size, device=h.device))
            flat = h.reshape(-1, self.channels)
            sample, average = entropies(flat, table, config.entropy_temperature)
            mixed = config.sample_weight * sample - config.batch_weight * average
            losses["entropy"] = config.entropy_weight * mixed
        return losses
