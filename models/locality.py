"""Locality-aware groups of sites: near to what is decided, far from each other.

The grouping of LPD (Locality-aware Parallel Decoding, arXiv 2507.01957, section 3.3), in whole
numbers, so that it is the same on every machine. Every block is chosen greedily:

1. Near sites first. The proximity of a site is the sum of 1 / distance over the decided sites that
   touch it (along an axis 1, over an edge 1/sqrt 2, over a corner 1/sqrt 3). Sites of proximity 1
   and more are taken by falling proximity, except those that touch a site of the same block.
2. Then far ones: again and again the site that is farthest from the block (from the nearest of its
   sites), until it has its size.

The threshold 1 and the 3x3 neighbourhood are those of LPD. Ours: the axis of time, whose steps
count like those in space; sizes along the cosine of `random`, where LPD has tables; ties, which go
to the higher proximity, then to the site that the seed's permutation has first (LPD shuffles anew
for every block); a first block of any size, of which the first site is the permutation's first.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor

ONE = 2**20  # proximity 1
TOUCHING = 3  # squared distance of sites that differ by 1 at most along every axis

#: Offset of a touching site -> 1 / distance, in parts of `ONE`.
NEIGHBOURS = {
    offset: round(ONE / sum(map(abs, offset)) ** 0.5)
    for offset in product((-1, 0, 1), repeat=3)
    if any(offset)
}


def near_and_apart(shuffled: Tensor, sizes: list[int], grid: tuple[int, int, int]) -> Tensor:
    """Sites in the order in which LPD's rule chooses them.

    Args:
        shuffled: (N,) int64, the sites in the order that breaks ties.
        sizes: of the blocks.
        grid: `(t, h, w)`.

    Returns:
        (N,) int64.
    """
    rank = np.argsort(shuffled.numpy())
    places = np.stack(np.unravel_index(np.arange(len(rank)), grid), axis=1)  # (N, 3)
    decided = np.zeros(grid, dtype=bool)
    blocks: list[list[int]] = []
    for size in sizes:
        proximity = _proximity(decided)
        free = np.flatnonzero(~decided)
        free = free[np.lexsort((rank[free], -proximity[free]))]  # the best first
        blocks.append(_block(free, proximity[free] >= ONE, places[free], size))
        decided.flat[blocks[-1]] = True
    return torch.tensor([site for block in blocks for site in block])


def _proximity(decided: np.ndarray) -> np.ndarray:
    """(N,) int64: how near each site is to what is decided, in parts of `ONE`."""
    padded = np.pad(decided, 1).astype(np.int64)
    t, h, w = decided.shape
    total = np.zeros(decided.shape, dtype=np.int64)
    for (i, j, k), weight in NEIGHBOURS.items():
        total += weight * padded[1 + i : 1 + i + t, 1 + j : 1 + j + h, 1 + k : 1 + k + w]
    return total.reshape(-1)


def _block(free: np.ndarray, near: np.ndarray, places: np.ndarray, size: int) -> list[int]:
    """`size` of the free sites; `near` and `places` are theirs."""
    gap = np.full(len(free), np.iinfo(np.int64).max)  # squared distance to the block
    block: list[int] = []

    def take(i: int) -> None:
        block.append(int(free[i]))
        np.minimum(gap, ((places - places[i]) ** 2).sum(1), out=gap)
        gap[i] = -1

    for i in np.flatnonzero(near).tolist():
        if len(block) < size and gap[i] > TOUCHING:
            take(i)
    while len(block) < size:
        take(int(gap.argmax()))
    return block
