"""Rotary positions in one to three axes, as tables of angles that attention applies.

A row at coordinates `(t, y, x)` turns the channel pairs of its queries and keys by
`coordinate * base ** (-j / n)`, where each axis owns `n` pairs (j = 0 .. n - 1). Only coordinate
differences reach the scores. Published systems bring tables of their own (some all zero), which
is why attention takes tables and not coordinates. RoFormer: arXiv 2104.09864.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmgen.errors import ConfigError

Rope = tuple[Tensor, Tensor]  # cos, sin: (B or 1, R, head_dim / 2)


def rope_table(coords: Tensor, pairs: tuple[int, ...], base: float) -> Rope:
    """Cosines and sines for rows at `coords`.

    Args:
        coords: (B, R, axes) float.
        pairs: channel pairs owned by each axis; their sum is half the head dimension.
        base: the slowest pair of an axis turns almost `base` times slower than its fastest.

    Returns:
        cos, sin: (B, R, sum(pairs)) float32.
    """
    angles = []
    for axis, count in enumerate(pairs):
        step = torch.arange(count, device=coords.device, dtype=torch.float32) / max(count, 1)
        angles.append(coords[..., axis : axis + 1].float() * base**-step)
    theta = torch.cat(angles, dim=-1)  # (B, R, head_dim / 2)
    return theta.cos(), theta.sin()


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Turn the channel pairs `(i, i + head_dim / 2)` of x (B, H, R, head_dim)."""
    cos, sin = (table.unsqueeze(1).to(x.dtype) for table in rope)  # (B, 1, R, head_dim / 2)
    a, b = x.chunk(2, dim=-1)
    turned = torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)
    return torch.cat(turned, dim=-1)


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """Share the pairs of a head among (t, y, x): a quarter for t, the rest for y and x alike.

    Raises:
        ConfigError: the head is no multiple of 16, so it cannot be shared so.
    """
    if head_dim % 16:
        raise ConfigError(f"Heads of {head_dim} channels cannot carry three axes; use 16, 32 ...")
    half = head_dim // 2
    return half // 4, 3 * half // 8, 3 * half // 8
