"""What the files of pictures say: everything that draws them again, as JSON.

A recipe names the program, the weights and a call's settings. `call_of` reads one back; it may come
from any file, so nothing in it is believed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import mmgen
from mmgen.errors import UserError
from mmgen.files import FPS

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline
    from mmgen.request import Request

Recipe = dict[str, Any]

_LONG = ("mmgen", "weights", "edit")
PARTS = ("text tokenizer", "transformer", "visual tokenizer")  # of the hash of the weights


def recipes_of(pipe: Pipeline, request: Request) -> list[Recipe]:
    """The recipe of each picture of a request."""
    weights = {"mmgen": mmgen.__version__, "model": pipe.info.name, "weights": pipe.fingerprint}
    if pipe.is_int8:
        weights["stored_as"] = "int8"
    return [{**weights, **request.recipe(i)} for i in range(len(request.subjects))]


def subject_of(recipe: Recipe) -> str:
    """What a picture shows, in words."""
    named = recipe.get("prompt", recipe.get("frames"))
    return f"class {recipe['class_label']}" if named is None else str(named)


def in_words(recipe: Recipe) -> str:
    """What a recipe tells, in one line: all but hashes and masks."""
    told = {k: v for k, v in recipe.items() if k not in _LONG and v not in (None, "")}
    return ", ".join(f"{k} {json.dumps(v, ensure_ascii=False)}" for k, v in told.items())


def differing_parts(one: str, other: str) -> list[str]:
    """Names of the parts whose hashes differ, of two fingerprints of pipelines."""
    hashes, others = one.split("-"), other.split("-")
    if len(hashes) != len(others):
        return ["kind of pipeline"]
    names = PARTS[-len(hashes) :]
    return [name for name, a, b in zip(names, hashes, others) if a != b]


def call_of(recipe: Recipe) -> dict[str, Any]:
    """The settings of the call that a recipe tells of, but for what it shows and its seed.

    Raises:
        UserError: something is missing, or of another kind.
    """
    names = [name for name in _SETTINGS if name in recipe]
    call = {name: _checked(recipe, name, _SETTINGS[name]) for name in names}
    if call.get("guidance_interval") is None:
        call.pop("guidance_interval", None)
    return call


def shown_by(recipe: Recipe) -> tuple[str, Any]:
    """Which argument of a call says what a picture shows, and its value.

    Raises:
        UserError: there is none, or it is of another kind.
    """
    if "frames" in recipe:  # with or without a prompt
        return "frames", _checked(recipe, "frames", _text)
    for name, argument in (("prompt", "prompt"), ("class_label", "class_labels")):
        if name in recipe:
            return argument, _checked(recipe, name, _SUBJECTS[name])
    return "prompt", _checked(recipe, "prompt", _text)


def prompt_of(recipe: Recipe) -> str:
    """What a clip that goes on from frames shows; "" where the recipe does not say.

    Raises:
        UserError: it is of another kind.
    """
    prompt: str = _checked({"prompt": "", **recipe}, "prompt", _text)
    return prompt


def seed_of(recipe: Recipe) -> int:
    """The seed of a picture.

    Raises:
        UserError: there is none.
    """
    seed: int = _checked(recipe, "seed", _whole)
    return seed


def number_in(recipe: Recipe, name: str, usual: int) -> int:
    """A whole number of a recipe, or the usual one if it is silent.

    Raises:
        UserError: it is of another kind.
    """
    number: int = _checked({name: usual, **recipe}, name, _whole)
    return number


def rate_in(recipe: Recipe) -> float:
    """Frames a second of a clip, or the usual ones if the recipe is silent.

    Raises:
        UserError: it is no number.
    """
    rate: float = _checked({"fps": FPS, **recipe}, "fps", _number)
    return rate


Kind = Callable[[Any], bool]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _one_or_more(kind: Kind) -> Kind:
    return lambda value: kind(value) or (isinstance(value, list) and all(map(kind, value)))


def _pair(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and len(value) == 2 and all(map(_number, value))
    )


_SUBJECTS: dict[str, Kind] = {"prompt": _text, "class_label": _whole}
_SETTINGS: dict[str, Kind] = {
    "negative_prompt": _text,
    "num_frames": _whole,
    "unit": _text,
    "order": _text,
    "guidance_scale": _one_or_more(_number),
    "guidance_interval": _pair,
    "guidance_ramp": _text,
    "temperature": _one_or_more(_number),
    "top_k": _whole,
    "top_p": _number,
    "min_p": _number,
    "solver": _text,
    "num_inference_steps": _one_or_more(_whole),
    "reproducible": _truth,
}


def _checked(recipe: Recipe, name: str, kind: Kind) -> Any:
    if name not in recipe or not kind(recipe[name]):
        said = f"{name} {recipe[name]!r}" if name in recipe else f"no {name}"
        raise UserError(f"The recipe in the picture has {said[:200]}; it was damaged or changed.")
    return recipe[name]
