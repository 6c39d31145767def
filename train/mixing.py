"""Batches of two data sets in one epoch, such as stills and clips: which comes when, and resuming.

An epoch is one of the stills, with batches of clips among them at places that are drawn from the
seed and the epoch's number; where clips are the whole of it, an epoch is one of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Batches = Callable[[int, int], Iterator[T]]  # (epoch, first batch) -> the batches from there on

_MIXING = 11  # what a key of random numbers is for


@dataclass(frozen=True)
class Mixing:
    """How batches of stills and clips follow one another.

    Args:
        stills: batches in an epoch of the stills.
        clips: batches in an epoch of the clips.
        share: of the batches that are of clips; at least one, if it is above 0.
        seed: of the run.
    """

    stills: int
    clips: int
    share: float
    seed: int

    def is_clip(self, epoch: int) -> np.ndarray:
        """Whether each batch of an epoch is one of clips: (batches,) bool."""
        if self.share == 1:
            return np.ones(self.clips, dtype=bool)
        clips = round(self.stills * self.share / (1 - self.share))
        clips = max(clips, 1) if self.share else 0
        kinds = np.arange(self.stills + clips) < clips
        shuffled: np.ndarray = np.random.default_rng((self.seed, epoch, _MIXING)).permutation(kinds)
        return shuffled

    def epoch(
        self, epoch: int, start_batch: int, stills: Batches[T], clips: Batches[T]
    ) -> Iterator[T]:
        """Yield the batches of an epoch from `start_batch` on."""
        kinds = self.is_clip(epoch)
        before = int(kinds[:start_batch].sum())
        # Every epoch has as many batches of clips, which go on where the last one ended.
        of_clips = self._endless(clips, epoch * int(kinds.sum()) + before)
        of_stills = stills(epoch, start_batch - before)
        for is_clip in kinds[start_batch:]:
            yield next(of_clips if is_clip else of_stills)

    def _endless(self, clips: Batches[T], start: int) -> Iterator[T]:
        epoch, first = divmod(start, self.clips)
        while True:
            yield from clips(epoch, first)
            epoch, first = epoch + 1, 0
