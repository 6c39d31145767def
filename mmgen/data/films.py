"""Frames of animations, strips and films with their times, from files that may be hostile.

GIF, WebP and PNG are read by Pillow, MP4 (MOV), WebM (MKV) and AVI by PyAV. What a file is is told
by its first bytes, and the demuxer is named, so that FFmpeg never guesses: a playlist or a list of
other files is no film here. Whatever a container asks to open besides itself is refused.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mmgen.data.pictures import FORMATS, PIXEL_LIMIT, BadSample, to_rgb

if TYPE_CHECKING:
    from PIL import Image

FRAME_SECONDS = 0.1  # of a frame whose file gives it no duration, as browsers take it
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


@dataclass(frozen=True)
class Limits:
    """What a clip may have at most; more makes a bad sample.

    Attributes:
        frames: of the source.
        seconds: that it lasts.
        pixels: of one frame.
    """

    frames: int = 1000
    seconds: float = 120.0
    pixels: int = 16_000_000


@dataclass(frozen=True)
class Frame:
    """A frame, RGB, and the time in seconds at which it ends; the first one begins at 0."""

    image: Image.Image
    end: float


def timed_frames(source: bytes | Path, key: str, limits: Limits | None = None) -> Iterator[Frame]:
    """Decode a clip, frame after frame; a still picture is a clip of one frame.

    Args:
        source: the file's content, or its path.
        key: what to call it in errors.
        limits: of what is decoded; None: those of one frame alone.

    Raises:
        BadSample: no animation and no film, damaged, over a limit, or PyAV is needed.
    """
    most = limits or Limits(1 << 62, float("inf"), PIXEL_LIMIT)
    count = 0
    for count, frame in enumerate(_frames(source, key, most.pixels), 1):
        if count > most.frames:
            raise BadSample(key, f"it has more than {most.frames} frames; cut it")
        if frame.end > most.seconds:
            raise BadSample(key, f"it lasts more than {most.seconds:g} seconds; cut it")
        yield frame
    if not count:
        raise BadSample(key, "it holds no frames")


def _frames(source: bytes | Path, key: str, pixels: int) -> Iterator[Frame]:
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            demuxer = _demuxer(file.read(12))
            file.seek(0)
            yield from (
                _film(file, key, demuxer, pixels) if demuxer else _animation(file, key, pixels)
            )
    except BadSample:
        raise
    except OSError as error:
        raise BadSample(key, f"it cannot be read ({error.strerror or error})") from None


def format_of(content: bytes) -> str:
    """What a clip that has been opened before is called, such as "GIF" or "MP4"."""
    from PIL import Image

    if (demuxer := _demuxer(content[:12])) is not None:
        return {"mov": "MP4", "matroska": "WEBM", "avi": "AVI"}[demuxer]
    with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
        return str(picture.format)


def _demuxer(head: bytes) -> str | None:
    """FFmpeg's name for a film that begins so."""
    if head[4:8] in _MOV_BOXES:
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None


def _animation(file: BinaryIO, key: str, pixels: int) -> Iterator[Frame]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(file, formats=FORMATS) as picture:
            _check_size(picture.size, key, pixels)
            end = 0.0
            for frame in ImageSequence.Iterator(picture):
                frame.load()  # only then WebP knows the duration
                end += float(frame.info.get("duration", 0)) / 1000 or FRAME_SECONDS
                yield Frame(to_rgb(frame), end)
    except BadSample:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadSample(key, f"a frame of it has more than {pixels} pixels") from None
    except Exception:  # decoders meet damage with any kind of exception
        raise BadSample(key, "it is no animation and no film, or it is damaged") from None


def _film(file: BinaryIO, key: str, demuxer: str, pixels: int) -> Iterator[Frame]:
    try:
        import av
    except ImportError:
        raise BadSample(
            key, "it needs PyAV to be read; `pip install 'mmgen-ar[video]'`, or give a GIF"
        ) from None
    options = {"protocol_whitelist": "none", "format_whitelist": _FORMATS[demuxer]}
    refuse: Callable[..., Any] = _refuse
    try:
        with av.open(file, "r", format=demuxer, options=options, io_open=refuse) as container:
            stream = container.streams.video[0]
            _check_size((stream.width, stream.height), key, pixels)
            yield from _timed(container.decode(stream), stream, key, pixels)
    except BadSample:
        raise
    except Exception:  # as above
        raise BadSample(key, "it is no film, or it is damaged") from None


_FORMATS = {"mov": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm", "avi": "avi"}


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    """Stands where FFmpeg opens what a container names."""
    raise PermissionError(f"{url} is not opened")


def _timed(frames: Iterator[Any], stream: Any, key: str, pixels: int) -> Iterator[Frame]:
    """Frames with their times: a frame lasts until the next, the last as long as the one before."""
    step = 1 / float(stream.average_rate or 1 / FRAME_SECONDS)
    first: float | None = None
    image, start = None, 0.0
    for frame in frames:
        _check_size((frame.width, frame.height), key, pixels)
        first = frame.time if first is None else first
        begin = start + step if frame.time is None or first is None else frame.time - first
        if image is not None:
            step = begin - start if begin > start else step
            yield Frame(image, start + step)
            start += step
        image = _upright(frame)
    if image is not None:
        yield Frame(image, start + step)


def _upright(frame: Any) -> Image.Image:
    turn = getattr(frame, "rotation", 0)
    picture: Image.Image = frame.to_image()
    return picture.rotate(turn, expand=True) if turn else picture


def _check_size(size: tuple[int, int], key: str, pixels: int) -> None:
    if size[0] * size[1] > pixels:
        raise BadSample(key, f"a frame of it has {size[0]}x{size[1]} pixels, more than {pixels}")
