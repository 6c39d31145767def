"""Official configuration names into frozen dataclasses, with the strict reader of our own files."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmgen.config import from_dict
from mmgen.errors import CheckpointError, ConfigError, suggestion
from mmgen.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
LARGEST = 2**31  # of any size among the options


class UnknownOptions(ConfigError):
    """Options under names that a component does not have.

    Args:
        where: what to call the component in messages.
        names: the ones that are not known.
        known: what would have been.
        verb: "have" of several.
    """

    def __init__(
        self, where: str, names: Sequence[str], known: Sequence[str], verb: str = "has"
    ) -> None:
        super().__init__(f"{where} {verb} no option '{names[0]}'{suggestion(names[0], known)}")
        self.names = names
        self.known = known


def official(
    kind: type[T], options: Mapping[str, Any], where: str, ignored: Collection[str] = ()
) -> T:
    """Read options under their official names.

    Args:
        kind: a frozen dataclass whose fields have the official names.
        options: what the user said, over what was inferred from the file.
        where: what to call the file in messages.
        ignored: official names that do not matter for inference, such as dropout rates.

    Raises:
        ConfigError: a value of another type; `UnknownOptions` with a suggestion.
    """
    known = [field.name for field in fields(kind) if field.init]  # type: ignore[arg-type]
    unknown = [str(name) for name in options if name not in known and name not in ignored]
    if unknown:
        raise UnknownOptions(where, unknown, [*known, *ignored])
    kept = {name: value for name, value in options.items() if name in known}
    return from_dict(kind, kept, f"options of {where}")


def refuse_absurd(options: Any, name: str = "") -> None:
    """Refuse numbers that no network has: infinite, or as large as a petabyte of weights.

    Args:
        options: a mapping, with what is nested in it.
        name: where it lies, dotted.

    Raises:
        ConfigError: names the first one.
    """
    if isinstance(options, Mapping):
        for key, value in options.items():
            refuse_absurd(value, f"{name}.{key}" if name else str(key))
    elif isinstance(options, (list, tuple)):
        for value in options:
            refuse_absurd(value, name)
    elif isinstance(options, (int, float)) and not abs(options) < LARGEST:
        said = str(options) if isinstance(options, float) else f"{float(str(options)[:300]):g}"
        raise ConfigError(f"{name} cannot be {said}; give the value that it was trained with.")


def whole(options: Mapping[str, Any], name: str, default: int, where: str, least: int = 0) -> int:
    """A whole number among options that were not read yet.

    Args:
        options: what the user said.
        name: of the option.
        default: what it is where nothing was said.
        where: what to call the file in messages.
        least: the smallest that it may be.

    Raises:
        ConfigError: it is no whole number, or too small.
    """
    value = options.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(
            f"{name} of {where} must be a whole number from {least} on, not {value!r}."
        )
    return value


def refuse_contradictions(options: Any, told: Mapping[str, Any], where: str) -> None:
    """Refuse options that say something else than the tensors.

    Args:
        options: a mapping, or a dataclass with None where nothing was said.
        told: what the tensors tell, under official names.
        where: what to call the file in messages.

    Raises:
        ConfigError: names the first one.
    """
    given = options if isinstance(options, Mapping) else vars(options)
    for name, value in told.items():
        said = given.get(name)
        if said is not None and _plain(said) != _plain(value):
            raise ConfigError(f"{where} has {name} {value}, not {said!r}; leave that option out.")


def refuse_groups(widths: Collection[int], option: str, groups: int, where: str) -> None:
    """Refuse groups of a norm that do not divide the channels of every layer.

    Args:
        widths: channels of the layers.
        option: official name of the number of groups.
        groups: its value.
        where: what to call the file in messages.

    Raises:
        ConfigError: names the first width.
    """
    odd = next((width for width in widths if groups < 1 or width % groups), None)
    if odd is not None:
        raise ConfigError(
            f"{where} has layers of {odd} channels, which {option} {groups} does not divide; give "
            f"{option}=N, as it was trained."
        )


def refuse_other_ranks(tensors: Mapping[str, Tensor], ranks: Mapping[str, int], where: str) -> None:
    """Refuse tensors with more or fewer axes than the layout has.

    Args:
        tensors: by official key.
        ranks: number of axes by the pattern of a whole key.
        where: what to call the file in messages.

    Raises:
        CheckpointError: names the first one.
    """
    for pattern, rank in ranks.items():
        for key, tensor in tensors.items():
            if tensor.ndim != rank and re.fullmatch(pattern, key):
                raise CheckpointError(
                    f"{where} holds '{key}' of shape {tuple(tensor.shape)}, which should have "
                    f"{rank} axes; get the file again."
                )


def read_options(file: Path | None, words: Collection[str]) -> dict[str, Any]:
    """Options of a command line: a JSON file, then `key=value` words over it.

    The file holds the official names, or a whole reference case, of which they are the `config`.

    Raises:
        UserError: the file is not a JSON mapping, or a word is not `key=value`.
    """
    from mmgen.train.recipe import override

    data = {} if file is None else read_json(file)
    if isinstance(data, dict) and isinstance(data.get("system"), str):
        data = data.get("config")  # a reference case, which describes more than the configuration
    if not isinstance(data, dict):
        raise ConfigError(f"{file} must hold a mapping of option names to values.")
    for word in words:
        data = override(data, word)
    return data


def assumed(given: Any, told: Collection[str], names: Collection[str]) -> dict[str, Any]:
    """Options that nobody told, with the value that they are taken to have.

    Args:
        given: the dataclass of the options.
        told: names of those that the user or the tensors told.
        names: those that change what the network does.
    """
    return {name: getattr(given, name) for name in names if name not in told}


def spelled(value: Any) -> str:
    """A value as it is written behind `key=` on the command line."""
    return json.dumps(value) if isinstance(value, (list, tuple, bool)) else str(value)


def _plain(value: Any) -> Any:
    """Lists as the tuples that they are read into."""
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value
