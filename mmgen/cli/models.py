"""`mmgen models`: the shipped pipeline, and published checkpoints that `mmgen import` reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmgen.published.catalogue import Card


def models(
    system: Annotated[
        str | None, typer.Argument(metavar="[SYSTEM]", help="Only this one's, such as llamagen.")
    ] = None,
    *,
    task: Annotated[
        str | None, typer.Option(help="Only these, such as class-to-image or tokenizer.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything known, as JSON.")] = False,
) -> None:
    """List the shipped pipeline, and published checkpoints and how to import them."""
    chosen = _chosen(system, task)
    if as_json:
        described = [{**asdict(card), "import": _import_line(card)} for card in chosen]
        typer.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    for line in table(chosen):
        typer.echo(line)


def _chosen(system: str | None, task: str | None) -> list[Card]:
    """The cards that were asked for.

    Raises:
        UserError: there is no such system or task, or none of both.
    """
    from mmgen.errors import UserError, suggestion
    from mmgen.published.catalogue import SYSTEMS, cards, refuse_system, tasks
    from mmgen.showing import SHIPPED, shipped_cards

    if system is not None:
        refuse_system(system, (SHIPPED, *SYSTEMS))
    if task is not None and task not in tasks():
        raise UserError(f"There is no task '{task}'{suggestion(task, tasks())}")
    own = [card for card in (*shipped_cards(), *cards()) if system in (None, card.system)]
    chosen = [card for card in own if task in (None, card.task)]
    if not chosen:
        there = ", ".join(dict.fromkeys(card.task for card in own))
        raise UserError(f"Nothing of {system} is for {task}; its tasks are: {there}.")
    return chosen


def table(chosen: list[Card]) -> list[str]:
    """The cards in columns that a terminal of 80 has; notes below, since many share one."""
    notes = list(dict.fromkeys(card.note for card in chosen if card.note))
    rows = [("system", "name", "task", "size", "licence", "note")]
    for card in chosen:
        note = str(notes.index(card.note) + 1) if card.note else ""
        size, licence = _size(card.megabytes), card.licence or "not stated"
        rows.append((card.system, card.name, card.task, size, licence, note))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths)).rstrip() for row in rows]
    lines += ["", "`mmgen show SYSTEM/NAME` says where a model is, and what it needs beside it."]
    lines += [f"note {i}: {note}" for i, note in enumerate(notes, start=1)]
    published = [line for card in chosen if (line := _import_line(card))]
    return [*lines, "", "Import one so:", published[0]] if published else lines


def _import_line(card: Card) -> str | None:
    from mmgen.showing import SHIPPED

    return None if card.system == SHIPPED else card.import_line


def _size(megabytes: int | None) -> str:
    if megabytes is None:
        return "?"
    return f"{megabytes} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"
