"""Clips and still pictures, one file after the other, at one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.data.clips import frames_of
from mmgen.data.fit import fit_pixels, is_square
from mmgen.data.folders import is_picture
from mmgen.data.reports import report_bad, report_cropped
from mmgen.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

FILMS = ("mp4", "webm", "mov", "mkv", "avi", "m4v")


class ClipSet:
    """The clips of a folder and below it, or one; a still picture is a clip of one frame.

    A folder of still pictures is thus many clips of one frame, not one clip as for `read_clip`: a
    data set may hold both kinds.
    """

    def __init__(
        self, path: str | Path, image_size: int, most: int, fitting: Callable[[int], int]
    ) -> None:
        """Look for clips.

        Args:
            path: a folder, or one file.
            image_size: pixels a side; frames are cropped to a centred square and resized.
            most: frames that are read of a clip.
            fitting: how many of so many frames can be used; 0: too few.

        Raises:
            DataError: there are none.
        """
        place = Path(path)
        if not place.exists():
            raise DataError(f"There is no {path}; name a folder of clips, or a clip.")
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        self.files = [file for file in inside if is_picture(file, also=FILMS)]
        if not self.files:
            raise DataError(
                f"{path} holds no clips; give animations (.gif, .webp), films (.mp4 ...) or "
                "pictures."
            )
        self.name, self.image_size, self.most, self.fitting = str(path), image_size, most, fitting
        self.bad: dict[str, str] = {}
        self.cropped: set[str] = set()
        self.seen: set[str] = set()

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield what can be read: (3, T, H, W) float32 in [-1, 1]; the rest is counted as bad."""
        for file in self.files:
            self.seen.add(str(file))
            try:
                yield self._read(file)
            except DataError as error:
                self.bad[str(file)] = str(error).rstrip(".")

    def report(self) -> str:
        """Say in one line how many files were bad so far, and name them with their reasons."""
        return report_bad(self.bad, len(self), self.name, len(self.seen))

    def cropping(self) -> str | None:
        """Say in one line how many clips were no squares and what was kept; None: all were."""
        return report_cropped(len(self.cropped), len(self), self.name, len(self.seen))

    def _read(self, file: Path) -> Tensor:
        import torch

        frames = list(islice(frames_of(file), self.most))
        count = self.fitting(len(frames))
        if not count:
            raise DataError(f"it has {len(frames)} frames, too few for this tokenizer")
        if not is_square(frames[0].size):
            self.cropped.add(str(file))
        fitted = [fit_pixels(frame, self.image_size) for frame in frames[:count]]
        return torch.stack(fitted, dim=1)
