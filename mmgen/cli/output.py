"""Files of `mmgen sample`: a picture or clip for each subject, and a sheet of several pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.cli.places import is_picture_file
from mmgen.recipes import subject_of
from mmgen.sheets import enlarged, sheet

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.pipeline import PipelineOutput


def write(output: PipelineOutput, out: Path | None, scale: int) -> list[Path]:
    """Write what was drawn, enlarged; returns the files.

    Args:
        output: of a pipeline's call.
        out: a file's name, or a folder; None: named here.
        scale: how many times pictures are enlarged.
    """
    recipes = [{**recipe, "scale": scale} for recipe in output.recipes]
    if output.frames:
        clips = [[enlarged(frame, scale) for frame in clip] for clip in output.frames]
        return _write_clips(clips, out, recipes)
    return _write_pictures([enlarged(image, scale) for image in output.images], out, recipes)


def _write_clips(
    clips: Sequence[Sequence[Image.Image]], out: Path | None, recipes: list[dict[str, Any]]
) -> list[Path]:
    from mmgen.sample.pictures import CLIP_ENDINGS, save_clip

    _, files = _names(out, [subject_of(recipe) for recipe in recipes], CLIP_ENDINGS[0])
    for frames, recipe, path in zip(clips, recipes, files):
        save_clip(frames, path, recipe)
    return files


def _write_pictures(
    images: list[Image.Image], out: Path | None, recipes: list[dict[str, Any]]
) -> list[Path]:
    from mmgen.sample.pictures import save_picture

    together, singles = _names(out, [subject_of(recipe) for recipe in recipes], ".png")
    for image, recipe, path in zip(images, recipes, singles):
        save_picture(image, path, recipe)
    if len(images) == 1:
        return singles
    save_picture(sheet(images, recipes), together, {"pictures": recipes})
    return [*singles, together]


def _names(out: Path | None, subjects: list[str], ending: str) -> tuple[Path, list[Path]]:
    """Name of the sheet and of each picture."""
    if out is not None and is_picture_file(out):
        if len(subjects) == 1:
            return out, [out]
        return out, [out.with_stem(f"{out.stem}-{i + 1}") for i in range(len(subjects))]
    folder = out or Path()
    used: Counter[str] = Counter()
    names = [_free(folder, _slug(subject), ending, used) for subject in subjects]
    return _free(folder, f"{_slug(subjects[0])}-sheet", ending, used), names


def _free(folder: Path, stem: str, ending: str, used: Counter[str]) -> Path:
    """A name in `folder` that nothing has yet: no file is overwritten unasked.

    `used` counts the numbers that each stem has been through in this call.
    """
    while True:
        used[stem] += 1
        number = f"-{used[stem]}" if used[stem] > 1 else ""
        path = folder / f"{stem}{number}{ending}"
        if not path.exists():
            return path


def _slug(subject: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")[:60] or "picture"
