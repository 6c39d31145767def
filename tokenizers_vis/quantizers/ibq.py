"""Index backpropagation quantization (arXiv 2412.02692): every code gets a gradient.

The code is the row with the largest dot product (not the nearest row). Its one-hot vector is
straight-through: hard in value, softmax over all codes in gradient. So the gradient reaches
rows that nobody chose, and the encoder gets the covariance of the codebook under the softmax
times the incoming gradient. Never a whole (N, K) tensor: see `quantizers/softmax.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmgen.errors import ConfigError
from mmgen.tokenizers_vis.protocol import Quantized
from mmgen.tokenizers_vis.quantizers.softmax import code_chunks, entropies, full_precision


@dataclass(frozen=True)
class IBQConfig:
    """Index backpropagation quantization; weights as in the published recipe.

    Args:
        codebook_size: number of codes K.
        channels: width of a code D.
        quantization_weight: weight of the whole double quantization loss.
        beta: weight in it of the term that moves only the chosen rows.
        entropy_weight: weight of the whole entropy term; 0 leaves it out.
        sample_weight: weight in it of the entropy per sample.
        batch_weight: weight in it of the entropy of the average.
        entropy_temperature: divides the dot products there.
    """

    kind: Literal["ibq"] = "ibq"
    codebook_size: int = 16384
    channels: int = 256
    quantization_weight: float = 1.0
    beta: float = 0.25
    entropy_weight: float = 0.05
    sample_weight: float = 1.0
    batch_weight: float = 1.0
    entropy_temperature: float = 0.01

    def __post_init__(self) -> None:
        if self.codebook_size < 1 or self.channels < 1:
            raise ConfigError("An IBQ quantizer needs codebook_size and channels of at least 1.")


class IBQ(nn.Module):
    """Dot-product quantizer; the losses are computed in both modes, as in the official code."""

    def __init__(self, config: IBQConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size, self.channels = config.codebook_size, config.channels
        self.codebook = nn.Parameter(torch.randn(config.codebook_size, config.channels))

    def forward(self, z: Tensor) -> Quantized:
        """Quantize z (..., D) float; use `assign` where neither gradient nor losses are needed."""
        with full_precision(z):
            x, codebook = z.float().reshape(-1, self.channels), self.codebook.float()
            quantized, indices = backpropagated_codes(x, codebook)
            losses = self._losses(x, quantized, F.embedding(indices, codebook))
        quantized = quantized.view(z.shape).to(z.dtype)
        return Quantized(quantized, indices.view(z.shape[:-1]), losses)

    @torch.no_grad()
    def assign(self, z: Tensor) -> Tensor:
        """Return the indices (...,) of the rows with the largest dot product with z (..., D)."""
        with full_precision(z):
            x = z.float().reshape(-1, self.channels)
            return largest_dot(x, self.codebook.float()).view(z.shape[:-1])

    def embed(self, indices: Tensor) -> Tensor:
        """Return the rows (..., D) of codes (...,)."""
        return F.embedding(indices, self.codebook)

    def _losses(self, x: Tensor, quantized: Tensor, rows: Tensor) -> dict[str, Tensor]:
        config = self.config
        soft = F.mse_loss(quantized, x)  # reaches all rows and the encoder
        chosen = F.mse_loss(rows, x.detach())  # reaches the chosen rows
        losses = {
            "codebook": config.quantization_weight * (soft + config.beta * chosen),
            "commitment": config.quantization_weight * F.mse_loss(x, rows.detach()),
        }
        if config.entropy_weight:
            sample, average = entropies(x, self.codebook.float(), config.entropy_temperature)
            mixed = config.sample_weight * sample - config.batch_weight * average
            losses["entropy"] = config.entropy_weight * mixed
        return losses


def largest_dot(z: Tensor, codebook: Tensor, chunk: int | None = None) -> Tensor:
    """Return for each vector the code with the largest dot product, the lowest on ties.

    Args:
        z: (N, D) float.
        codebook: (K, D) float.
        chunk: codes compared at once.

    Returns:
        (N,) long.
    """
    best = z.new_full((len(z),), -torch.inf)
    indices = torch.zeros(len(z), dtype=torch.long, device=z.device)
    for part in code_chunks(len(z), len(codebook), chunk):
        value, where = (z @ codebook[part].T).max(1)
        better = value > best  # strict: of equal products the first wins
        best = torch.where(better, value, best)
        indices = torch.where(better, where + part.start, indices)
    return indices


def backpropagated_codes(
    z: Tensor, codebook: Tensor, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """Look up the chosen rows, with the gradient of the straight-through one-hot (once).

    Args:
        z: (N, D) float32.
        codebook: (K, D) float32.
        chunk: codes held at once.

    Returns:
        The rows (N, D), exactly, and the indices (N,) long.
    """
    indices = largest_dot(z.detach(), codebook.detach(), chunk)
    if not torch.is_grad_enabled():
        return F.embedding(indices, codebook), indices
    quantized: Tensor = _SoftLookup.apply(z, codebook, indices, chunk)  # type: ignore[no-untyped-call]
    return quantized, indices


class _SoftLookup(torch.autograd.Function):
    """Forward: rows of the indices. Backward: closed form of one-hot - sg(softmax) + softmax."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, codebook: Tensor, indices: Tensor, chunk: int | None
    ) -> Tensor:
        ctx.save_for_backward(z, codebook, indices)
        ctx.chunk = chunk
        return codebook[indices]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        z, codebook, indices = ctx.saved_tensors
        wants_z, wants_codebook = ctx.needs_input_grad[:2]
        dz, d_codebook = torch.zeros_like(z), torch.zeros_like(codebook)
        with full_precision(z):
            lse, mean = _softmax_mean(z, codebook, ctx.chunk)
            along = (mean * g).sum(1, keepdim=True)
            for part in code_chunks(len(z), len(codebook), ctx.chunk):
                rows = codebook[part]
                d_logits = (z @ rows.T - lse[:, None]).exp_() * (g @ rows.T - along)
                dz += d_logits @ rows
                d_codebook[part] = d_logits.T @ z
            d_codebook.index_add_(0, indices, g)
        return dz if wants_z else None, d_codebook if wants_codebook else None, None, None


def _softmax_mean(z: Tensor, codebook: Tensor, chunk: int | None) -> tuple[Tensor, Tensor]:
    """Return log sum exp (N,) of the dot products and the softmax mean (N, D) of the rows."""
    lse = z.new_full((len(z),), -torch.inf)
    mean = torch.zeros_like(z)
    for part in code_chunks(len(z), len(codebook), chunk):
        logits = z @ codebook[part].T
        total = torch.logaddexp(lse, logits.logsumexp(1))
        mean *= (lse - total).exp()[:, None]
        mean += (logits - total[:, None]).exp_() @ codebook[part]
        lse = total
    return lse, mean
