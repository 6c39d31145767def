"""What unCLIP Stable Diffusion 2.1 takes as class labels: a noised image embedding and its level.

The embedding is normalised, noised as by a diffusion schedule at `level`, brought back to its
scale, and followed by the sinusoidal embedding of the level. Level 0 is step 0 of the schedule, not
the identity. Numbers as in diffusers' `StableUnCLIPImg2ImgPipeline`, without diffusers.

Shapes: B pictures, D channels of an embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mmgen.config import later
from mmgen.errors import ConfigError
from mmgen.saving import Saved
from mmgen.waves import cosines_and_sines

Schedule = Literal["squaredcos_cap_v2", "linear", "scaled_linear"]


@dataclass(frozen=True)
class UnclipConfig:
    """Sizes of an `UnclipConditioner`; the defaults are the published ones.

    Args:
        channels: D.
        levels: noise levels of the schedule.
        schedule: how noise grows with the level, under diffusers' names.
        beta_start: variance of the noise of the first step, "linear" and "scaled_linear" only.
        beta_end: the same of the last step.
    """

    channels: int = 1024
    levels: int = 1000
    schedule: Schedule = "squaredcos_cap_v2"
    beta_start: float = later(1e-4)
    beta_end: float = later(0.02)

    def __post_init__(self) -> None:
        """Refuse sizes that make no labels."""
        if self.channels < 2 or self.channels % 2 or self.levels < 1:
            raise ConfigError("unCLIP needs an even number of channels and at least one level.")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ConfigError(
                "unCLIP's beta_start and beta_end must rise between 0 and 1, not "
                f"{self.beta_start} and {self.beta_end}."
            )

    def kept_signal(self) -> Tensor:
        """`kept_signal` of this schedule."""
        return kept_signal(self.schedule, self.levels, self.beta_start, self.beta_end)


class UnclipConditioner(nn.Module, Saved):
    """Image embeddings (B, D) to class labels (B, 2 D); `mean` and `std` are unCLIP's."""

    config_class: ClassVar[type] = UnclipConfig

    def __init__(self, config: UnclipConfig) -> None:
        super().__init__()
        self.config = config
        self.mean = nn.Parameter(torch.zeros(1, config.channels))
        self.std = nn.Parameter(torch.ones(1, config.channels))

    def forward(self, embedding: Tensor, noise: Tensor, level: int = 0) -> Tensor:
        """Labels without guidance.

        Args:
            embedding: (B, D) float, not normalised.
            noise: (B, D) float, standard normal.
            level: noise level, 0 (least) to `levels` - 1.

        Returns:
            (B, 2 D) float: the noised embedding, then the level.

        Raises:
            ConfigError: there is no such level.
        """
        if not 0 <= level < self.config.levels:
            raise ConfigError(
                f"The noise level must lie in 0 .. {self.config.levels - 1}, not {level}."
            )
        kept = self.config.kept_signal()[level].to(embedding)
        scaled = (embedding - self.mean) / self.std
        noised = (kept.sqrt() * scaled + (1 - kept).sqrt() * noise) * self.std + self.mean
        told = cosines_and_sines(torch.tensor(float(level)), self.config.channels).to(noised)
        return torch.cat([noised, told.expand_as(noised)], dim=1)

    def guided(
        self,
        embedding: Tensor,
        noise: Tensor,
        level: int = 0,
        negative: Tensor | None = None,
        negative_noise: Tensor | None = None,
    ) -> Tensor:
        """Labels for guidance: the negative rows first.

        Args:
            embedding: (B, D) float.
            noise: (B, D) float, standard normal.
            level: of `embedding`.
            negative: (B, D) float, noised at level 0 always; None: rows of zeros, without a level.
            negative_noise: (B, D) float, standard normal (None: zeros).

        Returns:
            (2 B, 2 D) float.
        """
        labels = self(embedding, noise, level)
        if negative is None:
            return torch.cat([torch.zeros_like(labels), labels])
        still = torch.zeros_like(negative) if negative_noise is None else negative_noise
        return torch.cat([self(negative, still), labels])


def kept_signal(schedule: Schedule, levels: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Share of the signal's variance left at each level: (levels,) float32, the first below 1.

    Args:
        schedule: as in `UnclipConfig`.
        levels: how many.
        start: `beta_start`.
        end: `beta_end`.
    """
    if schedule == "squaredcos_cap_v2":

        def left(step: float) -> float:
            return math.cos((step / levels + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = torch.tensor([min(1 - left(i + 1) / left(i), 0.999) for i in range(levels)])
    elif schedule == "linear":
        betas = torch.linspace(start, end, levels)
    else:
        betas = torch.linspace(start**0.5, end**0.5, levels) ** 2
    return (1 - betas).cumprod(0)
