"""Labels and times of rows: how a time becomes a vector, and what adaLN makes of both.

In training every block of every picture has a time of its own; in decoding finished blocks stand at
time 0 and the block in question at the solver's. Either way a pass needs few different conditions,
computed once for all of them, and says which row has which.

Shapes: B sequences, E blocks, U labels, T times, M = U * T, W width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from mmgen.waves import cosines_and_sines


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
        waves = cosines_and_sines(level, self.channels)
        out: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return out
