"""Places and times as angles of falling frequency, for tables of sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def angles(places: Tensor, count: int, base: float = 10000.0) -> Tensor:
    """`place * base ** (-k / count)` for k = 0 .. count - 1: float (...) to (..., count).

    Args:
        places: of the float type in which to compute.
        count: how many frequencies.
        base: how far they fall.
    """
    step = torch.arange(count, dtype=places.dtype, device=places.device) / count
    return places[..., None] * torch.exp(-math.log(base) * step)


def cosines_and_sines(level: Tensor, channels: int) -> Tensor:
    """Cosines of a level, then sines: float (...) to (..., channels), an even number."""
    angle = angles(level, channels // 2)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
