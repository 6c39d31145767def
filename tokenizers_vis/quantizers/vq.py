"""Vector quantization: the nearest row of a learned codebook (van den Oord et al., 2017).

The codebook learns by gradient, or as a moving average of the vectors assigned to each code.
With `normalize` both sides are projected on the unit sphere first and the output is the
normalised row, as in LlamaGen (arXiv 2406.06525); the losses are of the normalised vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.tokenizers_vis.protocol import Quantized
from mmgen.tokenizers_vis.quantizers.softmax import CELLS, entropies, full_precision


@dataclass(frozen=True)
class VQConfig:
    """Vector quantization.

    Args:
        codebook_size: number of codes K.
        channels: width of a code C.
        normalize: project vectors and codes on the unit sphere.
        update: how codes learn: "gradient" (a codebook loss) or "ema" (moving averages).
        codebook_weight: weight of mean((q - sg z)^2), "gradient" only.
        commitment_weight: weight of mean((sg q - z)^2).
        entropy_weight: weight of H(per sample) - H(average); 0 leaves it out.
        entropy_temperature: divides the squared distances there.
        decay: of the moving averages.
        revive_after: training batches without use after which `revive` replaces a code; 0: never.
    """

    kind: Literal["vq"] = "vq"
    codebook_size: int = 16384
    channels: int = 8
    normalize: bool = False
    update: Literal["gradient", "ema"] = "gradient"
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    entropy_weight: float = 0.0
    entropy_temperature: float = 0.01
    decay: float = 0.99
    revive_after: int = 0

    def __post_init__(self) -> None:
        if self.codebook_size < 1 or self.channels < 1:
            raise ConfigError("A VQ quantizer needs codebook_size and channels of at least 1.")
        if not 0 <= self.decay < 1:
            raise ConfigError(f"The VQ quantizer's decay must lie in [0, 1), not {self.decay}.")


class VQ(nn.Module):
    """Nearest-neighbour quantizer; losses, averages and use are updated in training mode only."""

    codebook: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor
    idle: Tensor

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size, self.channels = config.codebook_size, config.channels
        bound = 1 / config.codebook_size
        codebook = torch.empty(config.codebook_size, config.channels).uniform_(-bound, bound)
        if config.normalize:
            codebook = F.normalize(codebook, dim=-1)
        if config.update == "ema":
            self.register_buffer("codebook", codebook)
            self.register_buffer("cluster_size", torch.ones(config.codebook_size))
            self.register_buffer("cluster_sum", codebook.clone())
        else:
            self.codebook = nn.Parameter(codebook)
        if config.revive_after:
            idle = torch.zeros(config.codebook_size, dtype=torch.long)
            self.register_buffer("idle", idle)  # training batches since the code was used

    def forward(self, z: Tensor) -> Quantized:
        """Quantize with a straight-through gradient (its value is exactly the code's embedding).

        Args:
            z: (..., C) float.
        """
        with full_precision(z):
            x, rows = self._project(z.float()), self._project(self.codebook.float())
            indices = nearest_codes(x.detach().reshape(-1, self.channels), rows.detach())
            indices = indices.view(z.shape[:-1])
            codes = F.embedding(indices, rows)
            losses: dict[str, Tensor] = {}
            if self.training:
                losses = self._losses(x, rows, codes)
                self._observe(x.detach().reshape(-1, self.channels), indices.reshape(-1))
            quantized = codes.detach() + (x - x.detach())  # the second term is 0
        return Quantized(quantized.to(z.dtype), indices, losses)

    @torch.no_grad()
    def assign(self, z: Tensor) -> Tensor:
        """Return the indices (...,) of the codes nearest to z (..., C)."""
        with full_precision(z):
            x, rows = self._project(z.float()), self._project(self.codebook.float())
            return nearest_codes(x.reshape(-1, self.channels), rows).view(z.shape[:-1])

    def embed(self, indices: Tensor) -> Tensor:
        """Return the (normalised, if so configured) rows (..., C) of codes (...,)."""
        return self._project(F.embedding(indices, self.codebook))

    @torch.no_grad()
    def initialise(self, z: Tensor, generator: torch.Generator) -> None:
        """Set every code to a random encoder output, before training.

        Args:
            z: (..., C) float, encoder outputs.
            generator: on the CPU.
        """
        self._replace(torch.arange(self.codebook_size), z, generator)

    @torch.no_grad()
    def revive(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Replace the codes that were idle for `revive_after` batches by random encoder outputs.

        The moving averages of those codes start anew; what an optimizer remembers of them is the
        caller's to forget. Call it after the optimizer's step (it writes into the codebook), in
        every process; all get what the first one drew.

        Args:
            z: (..., C) float, encoder outputs of this batch.
            generator: on the CPU.

        Returns:
            The codes (n,) long that were replaced, ascending.
        """
        if not self.config.revive_after:
            return torch.empty(0, dtype=torch.long)
        dead = (self.idle >= self.config.revive_after).nonzero()[:, 0]
        if len(dead):
            self._replace(dead, z, generator)
        return dead

    def _project(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1, eps=1e-12) if self.config.normalize else x

    def _losses(self, x: Tensor, rows: Tensor, codes: Tensor) -> dict[str, Tensor]:
        config = self.config
        losses = {"commitment": config.commitment_weight * F.mse_loss(x, codes.detach())}
        if config.update == "gradient":
            losses["codebook"] = config.codebook_weight * F.mse_loss(codes, x.detach())
        if config.entropy_weight:
            # -|x - E|^2 is 2 x.E - |E|^2 up to what all codes share: a dot product in C + 1.
            flat = x.reshape(-1, self.channels)
            wide = torch.cat([2 * rows, -rows.square().sum(1, keepdim=True)], 1)
            sample, average = entropies(
                F.pad(flat, (0, 1), value=1.0), wide, config.entropy_temperature
            )
            losses["entropy"] = config.entropy_weight * (sample - average)
        return losses

    @torch.no_grad()
    def _observe(self, x: Tensor, indices: Tensor) -> None:
        """Update moving averages and idle counters from vectors (N, C) and their codes (N,)."""
        if self.config.update == "gradient" and not self.config.revive_after:
            return
        counts = torch.bincount(indices, minlength=self.codebook_size).to(x.dtype)
        _sum_over_processes(counts)
        if self.config.revive_after:
            self.idle.add_(1).masked_fill_(counts > 0, 0)
        if self.config.update == "ema":
            sums = torch.zeros_like(self.codebook).index_add_(0, indices, x)
            _sum_over_processes(sums)
            self._average(counts, sums)

    def _average(self, counts: Tensor, sums: Tensor, eps: float = 1e-5) -> None:
        self.cluster_size.lerp_(counts, 1 - self.config.decay)
        self.cluster_sum.lerp_(sums, 1 - self.config.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + eps) / (total + self.codebook_size * eps) * total
        self.codebook.copy_(self._project(self.cluster_sum / smoothed[:, None]))

    def _replace(self, dead: Tensor, z: Tensor, generator: torch.Generator) -> None:
        dead = dead.to(self.codebook.device)
        alive = torch.ones(self.codebook_size, dtype=torch.bool, device=dead.device)
        alive[dead] = False
        rows = self._project(z.detach().float().reshape(-1, self.channels))
        taken = self._project(self.codebook[alive].float())
        drawn = self._project(_draw_rows(rows, len(dead), taken, generator))
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(drawn, 0)
        self.codebook[dead] = drawn
        if self.config.update == "ema":
            self.cluster_size[dead] = 1.0
            self.cluster_sum[dead] = drawn
        if self.config.revive_after:
            self.idle[dead] = 0


def nearest_codes(z: Tensor, codebook: Tensor, chunk: int | None = None) -> Tensor:
    """Return for each vector the code at the smallest Euclidean distance, the lowest on ties.

    Args:
        z: (N, D) float.
        codebook: (K, D) float.
        chunk: vectors compared at once (default: at most 2^24 distances).

    Returns:
        (N,) long.
    """
    squares = codebook.square().sum(1)  # |z|^2 is the same for all codes and left out
    step = chunk or max(1, CELLS // len(codebook))
    found = [
        torch.addmm(squares, rows, codebook.T, alpha=-2).argmin(1) for rows in torch.split(z, step)
    ]
    return torch.cat(found) if found else z.new_zeros(0, dtype=torch.long)


def _draw_rows(z: Tensor, count: int, taken: Tensor, generator: torch.Generator) -> Tensor:
    """Draw `count` of the vectors z (N, C), each once while z lasts.

    Those that equal another one, or one of `taken` (K, C), get a little noise.
    """
    order = torch.randperm(len(z), generator=generator)
    drawn = z[order[torch.arange(count) % len(z)].to(z.device)]
    again = _repeats(torch.cat([taken, drawn]))[len(taken) :]  # of two equal codes one is dead
    noise = torch.randn(int(again.sum()), z.shape[1], generator=generator).to(z.device)
    # A batch without spread must not leave them equal, nor may the noise be lost in rounding.
    least = 1e-4 * z.abs().max().clamp(min=1e-2)
    drawn[again] += torch.maximum(0.01 * z.std(correction=0), least) * noise
    return drawn


def _repeats(rows: Tensor) -> Tensor:
    """Which rows (N, C) equal an earlier one: (N,) bool."""
    distinct, group = torch.unique(rows, dim=0, return_inverse=True)
    place = torch.arange(len(rows), device=rows.device)
    first = place.new_full((len(distinct),), len(rows)).scatter_reduce(0, group, place, "amin")
    return first[group] < place


def _sum_over_processes(tensor: Tensor) -> None:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
