"""A result: figures with the rules that they were measured by, as a file and side by side.

Two results may be compared only if their rules agree; what was measured (weights) and where
(versions, machine) may differ, and is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from mmgen.errors import DataError, UserError
from mmgen.files import read_json, write_json

FORMAT = "mmgen-eval-1"
_NAMED = 6  # differences that a refusal names; it counts the others


@dataclass(frozen=True)
class Result:
    """What one run of `mmgen eval` found.

    Args:
        kind: "real", "tokenizer", "generator" or "pictures".
        protocol: what must be the same for results to be compared.
        made_with: weights, versions and machine, which may differ.
        figures: the findings, nested by name.
    """

    kind: str
    protocol: dict[str, Any]
    made_with: dict[str, Any]
    figures: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write the result as JSON."""
        write_json(path, {"format": FORMAT, **_finite(asdict(self))})

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a result.

        Raises:
            DataError: the file holds something else.
        """
        data = read_json(path)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise DataError(f"{path} is no result of mmgen eval; write one with --json {path}.")
        parts = {name: data.get(name) for name in ("protocol", "made_with", "figures")}
        if not all(isinstance(part, dict) for part in parts.values()):
            raise DataError(f"{path} is damaged: a part is missing; measure again.")
        return cls(str(data.get("kind")), **parts)  # type: ignore[arg-type]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts as one, whose names are paths with dots; lists are leaves."""
    if not isinstance(value, dict):
        return {name: value}
    found = dict[str, Any]()
    for key, item in value.items():
        found |= flat(item, f"{name}.{key}" if name else str(key))
    return found


def differences(a: Result, b: Result) -> dict[str, tuple[Any, Any]]:
    """Rules that differ, by path."""
    left, right = (flat(_finite({"kind": each.kind, **each.protocol})) for each in (a, b))
    names = [*left, *(name for name in right if name not in left)]
    return {
        name: (left.get(name, "-"), right.get(name, "-"))
        for name in names
        if left.get(name, "-") != right.get(name, "-")
    }


@dataclass(frozen=True)
class Row:
    """A figure of two results; None where one of them lacks it."""

    name: str
    a: float | None
    b: float | None

    @property
    def change(self) -> float | None:
        """From the first result to the second."""
        return None if self.a is None or self.b is None else self.b - self.a


def compare(a: Result, b: Result, despite: Sequence[str] = ()) -> list[Row]:
    """The numbers of two results side by side.

    Args:
        a: the first, `b`: the second.
        despite: paths of rules that are meant to differ, or their beginnings.

    Raises:
        UserError: the results follow different rules.
    """
    found = differences(a, b)
    for word in despite:
        if not any(_under(name, word) for name in found):
            raise UserError(f"The results do not differ in '{word}'; leave that --despite out.")
    unmeant = {n: v for n, v in found.items() if not any(_under(n, w) for w in despite)}
    if unmeant:
        said = "; ".join(f"{n} is {_short(x)} and {_short(y)}" for n, (x, y) in unmeant.items())
        if len(unmeant) > _NAMED:
            named = list(unmeant)[:_NAMED]
            said = f"{', '.join(named)} and {len(unmeant) - _NAMED} more"
        raise UserError(
            f"The results were measured by different rules and cannot be compared: {said}. "
            "Measure both alike, or name a rule that is meant to differ with --despite."
        )
    left, right = (
        {n: float(v) for n, v in flat(_finite(each.figures)).items() if _is_number(v)}
        for each in (a, b)
    )
    names = [*left, *(name for name in right if name not in left)]
    return [Row(name, left.get(name), right.get(name)) for name in names]


def _under(name: str, word: str) -> bool:
    return name == word or name.startswith(f"{word}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _finite(value: Any) -> Any:
    """What JSON brings back: lists for tuples, None for numbers that are none."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
