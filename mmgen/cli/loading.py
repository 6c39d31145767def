"""What commands read: a pipeline onto a device, and pictures; and what they say of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.pipeline import Pipeline
    from mmgen.recipes import Recipe

MOST_THREADS = 1024  # more than any machine that this runs on has
MOST_PICTURES = 100_000  # of a prompt; what lies above is a slip of the pen


def check_threads(threads: int | None) -> None:
    """Refuse a number of CPU threads that no machine has.

    Raises:
        UserError: it is below 1 or huge.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UserError(f"--threads is {threads}; give a number from 1 to {MOST_THREADS}.")


def check_count(count: int) -> None:
    """Refuse a number of pictures that nobody wants.

    Raises:
        UserError: it is below 1 or huge.
    """
    if not 1 <= count <= MOST_PICTURES:
        raise UserError(f"--count is {count}; give a number from 1 to {MOST_PICTURES}.")


def check_model(model: str | None) -> None:
    """Refuse a wrong name before PyTorch loads and before anything is downloaded.

    Raises:
        UserError: there is no such pipeline.
    """
    from mmgen.pipeline_folder import locate_pipeline

    locate_pipeline(model)


def load(
    model: str | None,
    threads: int | None = None,
    device: str | None = None,
    text_encoder: str | None = None,
) -> Pipeline:
    """Load a pipeline onto a device, with so many CPU threads.

    Raises:
        UserError: there is no such pipeline or device.
    """
    from mmgen.devices import usable_device
    from mmgen.pipeline import Pipeline

    check_threads(threads)
    place = None if device is None else usable_device(device)  # before weights are read
    pipe = Pipeline.from_pretrained(model, text_encoder=text_encoder).to(place or usable_device())
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return pipe


def picture_at(path: Path) -> Image.Image:
    """The picture in a file, as RGB.

    Raises:
        UserError: there is no such file, or it is no picture.
    """
    from mmgen.data.pictures import BadSample, open_picture

    if not path.is_file():
        raise UserError(f"There is no file {path}; check the path.")
    try:
        return open_picture(path, str(path))
    except BadSample as error:
        raise UserError(f"{path} cannot be used: {error.reason}.") from None


def say_seed(asked: int | None, seeds: Sequence[int]) -> None:
    """Name the seed that draws the same again, if none was asked for."""
    if asked is None:
        print(f"mmgen: Drawn with --seed {seeds[0]}.", file=sys.stderr)


def say_what_is_numbered(recipes: Sequence[Recipe]) -> None:
    """Say that labels of a sheet are numbers, if they are."""
    from mmgen.sheets import numbered

    said = numbered(recipes)
    if said is not None:
        print(f"mmgen: {said}", file=sys.stderr)


def say_what_was_cut(pipe: Pipeline, prompts: Sequence[str]) -> None:
    """Name the prompts that are longer than what the pipeline reads."""
    from mmgen.prefixes import part_read

    for prompt in prompts:
        read = part_read(pipe, prompt)
        if read is not None:
            print(f"mmgen: The prompt is too long; only this was read: {read}", file=sys.stderr)
