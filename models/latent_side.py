"""The visual side of a `UnifiedModel` that draws latents: their entry, their condition, their head.

Latents enter through one matrix, noisy and decided ones alike. What tells them apart is adaLN:
every row of a latent is told its time (0: decided) and the words of the text before it, as their
mean; the words themselves stand in the sequence too. Rows of text and markers are told one learned
vector, the same at all times and for all texts: what is read and written depends on no noise and on
no later word. The head is a norm and a matrix, to a velocity. Flow matching by blocks: xAR, arXiv
2502.20388.

Shapes: B batch, R rows, N slots, U conditions, T times, W width, C channels of a latent.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.models.adaln import Told
from mmgen.models.backbone import Backbone, Modulation, make_norm
from mmgen.models.flow import NO_LOGITS, time_level
from mmgen.models.moments import Conditions, Moment, TimeEmbedding
from mmgen.models.plan import Input, Plan
from mmgen.models.text import BOS
from mmgen.models.unified_config import UnifiedConfig

TIME_CHANNELS = 128  # cosines and sines of a time
# What t = 1 is for the network: five turns of the fastest cosine. With the thousand of diffusion
# models velocities may turn faster than any solver steps, and more steps would not come nearer.
TIME_LEVELS = 32


class LatentSide(nn.Module):
    """Latents to rows, rows to velocities, and what adaLN tells both."""

    def __init__(self, config: UnifiedConfig) -> None:
        super().__init__()
        width = config.backbone.width
        self.enter = nn.Linear(config.code_channels, width)
        self.levels = nn.Embedding(config.levels(), width)
        self.words = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.time = TimeEmbedding(TIME_CHANNELS, width)
        self.text = nn.Parameter(torch.randn(width))
        self.norm = make_norm(config.backbone)
        self.out = nn.Linear(width, config.code_channels)
        nn.init.normal_(self.enter.weight, std=0.5 * config.code_channels**-0.5)
        nn.init.normal_(self.levels.weight, std=0.5)
        nn.init.zeros_(self.out.weight)  # a new model says no velocity, which costs least
        nn.init.zeros_(self.out.bias)

    def rows(self, plan: Plan, chosen: Tensor, latents: Tensor, moment: Moment) -> Tensor:
        """Some rows of a plan, without their places, (B, R, W).

        Args:
            plan: the schedule, compiled.
            chosen: (R,) long, on the CPU.
            latents: (B, N, C) in slot order.
            moment: what the rows are told.

        Raises:
            ConfigError: noisy rows, of which the moment knows no times.
        """
        if not len(moment.time) and (plan.input[chosen] == Input.NOISE).any():
            raise ConfigError(NO_LOGITS)
        source = plan.source[chosen]
        # Coarse levels lie among the places of finer ones: what tells them apart is how coarse.
        level = (plan.steps - plan.block[chosen]).where(plan.schedule.site[source] < 0, 0)
        values = latents[:, source.to(latents.device)].to(self.enter.weight.dtype)
        x: Tensor = self.enter(values) + self.levels(level.to(latents.device))
        return x

    def told(self, plan: Plan, chosen: Tensor, moment: Moment) -> Told:
        """What adaLN tells those rows."""
        return Told(Modulation(moment.conditions.stacks[0], moment.rows(plan, chosen)))

    def text_told(self, backbone: Backbone) -> Told:
        """What adaLN tells every row of text and every marker."""
        row = torch.zeros(1, 1, dtype=torch.long, device=self.text.device)
        return Told(Modulation(backbone.modulations(self.text[None]), row))

    def summary(self, ids: Tensor, valid: Tensor, embedded: Tensor) -> Tensor:
        """What a text comes to, (B, W): the mean of its words, zero where there are none.

        Args:
            ids: (B, T), `valid` (B, T) likewise bool.
            embedded: (B, T, W).
        """
        word = (valid & (ids != BOS))[..., None].to(embedded.dtype)
        mean = (embedded * word).sum(1) / word.sum(1).clamp(min=1)
        return F.rms_norm(mean, mean.shape[-1:])

    def conditions(self, backbone: Backbone, summaries: Tensor, times: Tensor) -> Conditions:
        """Compute adaLN for texts (U, W) of `summary` at times (U, T), or (T,) for all alike."""
        level = time_level(times, TIME_LEVELS, whole=False)
        told = self.words(summaries)[:, None] + self.time(level)  # (U, T, W)
        return Conditions((backbone.modulations(told.flatten(0, 1)),), times.shape[-1])

    def moment(self, backbone: Backbone, summaries: Tensor, times: Tensor) -> Moment:
        """The moment of a pass over whole sequences.

        Args:
            backbone: whose blocks are told.
            summaries: (B, W) of the text before each picture; (1, W) where all share one.
            times: (B, E) float32, of the noisy rows of each block; E = 0 where there are none.
        """
        zero = times.new_zeros(len(summaries), 1)  # of decided latents
        conditions = self.conditions(backbone, summaries, torch.cat([zero, times], dim=1))
        label, time = (
            torch.arange(n, device=times.device) for n in (len(summaries), len(times[0]))
        )
        return Moment(conditions, label, time + 1)

    def velocities(self, hidden: Tensor) -> Tensor:
        """Hidden states (B, R, W) to velocities (B, R, C)."""
        out: Tensor = self.out(self.norm(hidden))
        return out
