"""Files of what was drawn: a picture or clip for each subject, and a sheet of several pictures."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.errors import ConfigError, UserError
from mmgen.files import FPS, is_picture_file
from mmgen.recipes import subject_of
from mmgen.sheets import enlarged, sheet

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.pipeline_output import PipelineOutput

MOST_SCALE = 64  # times that pictures are enlarged


def write(
    output: PipelineOutput, out: Path | None, scale: int, fps: float = FPS, loop: int = 0
) -> list[str]:
    """Write what was drawn, enlarged; returns the files, each as a line that says if it was there.

    Args:
        output: of a pipeline's call.
        out: a file's name, or a folder; None: named here.
        scale: how many times pictures are enlarged.
        fps, loop: of clips; see `save_clip`.

    Raises:
        UserError: codes alone were drawn, or a place or an ending that takes no pictures.
    """
    if not (output.images or output.frames):
        raise UserError("There is no picture to save; call without output_type='codes'.")
    recipes = [{**recipe, "scale": scale} for recipe in output.recipes]
    if output.frames:
        clips = [[enlarged(frame, scale) for frame in clip] for clip in output.frames]
        recipes = [{**recipe, "fps": fps, "loop": loop} for recipe in recipes]
        return _write_clips(clips, out, recipes)
    return _write_pictures([enlarged(image, scale) for image in output.images], out, recipes)


def _write_clips(
    clips: Sequence[Sequence[Image.Image]], out: Path | None, recipes: list[dict[str, Any]]
) -> list[str]:
    from mmgen.sample.clip_files import save_clip

    _, files = _names(out, [subject_of(recipe) for recipe in recipes], ".gif")
    lines = [line_of(path) for path in files]
    for frames, recipe, path in zip(clips, recipes, files):
        save_clip(frames, path, recipe, recipe["fps"], recipe["loop"])
    return lines


def _write_pictures(
    images: list[Image.Image], out: Path | None, recipes: list[dict[str, Any]]
) -> list[str]:
    from mmgen.sample.pictures import save_picture

    files = picture_files(out, [subject_of(recipe) for recipe in recipes])
    lines = [line_of(path) for path in files]
    for image, recipe, path in zip(images, recipes, files):
        save_picture(image, path, recipe)
    if len(images) > 1:
        save_picture(sheet(images, recipes), files[-1], {"pictures": recipes})
    return lines


def picture_files(out: Path | None, subjects: list[str]) -> list[Path]:
    """The file of each picture that shows these subjects, and last the sheet if there are several.

    Args:
        out: a file's name, or a folder; None: named here.
        subjects: what each picture shows.
    """
    together, singles = _names(out, subjects, ".png")
    return [*singles, *([together] if len(singles) > 1 else [])]


def refuse_overwriting(files: Sequence[Path], read: Sequence[Path]) -> None:
    """Refuse to write over what is read.

    Args:
        files: that are written.
        read: files that are there.

    Raises:
        UserError: one is both.
    """
    for file in files:
        for own in read:
            if file.exists() and own.exists() and file.samefile(own):
                raise UserError(f"{file} would be replaced, but it is read; choose another -o.")


def check_scale(name: str, scale: int | None) -> None:
    """Refuse to enlarge by what is no whole number, or huge; None is the usual one.

    Raises:
        ConfigError: it is, called by its name.
    """
    if scale is not None and (not isinstance(scale, int) or not 1 <= scale <= MOST_SCALE):
        raise ConfigError(f"{name} is {scale}; give a whole number from 1 to {MOST_SCALE}.")


def line_of(path: Path) -> str:
    """What is said of a file that is about to be written."""
    return f"{path} (replaced)" if path.exists() else str(path)


def _names(out: Path | None, subjects: list[str], ending: str) -> tuple[Path, list[Path]]:
    """Name of the sheet and of each picture."""
    if out is not None and is_picture_file(out):
        if len(subjects) == 1:
            return out, [out]
        return out, [out.with_stem(f"{out.stem}-{i + 1}") for i in range(len(subjects))]
    folder = out or Path()
    names = _Names(folder, ending)
    files = [names.free(_slug(subject)) for subject in subjects]
    same = len(set(subjects)) == 1  # else no name of one tells what the sheet shows
    return names.free(f"{_slug(subjects[0])}-sheet" if same else "sheet"), files


class _Names:
    """Names in a folder that nothing has yet: no file is overwritten unasked."""

    def __init__(self, folder: Path, ending: str) -> None:
        self._folder, self._ending = folder, ending
        self._numbers: Counter[str] = Counter()  # that each stem has been through
        self._given: set[Path] = set()

    def free(self, stem: str) -> Path:
        """A name that begins with `stem` and was not given before."""
        while True:
            self._numbers[stem] += 1
            number = f"-{self._numbers[stem]}" if self._numbers[stem] > 1 else ""
            path = self._folder / f"{stem}{number}{self._ending}"
            if path not in self._given and not path.exists():
                self._given.add(path)
                return path


def _slug(subject: str) -> str:
    """The words of a subject in any script, joined and short enough for a file's name."""
    words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", subject).lower()).strip("-")
    short = words[:60].encode(errors="ignore")[:120].decode(errors="ignore")
    return short.strip("-") or "picture"
