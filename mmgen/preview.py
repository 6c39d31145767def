"""Pictures in progress: in the terminal as half blocks in colour, and as frames of an animation.

Of clips the terminal shows the newest finished frame.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from mmgen.recipes import Recipe
from mmgen.unfolding import FinishedFrames

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.pipeline import Pipeline
    from mmgen.sample.engine import Step

FRAMES = 64  # most pictures that are shown of a growth; the last one is always among them
LINES = 8  # of plain text where there is no terminal
SECONDS, HOLD = 4.0, 1.5  # of an animation, and how long it shows its end
WIDEST = 1024  # pixels of an animation, unless the pictures themselves are wider
UNDECIDED = 128  # grey


class Growth:
    """Shows and keeps the steps of a call; `watch` is its `watch` argument.

    Args:
        pipe: what draws.
        count: pictures of the whole call; those that have not begun are grey.
        terminal: where to show the growth; None: nowhere.
        keep: whether frames are kept for `save`.
    """

    def __init__(self, pipe: Pipeline, count: int, terminal: TextIO | None, keep: bool) -> None:
        from PIL import Image

        size = (pipe.info.image_size, pipe.info.image_size)
        self.frames: list[Image.Image] = []
        self._images = [Image.new("RGB", size, (UNDECIDED,) * 3) for _ in range(count)]
        self._pipe, self._keep, self._terminal = pipe, keep, terminal
        self._first, self._next = 0, 0  # pictures are drawn in parts
        self._lines = 0  # that the last picture in the terminal took
        self._finished = FinishedFrames(pipe)
        self._count = 0  # frames of a clip that were finished

    def watch(self, step: Step) -> None:
        """Look at a step."""
        if step.index == 1:
            self._first, self._next = self._next, self._next + len(step.codes)
            self._finished, self._count = FinishedFrames(self._pipe), 0
        if len(step.done) > 1:
            self._watch_clips(step)
        else:
            self._watch_pictures(step)

    def save(self, path: Path, recipes: list[Recipe], scale: int) -> None:
        """Write the growth as an animation that holds its end, or as a sheet.

        Args:
            path: a name that `save_clip` takes.
            recipes: of the pictures.
            scale: how many times frames are enlarged, as far as they stay below `WIDEST`.
        """
        from mmgen.sample.clip_files import save_clip
        from mmgen.sheets import enlarged

        times = max(1, min(scale, WIDEST // max(self.frames[0].size)))
        frames = [enlarged(frame, times) for frame in self.frames]
        fps = max(2.0, len(frames) / SECONDS)
        hold = 0 if path.suffix.lower() == ".png" else round(HOLD * fps)  # a sheet does not play
        save_clip(frames + frames[-1:] * hold, path, {"growth_of": recipes}, fps)

    def _watch_pictures(self, step: Step) -> None:
        place = f"step {step.index} of {step.total}{self._beside('pictures')}"
        coloured = self._terminal is not None and shows_colour(self._terminal)
        if self._terminal is not None and not coloured and _is_one_of(LINES, step):
            print(f"mmgen: {place}", file=self._terminal, flush=True)
        if not (self._keep or coloured) or not _is_one_of(FRAMES, step):
            return
        sheet = self._sheet(in_progress(self._pipe, step))
        if self._keep:
            self.frames.append(sheet)
        if coloured and self._terminal is not None:
            self._draw(self._terminal, sheet, place)

    def _watch_clips(self, step: Step) -> None:
        from mmgen.lengths import frames_of

        clips = self._finished.of(step)
        if self._terminal is None or not clips:
            return
        self._count += len(clips[0])
        total = frames_of(self._pipe.vision, len(step.done))
        place = f"frame {self._count} of {total}{self._beside('clips')}"
        if shows_colour(self._terminal):
            self._draw(self._terminal, self._sheet([clip[-1] for clip in clips]), place)
        else:
            print(f"mmgen: {place}", file=self._terminal, flush=True)

    def _sheet(self, images: list[Image.Image]) -> Image.Image:
        """All pictures of the call, those that are drawn now as they are now."""
        from mmgen.sample.pictures import grid

        self._images[self._first : self._next] = images
        return self._images[0] if len(self._images) == 1 else grid(self._images)

    def _draw(self, terminal: TextIO, sheet: Image.Image, place: str) -> None:
        columns, lines = shutil.get_terminal_size()
        rows = half_blocks(sheet, columns, max(1, lines - 2))
        back = f"\x1b[{self._lines}F\x1b[J" if self._lines else ""
        terminal.write(back + "\n".join([*rows, place]) + "\n")
        terminal.flush()
        self._lines = len(rows) + 1

    def _beside(self, what: str) -> str:
        """Which ones are drawn now, if not all of them."""
        if self._next - self._first == len(self._images):
            return ""
        return f", {what} {self._first + 1} to {self._next}"


def shows_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can show half blocks in colour."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb")
    unicode = (stream.encoding or "").lower().startswith("utf")
    return stream.isatty() and unicode and not plain


def in_progress(pipe: Pipeline, step: Step) -> list[Image.Image]:
    """The pictures of a step, grey where nothing has begun."""
    from PIL import Image

    begun = Image.fromarray(step.begun[0].cpu().numpy())  # (h, w)
    images = []
    for image in pipe.render(step.codes):
        shown = np.asarray(begun.resize(image.size, Image.Resampling.NEAREST))[..., None]
        images.append(
            Image.fromarray(np.where(shown, np.asarray(image), UNDECIDED).astype(np.uint8))
        )
    return images


def half_blocks(image: Image.Image, columns: int, lines: int) -> list[str]:
    """A picture as lines of text, two pixels a character, no larger than it is.

    Args:
        image: RGB.
        columns, lines: of text that there is room for.
    """
    from PIL import Image

    share = min(1.0, columns / image.width, 2 * lines / image.height)
    width, height = max(1, int(image.width * share)), max(2, int(image.height * share) // 2 * 2)
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX)).tolist()
    return [
        "".join(f"{_colour(38, a)}{_colour(48, b)}▀" for a, b in zip(upper, lower)) + "\x1b[0m"
        for upper, lower in zip(small[::2], small[1::2])
    ]


def _colour(which: int, rgb: list[int]) -> str:
    return f"\x1b[{which};2;{rgb[0]};{rgb[1]};{rgb[2]}m"


def _is_one_of(count: int, step: Step) -> bool:
    """Whether a step is one of about so many, evenly chosen, the last one among them."""
    return step.index * count // step.total > (step.index - 1) * count // step.total
