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
    """Several pictures, each with what it shows and its seed."""
    from mmgen.sample.pictures import grid

    labels = [f"{subject_of(recipe)} ({recipe['seed']})" for recipe in recipes]
    return grid(images, labels=labels)
