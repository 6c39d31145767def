"""`mmgen show`: the card of a model."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def show(
    name: Annotated[
        str,
        typer.Argument(help="A shipped pipeline, a folder, or an entry of `mmgen models`."),
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The same, as JSON.")] = False,
) -> None:
    """Say what is known of a model: task, sizes, units, parameters, licence, figures."""
    from mmgen.showing import show as describe

    described = describe(name)
    if as_json:
        typer.echo(json.dumps(_joined(described), indent=2, ensure_ascii=False))
        return
    width = max(map(len, described))
    for topic, value in described.items():
        for i, line in enumerate(_lines(value)):
            typer.echo(f"{'' if i else topic:<{width}}  {line}")


def _joined(value: Any) -> Any:
    """The same, without spaces in keys."""
    if isinstance(value, dict):
        return {name.replace(" ", "_"): _joined(item) for name, item in value.items()}
    return value


def _lines(value: Any) -> list[str]:
    """A value in lines; nothing for what is empty."""
    if isinstance(value, dict):
        pairs = [(name, _lines(item)) for name, item in value.items()]
        return [f"{name}: {', '.join(lines)}" for name, lines in pairs if lines]
    if isinstance(value, (list, tuple)):
        return [line for item in value for line in _lines(item)]
    if isinstance(value, float):
        return [f"{value:.4g}"]
    if isinstance(value, int) and not isinstance(value, bool):
        return [f"{value:,}"]
    return [str(value)] if value not in (None, "") else []
