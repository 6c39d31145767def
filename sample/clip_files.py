"""Clips into files: animations (GIF, WEBP, APNG), films (MP4, WEBM) and contact sheets (PNG).

What each keeps: WEBP and APNG every pixel; GIF 256 colours, the same in all frames, without
dithering, so that what stands still does not flicker; films are lossy, with half the resolution in
colour. The recipe is inside every one of them (`recipe_files.py`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmgen.errors import UserError
from mmgen.files import ANIMATION_FORMATS, CLIP_ENDINGS, FILM_FORMATS, FPS, replacing
from mmgen.sample.pictures import grid, save_picture, write_image
from mmgen.sample.recipe_files import comment_with

MOST_FPS = {".gif": 50.0}  # players slow down what is shorter than 20 ms
SLOWEST, FASTEST = 0.1, 240.0  # frames a second of all others
MOST_LOOPS = 65_535
SHEET_COLUMNS = 9  # frames in a row of a contact sheet

_TICKS = {".gif": 100, ".webp": 1000, ".apng": 1000}  # a second, of the durations in a file
_CODECS = {  # of each film: the encoder and its quality
    "mp4": ("libx264", {"crf": "12", "preset": "slow", "tune": "animation"}),
    "webm": ("libvpx-vp9", {"crf": "10", "b": "0"}),
}
Colours = np.ndarray[Any, np.dtype[Any]]

_BT709 = 1  # colours as of HD television, said in the film, since players guess otherwise
_COLOURS, _ROUNDS, _SAMPLES = 256, 4, 2**16  # of a palette: size, refinement, pixels looked at


def save_clip(
    frames: Sequence[Image.Image],
    path: str | Path,
    recipe: dict[str, Any],
    fps: float = FPS,
    loop: int = 0,
) -> None:
    """Write a clip with its recipe inside, all of it or nothing.

    Durations are whole hundredths of a second in a GIF, thousandths in WEBP and APNG; each frame
    ends at the one nearest to its time, so that at 24 frames a second those of a GIF last 40 or 50
    ms and the clip keeps its length. Films hold the rate itself. A frame that equals the one before
    it makes that one last longer in an animation.

    Args:
        frames: at least one, all of one size.
        path: the suffix chooses: .gif, .webp and .apng play, .mp4 and .webm are films (PyAV), .png
            is a contact sheet.
        recipe: plain JSON data.
        fps: frames a second; a contact sheet has none.
        loop: how often an animation plays; 0: over and over.

    Raises:
        UserError: as of `check_clip_file`, frames that a film cannot have, or as in `save_picture`.
    """
    check_clip_file(path, fps, loop)
    target = Path(path)
    ending = target.suffix.lower()
    if ending in FILM_FORMATS:
        _write_film(frames, target, FILM_FORMATS[ending], recipe, fps)
    elif ending in ANIMATION_FORMATS:
        _write_animation(frames, target, ending, recipe, fps, loop)
    else:
        save_picture(clip_sheet(frames), target, recipe)


def check_clip_file(path: str | Path, fps: float = FPS, loop: int = 0) -> None:
    """Refuse what no clip can be written to, or played at.

    Raises:
        UserError: the suffix holds no clips, films cannot be written here, or a rate or number of
            loops that the file cannot tell.
    """
    ending = Path(path).suffix.lower()
    if ending not in CLIP_ENDINGS:
        raise UserError(f"{path} holds no clips; end its name in one of {', '.join(CLIP_ENDINGS)}.")
    most = MOST_FPS.get(ending, FASTEST)
    if not SLOWEST <= fps <= most:
        raise UserError(
            f"{path} cannot play {fps:g} frames a second; give {SLOWEST:g} to {most:g}."
        )
    if not 0 <= loop <= MOST_LOOPS:
        raise UserError(f"A clip cannot play {loop} times; give 0 (over and over) to {MOST_LOOPS}.")
    if ending in FILM_FORMATS:
        if loop:
            raise UserError(
                f"{path} is a film, which cannot say how often it plays; write a .gif, .webp or "
                ".apng."
            )
        _check_films(path)


def clip_sheet(frames: Sequence[Image.Image]) -> Image.Image:
    """The frames of a clip side by side, numbered from 1."""
    return grid(frames, SHEET_COLUMNS, [str(i + 1) for i in range(len(frames))])


def is_film(path: str | Path) -> bool:
    """Whether a file is a film by its name; films keep frames only nearly as they are."""
    return Path(path).suffix.lower() in FILM_FORMATS


# -- animations -----------------------------------------------------------------------------------


def _write_animation(
    frames: Sequence[Image.Image],
    target: Path,
    ending: str,
    recipe: dict[str, Any],
    fps: float,
    loop: int,
) -> None:
    ends = [round((i + 1) * _TICKS[ending] / fps) for i in range(len(frames))]
    lasting = [(end - start) * 1000 // _TICKS[ending] for start, end in zip([0, *ends], ends)]
    shown, kind = list(frames), ANIMATION_FORMATS[ending]
    moving: dict[str, Any] = {"loop": loop}
    if kind == "GIF":
        shown, colours = in_one_palette(frames)
        moving = {"palette": colours, "disposal": 1, "optimize": False}
        if loop != 1:  # a GIF counts what follows the first time; without a count it plays once
            moving["loop"] = max(0, loop - 1)
    rest = {"append_images": shown[1:], "duration": lasting}
    write_image(shown[0], target, kind, recipe, save_all=True, **rest, **moving)


def in_one_palette(frames: Sequence[Image.Image]) -> tuple[list[Image.Image], bytes]:
    """Frames in the 256 colours that suit them all, and the palette.

    A colour becomes the same one in every frame; a clip of 256 colours or fewer stays as it is.
    """
    palette = _palette_of([_pixels(frame) for frame in frames])  # (n, 3)
    plain = palette.to(torch.uint8).numpy().tobytes()
    return [_indexed(frame, palette, plain) for frame in frames], plain


def _palette_of(frames: list[Colours]) -> Tensor:
    """(n, 3) whole numbers in float32: an octree's colours, moved to the means of their pixels."""
    step = max(1, sum(map(len, frames)) // _SAMPLES)
    colours, counts = np.unique(np.concatenate(frames)[::step], return_counts=True)
    if len(colours) <= _COLOURS:
        everything = np.unique(np.concatenate([np.unique(each) for each in frames]))
        if len(everything) <= _COLOURS:
            return torch.from_numpy(_apart(everything)).float()
    sample = Image.fromarray(_apart(np.repeat(colours, counts))[None])
    octree = sample.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE).getpalette()
    centres = torch.tensor(octree).float().view(-1, 3)[:_COLOURS]
    x, weight = torch.from_numpy(_apart(colours)).float(), torch.from_numpy(counts)[:, None].float()
    for _ in range(_ROUNDS):  # of Lloyd's algorithm
        nearest = torch.cdist(x, centres).argmin(1)
        total = torch.zeros_like(centres).index_add_(0, nearest, x * weight)
        count = torch.zeros(len(centres), 1).index_add_(0, nearest, weight)
        centres = torch.where(count > 0, total / count.clamp(min=1), centres)
    return torch.unique(centres.round(), dim=0)  # type: ignore[no-any-return,no-untyped-call]


def _indexed(frame: Image.Image, palette: Tensor, plain: bytes) -> Image.Image:
    colours, where = np.unique(_pixels(frame), return_inverse=True)
    nearest = torch.cdist(torch.from_numpy(_apart(colours)).float(), palette).argmin(1)
    codes = nearest.to(torch.uint8).numpy()[where].reshape(frame.height, frame.width)
    image = Image.fromarray(codes, "P")
    image.putpalette(plain)
    return image


def _pixels(frame: Image.Image) -> Colours:
    """(H * W,) int32, each colour as one number."""
    red, green, blue = np.moveaxis(np.asarray(frame.convert("RGB"), dtype=np.int32), -1, 0)
    numbers: Colours = (red << 16 | green << 8 | blue).ravel()
    return numbers


def _apart(colours: Colours) -> Colours:
    """Numbers (n,) as (n, 3) uint8."""
    return np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8)


# -- films ----------------------------------------------------------------------------------------


def _check_films(path: str | Path) -> None:
    if importlib.util.find_spec("av") is None:
        raise UserError(
            f"{path} needs PyAV to be written; `pip install 'mmgen-ar[video]'`, or write a .webp."
        )
    import av

    codec, _ = _CODECS[FILM_FORMATS[Path(path).suffix.lower()]]
    if codec not in av.codecs_available:
        raise UserError(f"PyAV has no {codec} here, which {path} needs; write a .webp.")


def _write_film(
    frames: Sequence[Image.Image], target: Path, form: str, recipe: dict[str, Any], fps: float
) -> None:
    import av

    width, height = frames[0].size
    if width % 2 or height % 2:
        raise UserError(
            f"{target} holds no frames of {width}x{height} pixels, only even sides; write a .webp, "
            "or enlarge them."
        )
    try:
        with replacing(target) as temporary, av.open(str(temporary), "w", format=form) as film:
            film.metadata["comment"] = comment_with(recipe)
            _encode(film, frames, form, fps)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot write {target}: {reason}; choose another place.") from None


def _encode(film: Any, frames: Sequence[Image.Image], form: str, fps: float) -> None:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    codec, options = _CODECS[form]
    rate = Fraction(fps).limit_denominator(1001)  # 29.97 is 30000 / 1001
    stream = film.add_stream(codec, rate=rate, options=options)
    stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = ColorRange.MPEG
    context.thread_count = 1  # or else the number of cores would change the film
    for i, image in enumerate(frames):
        pixels = av.VideoFrame.from_ndarray(np.asarray(image.convert("RGB")), format="rgb24")
        frame = pixels.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts, frame.time_base = i, 1 / rate
        film.mux(stream.encode(frame))
    film.mux(stream.encode(None))
