"""Drawing a picture again from its own metadata, and saying whether the pixels agree."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.errors import UserError
from mmgen.progress import Progress
from mmgen.recipes import (
    Recipe,
    call_of,
    differing_parts,
    number_in,
    prompt_of,
    rate_in,
    seed_of,
    shown_by,
)
from mmgen.sheets import enlarged, sheet

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.pipeline import Pipeline
    from mmgen.pipeline_output import PipelineOutput

Frames = list["Image.Image"]

ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif"}
MOST_PICTURES = 10_000  # on a sheet; a file that tells of more is not one of ours

_LOSSY = " (as a film has them: it is lossy, so what was drawn again became one too)"


@dataclass(frozen=True)
class Verdict:
    """What came of drawing again: whether everything is the same, and what to say."""

    same: bool
    said: str


def recipes_in(path: str | Path) -> list[Recipe]:
    """The recipe of a picture, or those of all pictures of a sheet.

    Raises:
        UserError: there is no such file, or it holds no recipe.
    """
    from mmgen.sample.recipe_files import read_recipe

    recipe = read_recipe(path)
    found = recipe.get("pictures", [recipe])
    if not isinstance(found, list) or not 0 < len(found) <= MOST_PICTURES:
        raise UserError(f"{path} has a damaged recipe; use the original file.")
    if any(
        not isinstance(each, dict) or not isinstance(each.get("weights"), str) for each in found
    ):
        raise UserError(f"{path} holds no recipe of finished pictures; use an original file.")
    return found


def replay(
    pipe: Pipeline,
    path: str | Path,
    source: str | Path | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Draw what a file shows again, write it in the file's own format and compare the pixels.

    Args:
        pipe: the pipeline that the recipe names.
        path: a picture, sheet or clip that mmgen wrote.
        source: the picture that was edited, or the clip that was gone on from.
        progress: called with steps done and steps in all, anew for every call of the pipeline.

    Raises:
        UserError: no picture of ours, a damaged recipe, or the source is missing or another one.
    """
    from mmgen.data.clips import file_frames
    from mmgen.sample.clip_files import is_film

    recipes = recipes_in(path)
    for recipe in recipes:
        parts = differing_parts(recipe["weights"], pipe.fingerprint)
        if parts:
            return Verdict(False, f"different weights: another {' and '.join(parts)}")
    drawn = [
        clip
        for _, part in groupby(recipes, _without_subject)
        for clip in _drawn(pipe, list(part), source, progress)
    ]
    clips = [
        [enlarged(frame, _scale(recipe)) for frame in clip] for clip, recipe in zip(drawn, recipes)
    ]
    if len(clips) > 1:
        clips = [[sheet([clip[0] for clip in clips], recipes)]]
    told = {"pictures": recipes} if len(recipes) > 1 else recipes[0]
    verdict = _compared(list(file_frames(Path(path))), _as_written(clips[0], path, told))
    return replace(verdict, said=verdict.said + _LOSSY) if is_film(path) else verdict


def _without_subject(recipe: Recipe) -> dict[str, Any]:
    """What pictures that are drawn together have in common."""
    return {"call": call_of(recipe), "edit": recipe.get("edit"), "by": shown_by(recipe)[0]}


def _drawn(
    pipe: Pipeline, recipes: list[Recipe], source: str | Path | None, progress: Progress | None
) -> list[Frames]:
    """Pictures of one call as clips of one frame, or clips."""
    call, seeds = call_of(recipes[0]), [seed_of(recipe) for recipe in recipes]
    argument, values = shown_by(recipes[0])[0], [shown_by(recipe)[1] for recipe in recipes]
    if "edit" in recipes[0]:
        output = _edited(
            pipe, recipes[0]["edit"], values, {**call, "seed": seeds}, source, progress
        )
    else:
        if argument == "frames":
            values = _beginnings(pipe, recipes, source)
        output = pipe(**{**call, argument: values}, seed=seeds, progress=progress)
    return output.frames or [[image] for image in output.images]


def _edited(
    pipe: Pipeline,
    told: Any,
    prompts: list[str],
    call: dict[str, Any],
    source: str | Path | None,
    progress: Progress | None,
) -> PipelineOutput:
    from mmgen.data.pictures import open_picture
    from mmgen.masks import hash_of, unpacked

    if source is None:
        raise UserError("The picture is an edit; give the one that was edited as --source FILE.")
    image = open_picture(source, str(source))
    if not isinstance(told, dict) or told.get("source") != hash_of(image):
        raise UserError(f"{source} is not the picture that was edited; its pixels are others.")
    call.pop("num_frames", None)  # an edit is a picture
    unit, order = call.pop("unit", None), str(call.pop("order", None)).split(":")
    if unit is None or len(order) != 4 or not order[3].isdecimal():
        raise UserError("The recipe in the picture has no order of an edit; it was changed.")
    where: dict[str, Any] = {
        name: _four(told[name]) for name in ("box", "outpaint") if name in told
    }
    if isinstance(told.get("mask"), str):
        where["mask"] = unpacked(told["mask"])
    return pipe.edit(image, prompts, steps=int(order[3]), progress=progress, **where, **call)


def _four(numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, list) or [type(number) for number in numbers] != [int] * 4:
        raise UserError("The recipe in the picture has no four numbers of an edit; it was changed.")
    return tuple(numbers)


def _beginnings(pipe: Pipeline, recipes: list[Recipe], source: str | Path | None) -> list[Any]:
    from mmgen.beginnings import clip_beginning

    if source is None:
        raise UserError(
            "The clip begins with a picture, or goes on from another clip; give that as --source "
            "FILE."
        )
    begun = [clip_beginning(pipe, source, number_in(recipe, "given", 1)) for recipe in recipes]
    return [replace(each.frames, prompt=prompt_of(r)) for each, r in zip(begun, recipes)]


def _scale(recipe: Recipe) -> int:
    return min(max(number_in(recipe, "scale", 1), 1), 64)


def _as_written(frames: Frames, like: str | Path, recipe: Recipe) -> Frames:
    """Frames as they come back from a file of the same format, which may be lossy."""
    from mmgen.data.clips import file_frames
    from mmgen.sample.clip_files import save_clip
    from mmgen.sample.pictures import save_picture

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"again{_ending_of(Path(like))}"
        if len(frames) > 1:
            save_clip(frames, path, recipe, rate_in(recipe))
        else:
            save_picture(frames[0], path, recipe)
        return list(file_frames(path))


def _ending_of(path: Path) -> str:
    """The ending that a file should have: films are known by it, pictures by their content."""
    from PIL import Image

    from mmgen.sample.clip_files import is_film

    if is_film(path):
        return path.suffix.lower()
    with Image.open(path) as picture:
        moves = getattr(picture, "is_animated", False)
        return ".apng" if moves and picture.format == "PNG" else ENDINGS[str(picture.format)]


def _compared(before: Sequence[Image.Image], after: Sequence[Image.Image]) -> Verdict:
    import numpy as np

    sizes = [[image.size for image in images] for images in (before, after)]
    if sizes[0] != sizes[1]:
        return Verdict(False, f"different: {_sizes(before)} in the file, {_sizes(after)} now")
    gaps = [
        abs(np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16))
        for one, other in zip(before, after)
    ]
    most, places = max(int(gap.max()) for gap in gaps), sum(int((gap > 0).sum()) for gap in gaps)
    all_frames = f"all {len(gaps)} frames" if len(gaps) > 1 else ""
    if most == 0:
        return Verdict(True, f"identical, {all_frames}" if all_frames else "identical")
    whole = sum(gap.size for gap in gaps)
    said = f"values differ by at most {most} of 255, {places} of {whole} values do"
    if all_frames:
        other = sum(gap.max() > 0 for gap in gaps)
        said += f", in {'all' if other == len(gaps) else other} of {len(gaps)} frames"
    if most == 1:
        said += " (as where a picture was drawn beside others, or on another processor)"
    return Verdict(False, said)


def _sizes(images: Sequence[Image.Image]) -> str:
    one = f"{images[0].width}x{images[0].height} pixels" if images else "nothing"
    return one if len(images) < 2 else f"{len(images)} frames of {one}"
