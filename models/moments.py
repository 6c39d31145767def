"""Conditions and times of rows: how a time becomes a vector, and what adaLN makes of both.

In training every block of every picture has a time of its own; in decoding finished blocks stand at
time 0 and the block in question at the solver's. Either way a pass needs few different conditions,
computed once for all of them, and says which row has which.

Shapes: B sequences, E blocks, U conditions (labels, texts), T times, M = U * T, R rows, W width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from mmgen.models.plan import Input, Plan
from mmgen.waves import cosines_and_sines


class Conditions(NamedTuple):
    """What adaLN makes of every condition at every time: one entry a stack, M = U * T."""

    stacks: tuple[tuple[Tensor, ...], ...]
    times: int


class Moment(NamedTuple):
    """Which condition and which time the rows of a pass have.

    Decided latents stand at the first of the times, which is 0 wherever there are any.

    Args:
        conditions: of all conditions and times.
        label: (B,) long, which of the U conditions a sequence has; (1,) where all share one.
        time: (E,) long, which of the T times the noisy rows of each block have.
    """

    conditions: Conditions
    label: Tensor
    time: Tensor

    def rows(self, plan: Plan, chosen: Tensor) -> Tensor:
        """Which of the M conditions each row has.

        Args:
            plan: the schedule, compiled.
            chosen: (R,) long, rows of the plan.

        Returns:
            (B, R) long; (B, 1) where all rows have one time, so that it is not repeated.
        """
        noisy, block = plan.input[chosen] == Input.NOISE, plan.block[chosen]
        time = self.time.new_zeros(len(chosen))
        time[noisy] = self.time[block[noisy].to(self.time.device) - 1]
        if len(time) and bool((noisy & (block == block[0])).all() | ~noisy.any()):
            time = time[:1]
        return self.label[:, None] * self.conditions.times + time


class TimeEmbedding(nn.Module):
    """A time as cosines and sines of falling frequency, through an MLP."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        """(...) float32 to (..., W)."""
        waves = cosines_and_sines(level, self.channels)
        out: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return out
