"""What a step of a generator's training draws beside its unit: wrong codes, sites to keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mmgen.models.schedule import Grid
from mmgen.models.spellings import kept_order
from mmgen.models.units import Unit


def with_wrong_codes(codes: Tensor, most: float) -> Tensor:
    """Put codes of each picture's neighbour in the batch among its own, at the same sites.

    A model that has only seen right codes learns to continue them by heart and is lost after its
    first mistake; from a mixture it must tell by the caption which ones to trust (the idea of
    scheduled sampling, arXiv:1506.03099, without drawing from the model).

    Args:
        codes: (B, N) long.
        most: each picture's share of wrong codes is uniform in [0, most].
    """
    share = torch.rand(len(codes), 1, device=codes.device) * most
    wrong = torch.rand(codes.shape, device=codes.device) < share
    return torch.where(wrong, codes.roll(1, 0), codes)


def unit_of_an_edit(unit: Unit, grid: Grid, seed: int, share: float) -> Unit | None:
    """For a `share` of the seeds: the unit with some sites kept, around a box or here and there.

    What is kept is the first block of its order. None for the other seeds, and where the draw would
    keep everything or nothing.
    """
    draw = np.random.default_rng((seed, 11))
    if draw.random() >= share:
        return None
    kept = torch.ones(grid, dtype=torch.bool)
    if draw.random() < 0.5:
        ends = (sorted(draw.choice(size + 1, 2, replace=False)) for size in grid)
        kept[tuple(slice(int(a), int(b)) for a, b in ends)] = False
    else:
        kept = torch.from_numpy(draw.random(grid) < draw.random())
    if not kept.any() or kept.all():
        return None
    return replace(unit, order=kept_order(kept, seed))
