"""What training draws for an epoch and a sample: keyed by (seed, epoch, index), nothing else.

So a batch depends on its number alone: not on the batches before it, on threads or on resuming.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmgen.data.captions import Caption

_ORDER, _DRAW = 1, 2  # what a key of random numbers is for; 3 is the stand-ins of dataset.py


@dataclass(frozen=True)
class SampleDraw:
    """Numbers in [0, 1) for one visit of a sample."""

    drop: float
    pick: float
    mirror: float
    span: float
    phase: float
    scale: float
    left: float
    top: float

    def caption(self, captions: tuple[Caption, ...], drop_caption: float) -> str:
        """One caption by weight, or "" with probability `drop_caption`, or where there is none."""
        if self.drop < drop_caption or not captions:
            return ""
        sums = np.cumsum([caption.weight for caption in captions])
        place = int(np.searchsorted(sums, self.pick * sums[-1], side="right"))
        return captions[min(place, len(captions) - 1)].text  # rounding may reach the very end


def sample_draw(seed: int, epoch: int, index: int) -> SampleDraw:
    """Draw for sample `index`; all numbers always, so that options do not shift others."""
    return SampleDraw(*np.random.default_rng((seed, epoch, _DRAW, index)).random(8))


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """A permutation of `count` samples for one epoch, (count,) int64."""
    return np.random.default_rng((seed, epoch, _ORDER)).permutation(count)
