"""Clips from files: animations, folders of pictures, and films where PyAV is installed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.data.films import FRAME_SECONDS, Frame, Limits, timed_frames
from mmgen.data.pictures import EXTENSIONS, open_picture
from mmgen.data.sources import Source
from mmgen.errors import DataError

STILL = "it has one frame: it is a still picture, not a clip"

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor


def read_clip(path: str | Path, frames: int, size: int) -> Tensor:
    """The first frames of a clip as pixels.

    Args:
        path: see `first_frames`.
        frames: how many.
        size: pixels a side; frames are resized to a square, their shape not kept, as NBP did.

    Returns:
        (3, frames, size, size) float32 in [-1, 1].

    Raises:
        DataError: as of `first_frames`.
    """
    return squashed(first_frames(path, frames), size)


def first_frames(path: str | Path, frames: int) -> list[Image.Image]:
    """The first frames of a clip as RGB.

    Args:
        path: a GIF, PNG or WEBP animation, a folder of pictures in the order of their names, or a
            film.
        frames: how many.

    Raises:
        DataError: there is no such file, it cannot be read, or it has fewer frames.
    """
    found = list(islice(file_frames(Path(path)), frames))
    if len(found) < frames:
        raise DataError(f"{path} has {len(found)} frames, and {frames} are needed.")
    return found


def squashed(frames: list[Image.Image], size: int) -> Tensor:
    """Frames as pixels of a square, (3, T, size, size) float32; see `read_clip`."""
    import torch

    from mmgen.data.fit import squash_pixels

    return torch.stack([squash_pixels(frame, size) for frame in frames], dim=1)


def file_frames(path: Path) -> Iterator[Image.Image]:
    """The frames of a clip as RGB, one after the other; see `first_frames`.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    try:
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix[1:].lower() in EXTENSIONS)
            return (open_picture(file, str(file)) for file in files)
        if not path.exists():
            raise DataError(f"There is no file {path}; check the path.")
    except OSError as error:  # no permission, or a name that no file can have
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    return (frame.image for frame in timed_frames(path, str(path)))


def sample_frames(source: Source, index: int, limits: Limits | None = None) -> Iterator[Frame]:
    """The frames of one sample of a data set: an animation, a film, or a strip.

    A strip is a still picture of square frames side by side whose .json says `frames`, how many,
    and perhaps `ms`, how long they last together.

    Raises:
        BadSample: it cannot be used; see `timed_frames`.
    """
    frames = timed_frames(source.encoded(index), source.key(index), limits)
    first, second = next(frames), next(frames, None)
    if second is None:
        yield from _of_strip(first, source.record(index))
    else:
        yield from chain((first, second), frames)


def _of_strip(still: Frame, record: dict[str, object]) -> Iterator[Frame]:
    count, ms = record.get("frames"), record.get("ms")
    side = still.image.height
    if not isinstance(count, int) or still.image.width != count * side:
        yield still
        return
    known = isinstance(ms, (int, float)) and 0 < ms < 1e9
    step = float(ms) / 1000 / count if known else FRAME_SECONDS  # type: ignore[arg-type]
    for i in range(count):
        yield Frame(still.image.crop((i * side, 0, (i + 1) * side, side)), (i + 1) * step)


def seen_at(ends: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Numbers of the frames that are seen at some times.

    Args:
        ends: when each frame ends, (n,) rising.
        times: (k,); what is behind the end sees the last frame.
    """
    import numpy as np

    # A time on the border of two frames, however it was rounded, belongs to the later one.
    return np.searchsorted(ends, times + 1e-6, side="right").clip(max=len(ends) - 1)


def frames_at_rate(
    ends: np.ndarray, start: float, count: int, fps: float, loop: bool = False
) -> np.ndarray:
    """Numbers of the frames that are seen at a rate, (count,) int64.

    Args:
        ends: when each frame ends, (n,) rising, in seconds.
        start: time of the first one that is seen.
        count: how many.
        fps: frames a second.
        loop: whether the clip goes on from its end.
    """
    import numpy as np

    times = start + np.arange(count) / fps
    return seen_at(ends, times % ends[-1] if loop else times)


def strip_of(frames: list[Image.Image]) -> Image.Image:
    """Square frames of one size side by side; see `sample_frames`."""
    from PIL import Image

    side = frames[0].width
    whole = Image.new("RGB", (side * len(frames), side))
    for i, frame in enumerate(frames):
        whole.paste(frame, (side * i, 0))
    return whole
