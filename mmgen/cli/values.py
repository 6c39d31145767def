"""Values of options: read, or refused in one sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.errors import UserError

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline

_LINE_END = re.compile(r"\r\n|\n|\r")  # and not what else `splitlines` cuts at


def prompts_in(file: Path | None) -> list[str]:
    """The lines of a text file, or of standard input if it is called `-`; empty ones are left out.

    Raises:
        UserError: it cannot be read, or has no lines.
    """
    if file is None:
        return []
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        lines = [line.strip() for line in _LINE_END.split(data.decode("utf-8-sig"))]
    except FileNotFoundError:
        raise UserError(f"There is no file {file}; check the path.") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not text in UTF-8; save it as such.") from None
    found = [line for line in lines if line]
    if not found:
        raise UserError(f"{file} holds no prompts; write one a line.")
    return found


def size_in(words: str | None) -> tuple[int, int] | None:
    """Height and width, given as `HxW` or as one number for both.

    Raises:
        UserError: anything else.
    """
    if words is None:
        return None
    sizes = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", words)
    if sizes is None:
        raise UserError(f"--size is '{words}'; give pixels as 64 or 64x64 (height x width).")
    return int(sizes[1]), int(sizes[2] or sizes[1])


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse values that no weights take, before any are loaded.

    Args:
        settings: arguments of a pipeline's call; those that it does not check here may be there.

    Raises:
        UserError: a seed, a guidance, or a filter of the draws outside its range.
    """
    from mmgen.noise import picture_seeds
    from mmgen.pipeline_folder import SamplingDefaults
    from mmgen.request import settings_of

    if settings.get("seed") is not None:
        picture_seeds(settings["seed"], settings["num_images_per_prompt"])
    plain = ("guidance_interval", "guidance_ramp", "top_k", "top_p", "min_p")
    given: dict[str, Any] = {name: settings.get(name) for name in plain}
    settings_of(SamplingDefaults(), **given)
    for name in ("guidance_scale", "temperature"):  # a list has one for each sub-token
        value = settings.get(name)
        count = len(value) if isinstance(value, list) else 1
        settings_of(SamplingDefaults(), count, **{name: value})


def check_size(pipe: Pipeline, size: tuple[int, int] | None) -> None:
    """Refuse a size that the weights do not draw: each place of their grid was learned.

    Raises:
        UserError: any size but that of the training.
    """
    side = pipe.info.image_size
    if size not in (None, (side, side)):
        _, h, w = pipe.grid
        raise UserError(
            f"--size is {size[0]}x{size[1]}; the weights of '{pipe.info.name}' learned the places "
            f"of a grid of {h}x{w} tokens, so {side}x{side} is the size that works (--scale "
            "enlarges it)."
        )


def classes_in(words: list[str] | None) -> list[int] | None:
    """Numbers of classes.

    Raises:
        UserError: one is no whole number.
    """
    return [_class(word) for word in words] if words else None


def _class(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UserError(
            f"--class is '{word}'; give the number of a class, such as 207, or a prompt where the "
            "weights draw from text."
        ) from None


def numbers_in(option: str, words: str | None) -> float | list[float] | None:
    """A number, or several between commas.

    Raises:
        UserError: anything else.
    """
    if words is None:
        return None
    try:
        numbers = [float(word) for word in words.split(",")]
    except ValueError:
        raise UserError(f"{option} is '{words}'; give a number, or several as 1.9,2.0.") from None
    return numbers if len(numbers) > 1 else numbers[0]


def counts_in(option: str, words: str | None) -> int | list[int] | None:
    """A whole number, or several between commas.

    Raises:
        UserError: anything else.
    """
    if words is None:
        return None
    try:
        counts = [int(word) for word in words.split(",")]
    except ValueError:
        raise UserError(
            f"{option} is '{words}'; give a whole number, or several as 50,38,26,15."
        ) from None
    return counts if len(counts) > 1 else counts[0]


def interval_in(words: str | None) -> tuple[float, float] | None:
    """Two shares, given as `0.1:0.8`.

    Raises:
        UserError: anything else.
    """
    if words is None:
        return None
    try:
        start, stop = map(float, words.split(":"))
    except ValueError:
        raise UserError(
            f"--guidance-interval is '{words}'; give two shares, such as 0.1:0.8."
        ) from None
    return start, stop
