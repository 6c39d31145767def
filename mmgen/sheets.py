"""Pictures as files show them: enlarged, and several of them on a labelled sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmgen.recipes import Recipe, subject_of

if TYPE_CHECKING:
    from PIL import Image


def enlarged(image: Image.Image, scale: int) -> Image.Image:
    """A picture `scale` times as large, smoothly."""
    from PIL import Image

    size = (image.width * scale, image.height * scale)
    return image if scale == 1 else image.resize(size, Image.Resampling.BICUBIC)


def sheet(images: Sequence[Image.Image], recipes: Sequence[Recipe]) -> Image.Image:
    """Several pictures, each with what it shows and its seed.

    Where the font lacks letters of a prompt, the picture's number stands for it, from 1.
    """
    from mmgen.sample.pictures import grid, has_letters

    subjects = [subject_of(recipe) for recipe in recipes]
    shown = [text if has_letters(text) else str(i) for i, text in enumerate(subjects, start=1)]
    labels = [f"{text} ({recipe['seed']})" for text, recipe in zip(shown, recipes)]
    return grid(images, labels=labels)


def numbered(recipes: Sequence[Recipe]) -> str | None:
    """What to say of a sheet's labels that are numbers; None where all of them are words."""
    from mmgen.sample.pictures import has_letters

    if len(recipes) < 2 or all(has_letters(subject_of(recipe)) for recipe in recipes):
        return None
    return (
        "The sheet's font has Latin letters alone; other prompts stand as their picture's number."
    )
