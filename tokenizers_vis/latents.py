"""Statistics of continuous latents: how wide, how even over the channels, how much they say.

A latent is a draw of its posterior, so its variance is that of the means plus the mean variance
of the posteriors; no noise is needed to measure it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmgen.errors import UserError
from mmgen.tokenizers_vis.protocol import Codes
from mmgen.tokenizers_vis.quantizers import divergence

IDLE = 0.01  # nats below which a channel says nothing: its posterior is the prior


class LatentStatistics:
    """Sums over all places of all latents that were added.

    Args:
        scale: of the tokenizer, by which latents and deviations are larger than what the
            divergence is of.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.places = self.pictures = 0
        self._sums: Tensor | None = None  # (4, C) float64

    def add(self, codes: Codes) -> None:
        """Take in latents and deviations (B, t, h, w, C).

        Raises:
            UserError: there are none.
        """
        if codes.latents is None or codes.deviations is None:
            raise UserError("This tokenizer has no posterior to measure; choose a KL tokenizer.")
        channels = codes.latents.shape[-1]
        # Apple's GPUs know no float64.
        wide = torch.float32 if codes.latents.device.type == "mps" else torch.float64
        means = codes.latents.detach().reshape(-1, channels).type(wide)  # (n, C)
        deviations = codes.deviations.detach().reshape(-1, channels).type(wide)
        nats = divergence(means / self.scale, deviations / self.scale)
        parts = (
            torch.stack([means, means.square(), deviations.square(), nats]).sum(1).cpu().double()
        )
        self._sums = parts if self._sums is None else self._sums + parts
        self.places += len(means)
        self.pictures += len(codes.latents)

    @property
    def mean(self) -> float:
        """Of all numbers of all latents."""
        return float(self._averages[0].mean())

    @property
    def std(self) -> float:
        """Of all numbers, about their one mean, of latents drawn from their posteriors."""
        first, second, spread, _ = self._averages.mean(1)
        return float((second + spread - first.square()).clamp_min(0).sqrt())

    @property
    def channel_std(self) -> Tensor:
        """The same of each channel, about its own mean: (C,) float64."""
        first, second, spread = self._averages[:3]
        variance: Tensor = second + spread - first.square()
        return variance.clamp_min(0).sqrt()

    @property
    def deviation(self) -> float:
        """Root of the mean variance of the posteriors."""
        return float(self._averages[2].mean().sqrt())

    @property
    def nats(self) -> Tensor:
        """Divergence from a standard normal of each channel, nats a place: (C,) float64."""
        return self._averages[3]

    @property
    def idle(self) -> int:
        """How many channels say nothing about the picture."""
        return int((self.nats < IDLE).sum())

    @property
    def _averages(self) -> Tensor:
        assert self._sums is not None, "nothing was added"
        return self._sums / self.places
