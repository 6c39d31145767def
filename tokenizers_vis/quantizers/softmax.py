"""Softmax over a large codebook in pieces: nothing here holds a whole (N, K) float tensor.

`logits = z @ codebook.T` is made chunk by chunk over the codes and made again in the backward
pass, so memory is O(N D + K D + N chunk) (IBQ specification, "Memory and the chunked form").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CELLS = 2**24  # numbers of the largest (rows, codes) table that is ever held: 64 MiB of float32
EPS = 1e-5  # inside the logarithm of the mean probability


def full_precision(z: Tensor) -> AbstractContextManager[Any]:
    """Switch autocast off: a temperature of 0.01 makes logit errors 100 times larger."""
    return torch.autocast(z.device.type, enabled=False)


def code_chunks(rows: int, codes: int, chunk: int | None = None) -> Iterator[slice]:
    """Yield slices that cover `codes` so that `rows` times their length stays within `CELLS`.

    Args:
        rows: number of vectors.
        codes: number of codes.
        chunk: length of the slices (default: as long as the limit allows).
    """
    step = chunk or max(1, CELLS // max(1, rows))
    for start in range(0, codes, step):
        yield slice(start, min(start + step, codes))


def entropies(
    z: Tensor, codebook: Tensor, temperature: float, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """Entropy of the code of one vector, and of the code of any vector of the batch.

    With p = softmax(z . E / temperature): the mean over vectors of H(p), and H of the mean p with
    1e-5 added inside its logarithm. Natural logarithms. Both are differentiable (once).

    Args:
        z: (N, D) float32.
        codebook: (K, D) float32.
        temperature: divides the dot products.
        chunk: codes held at once.

    Returns:
        Two scalars: the entropy per sample (to be made small) and of the average (large).
    """
    sample, average = _Entropies.apply(z, codebook, temperature, chunk)  # type: ignore[no-untyped-call]
    return sample, average


class _Entropies(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, codebook: Tensor, temperature: float, chunk: int | None
    ) -> tuple[Tensor, Tensor]:
        rows, codes = len(z), len(codebook)
        scaled = z / temperature
        lse = z.new_full((rows,), -torch.inf)  # log of the softmax's denominator
        for part in code_chunks(rows, codes, chunk):
            lse = torch.logaddexp(lse, (scaled @ codebook[part].T).logsumexp(1))
        entropy, pull = torch.zeros_like(lse), torch.zeros_like(lse)
        average, slope = z.new_zeros(()), z.new_empty(codes)
        for part in code_chunks(rows, codes, chunk):
            log_p = scaled @ codebook[part].T - lse[:, None]
            p = log_p.exp()
            entropy -= (p * log_p).sum(1)
            mean = p.mean(0)
            average -= (mean * (mean + EPS).log()).sum()
            # d(average) / d(mean) is known as soon as a chunk is done, so its softmax-weighted
            # mean `pull` needs no pass of its own.
            slope[part] = -((mean + EPS).log() + mean / (mean + EPS))
            pull += p @ slope[part]
        ctx.save_for_backward(z, codebook, lse, entropy, pull, slope)
        ctx.temperature, ctx.chunk = temperature, chunk
        return entropy.mean(), average

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_sample: Tensor, d_average: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        z, codebook, lse, entropy, pull, slope = ctx.saved_tensors
        wants_z, wants_codebook = ctx.needs_input_grad[:2]
        scaled = z / ctx.temperature
        dz = torch.zeros_like(z)
        d_codebook = torch.zeros_like(codebook) if wants_codebook else None
        with full_precision(z):
            for part in code_chunks(len(z), len(codebook), ctx.chunk):
                log_p = scaled @ codebook[part].T - lse[:, None]
                slopes = d_average * (slope[part] - pull[:, None])
                slopes -= d_sample * (log_p + entropy[:, None])
                d_logits = log_p.exp_() * slopes / (len(z) * ctx.temperature)
                dz += d_logits @ codebook[part]
                if d_codebook is not None:
                    d_codebook[part] = d_logits.T @ z
        return dz if wants_z else None, d_codebook, None, None
