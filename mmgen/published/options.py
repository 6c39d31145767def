"""Official configuration names into frozen dataclasses, with the strict reader of our own files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from mmgen.config import from_dict
from mmgen.errors import ConfigError, suggestion
from mmgen.files import read_json

T = TypeVar("T")


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
        ConfigError: an unknown name (with a suggestion), or a value of another type.
    """
    known = [field.name for field in fields(kind) if field.init]  # type: ignore[arg-type]
    for name in options:
        if name not in known and name not in ignored:
            hint = suggestion(str(name), [*known, *ignored])
            raise ConfigError(f"{where} has no option '{name}'{hint}")
    kept = {name: value for name, value in options.items() if name in known}
    return from_dict(kind, kept, f"options of {where}")


def refuse_contradictions(facts: Mapping[str, Any], options: Mapping[str, Any], where: str) -> None:
    """Refuse options that the tensors contradict.

    Raises:
        ConfigError: names the first one.
    """
    for name, fact in facts.items():
        if options.get(name, fact) != fact:
            raise ConfigError(
                f"{where} has {name} {fact}, not {options[name]!r}; leave that option out."
            )


def read_options(file: Path | None, words: Collection[str]) -> dict[str, Any]:
    """Options of a command line: a JSON file, then `key=value` words over it.

    Raises:
        UserError: the file is not a JSON mapping, or a word is not `key=value`.
    """
    from mmgen.train.recipe import override

    data = {} if file is None else read_json(file)
    if not isinstance(data, dict):
        raise ConfigError(f"{file} must hold a mapping of option names to values.")
    for word in words:
        data = override(data, word)
    return data
