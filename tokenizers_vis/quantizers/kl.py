"""The continuous bottleneck: a normal distribution for every place (VAE, arXiv 1312.6114).

The encoder gives mean and log-variance, (..., 2C), the mean first; a latent is the mean or a
sample, times a constant that brings latents to unit variance for a generator. There are no codes.
The network around it never sees that constant, so it can be measured when training is over.
Spec: KL-16 of MAR and xAR has 16 channels and the scale 0.2325.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmgen.config import later
from mmgen.errors import ConfigError, UserError
from mmgen.tokenizers_vis.protocol import Quantized
from mmgen.tokenizers_vis.quantizers.softmax import full_precision

LOG_VARIANCES = (-30.0, 20.0)  # the range that the log-variance is clamped to


@dataclass(frozen=True)
class KLConfig:
    """A normal posterior.

    Args:
        channels: width of a latent.
        scale: what latents are multiplied by for a generator; training measures it at its end.
        weight: of the divergence from a standard normal, nats a number of the latent.
    """

    kind: Literal["kl"] = "kl"
    channels: int = 16
    scale: float = 1.0
    weight: float = later(1e-3)

    def __post_init__(self) -> None:
        if self.channels < 1 or not self.scale > 0:
            raise ConfigError("A KL bottleneck needs channels of at least 1 and a scale above 0.")
        if not 0 <= self.weight < float("inf"):
            raise ConfigError(f"A KL bottleneck needs a weight from 0 up, not {self.weight}.")


class KL(nn.Module):
    """Posterior of the encoder's moments; it has no parameters and no codebook."""

    def __init__(self, config: KLConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size: int | None = None
        self.channels = config.channels

    def forward(self, z: Tensor) -> Quantized:
        """Draw from the posterior of moments z (..., 2C); no indices.

        In training the draw is reparameterised, by PyTorch's generator, and "kl" a loss; else the
        mean stands for it.
        """
        with full_precision(z):
            mean, deviation = self.posterior(z.float())
            if not self.training:
                return Quantized(mean.to(z.dtype), None)
            drawn = mean + deviation * torch.randn_like(mean)
            losses = {"kl": self.config.weight * divergence(mean, deviation).mean()}
        return Quantized(drawn.to(z.dtype), None, losses)

    def posterior(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (..., C) of moments z (..., 2C)."""
        mean, log_variance = z.chunk(2, dim=-1)
        return mean, torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCES))

    def latents(self, z: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return scaled latents and their scaled deviations (..., C) of moments z (..., 2C).

        Args:
            z: float.
            noise: (..., C) standard normal, for a sample; None: the mean.
        """
        mean, deviation = self.posterior(z)
        latents = mean if noise is None else mean + deviation * noise
        return latents * self.config.scale, deviation * self.config.scale

    def unscaled(self, latents: Tensor) -> Tensor:
        """Return what the decoder takes, (..., C), from scaled latents (..., C)."""
        return latents / self.config.scale

    def assign(self, z: Tensor) -> Tensor:
        """Refuse: there are no codes."""
        raise UserError("A KL tokenizer has latents and no codes; choose a discrete tokenizer.")

    def embed(self, indices: Tensor) -> Tensor:
        """Refuse: there are no codes."""
        return self.assign(indices)


def divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """KL divergence of normal distributions from the standard one, in nats, elementwise."""
    return 0.5 * (mean.square() + deviation.square() - 1) - deviation.log()
