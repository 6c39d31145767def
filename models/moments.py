"""Labels and times of rows: how a time becomes a vector, and what adaLN makes of both.

In training every block of every picture has a time of its own; in decoding finished blocks stand at
time 0 and the block in question at the solver's. Either way a pass needs few different conditions,
computed once for all of them, and says which row has which.

Shapes: B sequences, E blocks, U labels, T times, M = U * T, W width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Conditions(NamedTuple):
    """What adaLN makes of every label at every time: one entry a stack, M = U * T."""

    stacks: tuple[tuple[Tensor, ...], ...]
    times: int


class Moment(NamedTuple):
    """Which label and which time the rows of a pass have.

    Args:
        conditions: of all labels and times.
        label: (B,) long, which of the U labels a sequence has.
        time: (E,) long, which of the T times the rows of each block have.
    """

    conditions: Conditions
    label: Tensor
    time: Tensor


class TimeEmbedding(nn.Module):
    """A time as cosines and sines of falling frequency, through an MLP."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        """(...) float32 to (..., W)."""
        half = self.channels // 2
        step = torch.arange(half, dtype=torch.float32, device=level.device) / half
        angle = level[..., None] * torch.exp(-math.log(10000) * step)
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1)
        out: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return out
