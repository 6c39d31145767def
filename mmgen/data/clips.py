"""Clips from files: animations, folders of pictures, and films where PyAV is installed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.data.fit import squash_pixels
from mmgen.data.pictures import EXTENSIONS, FORMATS, PIXEL_LIMIT, open_picture, to_rgb
from mmgen.errors import DataError

if TYPE_CHECKING:
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
    found = list(islice(frames_of(Path(path)), frames))
    if len(found) < frames:
        raise DataError(f"{path} has {len(found)} frames, and {frames} are needed.")
    return found


def squashed(frames: list[Image.Image], size: int) -> Tensor:
    """Frames as pixels of a square, (3, T, size, size) float32; see `read_clip`."""
    import torch

    return torch.stack([squash_pixels(frame, size) for frame in frames], dim=1)


def frames_of(path: Path) -> Iterator[Image.Image]:
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
    return _animation(path) if path.suffix[1:].lower() in EXTENSIONS else _film(path)


def _animation(path: Path) -> Iterator[Image.Image]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > PIXEL_LIMIT:
                raise DataError(f"{path} has more than {PIXEL_LIMIT} pixels; make it smaller.")
            for frame in ImageSequence.Iterator(picture):
                yield to_rgb(frame)
    except DataError:
        raise
    except Exception:  # decoders meet damage with any kind of exception
        raise DataError(f"{path} is no animation, or it is damaged.") from None


def _film(path: Path) -> Iterator[Image.Image]:
    try:
        import av
    except ImportError:
        raise DataError(
            f"{path} needs PyAV to be read; `pip install 'mmgen-ar[video]'`, or give a GIF."
        ) from None
    try:
        with av.open(str(path)) as container:
            frames: Any = container.decode(video=0)
            for frame in frames:
                yield frame.to_image()
    except Exception:  # as above
        raise DataError(f"{path} is no film, or it is damaged.") from None
