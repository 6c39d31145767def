"""What a clip begins with: a picture that begins to move, or the end of a clip that goes on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.errors import DataError
from mmgen.request import Frames

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from mmgen.data.films import Frame
    from mmgen.pipeline import Pipeline


@dataclass(frozen=True)
class Beginning:
    """The first frames of a clip, and how they became squares.

    Args:
        frames: an argument of a pipeline's call.
        fitted: a sentence about it where something was lost; None: nothing was.
    """

    frames: Frames
    fitted: str | None


def picture_beginning(pipe: Pipeline, path: str | Path) -> Beginning:
    """The picture that a clip begins with.

    Raises:
        DataError: it cannot be read, or it moves.
    """
    from mmgen.data.clips import file_frames

    found = list(islice(file_frames(Path(path)), 2))
    if len(found) > 1:
        raise DataError(f"{path} moves; give a picture, or go on from it with --frames-from.")
    return _fitted(pipe, Path(path), found)


def clip_beginning(pipe: Pipeline, path: str | Path, given: int | None = None) -> Beginning:
    """The last frames of a clip, from which the next one goes on.

    Where the weights know how many frames a second theirs are, the clip is seen at that rate.

    Args:
        pipe: whose weights go on.
        path: an animation, a film, or a folder of pictures in the order of their names.
        given: how many frames; None: `usual_given`, or fewer where the clip is shorter.

    Raises:
        DataError: it cannot be read, or it has fewer frames.
    """
    from mmgen.lengths import frames_of

    found = _last_frames(Path(path), given or usual_given(pipe), pipe.info.sampling.fps)
    if given is not None and len(found) < given:
        raise DataError(f"{path} has {len(found)} frames, and {given} are needed.")
    counts = [frames_of(pipe.vision, latent) for latent in range(1, len(found) + 2)]
    fitting = max((count for count in counts if count <= len(found)), default=0)
    if not fitting:
        raise DataError(f"{path} has {len(found)} frames, and {counts[0]} are needed.")
    return _fitted(pipe, Path(path), found[-(given or fitting) :])


def _last_frames(path: Path, count: int, fps: float | None) -> list[Image.Image]:
    """At most so many frames; at `fps` those in the middle of each step back from the end."""
    import numpy as np

    from mmgen.data.clips import file_frames, frames_at_rate
    from mmgen.data.films import timed_frames

    every = file_frames(path)  # says what is no clip
    if fps is None or path.is_dir():
        return list(deque(every, count))
    kept: deque[Frame] = deque()
    for frame in timed_frames(path, str(path)):
        kept.append(frame)
        while kept[0].end < frame.end - count / fps:
            kept.popleft()
    end = kept[-1].end
    number = min(count, max(1, round(end * fps)))
    # A time on the border of two frames, which files round to 1 ms, belongs to the later one.
    start, ends = end - (number - 0.5) / fps + 1e-3, np.array([frame.end for frame in kept])
    return [kept[i].image for i in frames_at_rate(ends, start, number, fps).tolist()]


def usual_given(pipe: Pipeline) -> int:
    """Frames to go on from: as many as a window of a long clip takes over."""
    from mmgen.lengths import frames_of, overlap

    return frames_of(pipe.vision, overlap(pipe.transformer.config.grid[0]))


def _fitted(pipe: Pipeline, path: Path, frames: list[Image.Image]) -> Beginning:
    """Frames as pixels: cut to squares as in our own training, or squeezed as in NBP's."""
    import torch

    from mmgen.data.fit import fit_pixels, is_square, squash_pixels
    from mmgen.prefixes import condition_kind

    size, cuts = pipe.info.image_size, condition_kind(pipe) == "text"
    fit = fit_pixels if cuts else squash_pixels
    pixels: Tensor = torch.stack([fit(frame, size) for frame in frames], dim=1)
    width, height = frames[0].size
    fitted = None
    if not is_square((width, height)):
        lost = f"their middle squares are seen, at {size}x{size}"
        if not cuts:
            lost = f"they were squeezed into {size}x{size}, nothing was cut off"
        fitted = f"The frames of {path} are {width}x{height}; {lost}."
    return Beginning(Frames(path.stem, pixels), fitted)
