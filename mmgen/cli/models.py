"""`mmgen models`: published checkpoints that `mmgen import` reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmgen.published.catalogue import Card


def models(
    *,
    task: Annotated[
        str | None, typer.Option(help="Only these, such as class-to-image or tokenizer.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything known, as JSON.")] = False,
) -> None:
    """List published checkpoints and how to import them."""
    from mmgen.errors import UserError, suggestion
    from mmgen.published.catalogue import cards, tasks

    if task is not None and task not in tasks():
        raise UserError(f"There is no task '{task}'{suggestion(task, tasks())}")
    chosen = [card for card in cards() if task in (None, card.task)]
    if as_json:
        described = [{**asdict(card), "import": card.import_line} for card in chosen]
        typer.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    for line in table(chosen):
        typer.echo(line)


def table(chosen: list[Card]) -> list[str]:
    """The cards in columns, under a heading."""
    rows = [("system", "name", "task", "size", "licence", "where")]
    for card in chosen:
        where = card.repository or f"not on the hub: {' '.join(card.files)}"
        licence = card.licence or "not stated"
        rows.append((card.system, card.name, card.task, _size(card.megabytes), licence, where))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths)).rstrip() for row in rows]
    example = chosen[0].import_line
    return [*lines, "", f"Import one so: {example}"]


def _size(megabytes: int | None) -> str:
    if megabytes is None:
        return "?"
    return f"{megabytes} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"
