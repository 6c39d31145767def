"""Batches of two data sets in one stream, such as stills and clips: which comes when, and resuming.

The number of a step says which of them it learns from, so that all processes and accumulated
batches of a step agree. Of the steps before any one, the exact share is of clips, rounded down.
Both data sets go round, epoch after epoch of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Batches = Callable[[int, int], Iterator[T]]  # (epoch, first batch) -> the batches from there on


@dataclass(frozen=True)
class Mixing:
    """How batches of stills and clips follow one another.

    Args:
        stills: batches in an epoch of the stills; not looked at where all steps are of clips.
        clips: batches in an epoch of the clips.
        share: of the steps that are of clips.
        together: batches of one step, those of all processes and accumulated ones.
    """

    stills: int
    clips: int
    share: float
    together: int = 1

    def is_clip(self, step: int) -> bool:
        """Whether a step is of clips."""
        return self._clips_before(step + 1) > self._clips_before(step)

    def __len__(self) -> int:
        """Batches in an epoch: as many as show all stills, or, if there are none, all clips."""
        if self.share == 1:
            return max(1, self.clips)
        return max(1, round(self.stills / (1 - self.share)))

    def epoch(
        self, epoch: int, start_batch: int, stills: Batches[T], clips: Batches[T]
    ) -> Iterator[T]:
        """Yield the batches of an epoch from `start_batch` on."""
        first, end = epoch * len(self) + start_batch, (epoch + 1) * len(self)
        step, inside = divmod(first, self.together)
        before = self._clips_before(step) * self.together + inside * self.is_clip(step)
        of_clips = _endless(clips, self.clips, before)
        of_stills = _endless(stills, self.stills, first - before)
        for number in range(first, end):
            yield next(of_clips if self.is_clip(number // self.together) else of_stills)

    def _clips_before(self, step: int) -> int:
        return int(step * self.share)


def _endless(batches: Batches[T], count: int, start: int) -> Iterator[T]:
    """Epoch after epoch of `count` batches, from batch `start` of all on."""
    epoch, first = divmod(start, max(1, count))
    while True:
        yield from batches(epoch, first)
        epoch, first = epoch + 1, 0
