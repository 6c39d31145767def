"""Clips and still pictures, one sample after the other, at one size and of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.data.clips import sample_frames
from mmgen.data.fit import fit_pixels, is_square
from mmgen.data.pictures import BadSample
from mmgen.data.reports import report_bad, report_cropped
from mmgen.data.sources import open_source

if TYPE_CHECKING:
    from torch import Tensor


class ClipSet:
    """The clips of a folder and below it, of shards, or one; a still picture has one frame.

    A folder of still pictures is thus many clips of one frame, not one clip as for `read_clip`: a
    data set may hold both kinds.
    """

    def __init__(
        self, path: str | Path, image_size: int, most: int, fitting: Callable[[int], int]
    ) -> None:
        """Look for clips.

        Args:
            path: what `open_source` takes; captions are not needed.
            image_size: pixels a side; frames are cropped to a centred square and resized.
            most: frames that are read of a clip.
            fitting: how many of so many frames can be used; 0: too few.

        Raises:
            DataError: there are none.
        """
        self.source = open_source(path, captioned=False, films=True)
        self.image_size, self.most, self.fitting = image_size, most, fitting
        self.bad: dict[str, str] = {}
        self.cropped: set[str] = set()
        self.seen = 0

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield what can be read: (3, T, H, W) float32 in [-1, 1]; the rest is counted as bad."""
        for index in range(len(self)):
            self.seen = max(self.seen, index + 1)
            try:
                yield self._read(index)
            except BadSample as error:
                self.bad[error.key] = error.reason

    def report(self) -> str:
        """Say in one line how many clips were bad so far, and name them with their reasons."""
        return report_bad(self.bad, len(self), self.source.name, self.seen)

    def cropping(self) -> str | None:
        """Say in one line how many clips were no squares and what was kept; None: all were."""
        return report_cropped(len(self.cropped), len(self), self.source.name, self.seen)

    def _read(self, index: int) -> Tensor:
        import torch

        key = self.source.key(index)
        frames = [each.image for each in islice(sample_frames(self.source, index), self.most)]
        count = self.fitting(len(frames))
        if not count:
            raise BadSample(key, f"it has {len(frames)} frames, too few for this tokenizer")
        if not is_square(frames[0].size):
            self.cropped.add(key)
        fitted = [fit_pixels(frame, self.image_size) for frame in frames[:count]]
        return torch.stack(fitted, dim=1)
