"""Tables on the terminal: rich's where it is one, plain columns everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from mmgen.evaluation.tables import Table


def show(tables: Iterable[Table]) -> None:
    """Print tables, one below the other."""
    draw = _rich if sys.stdout.isatty() else _plain
    for table in tables:
        draw(table)


def _plain(table: Table) -> None:
    rows = [tuple(table.heads), *map(tuple, table.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.heads))]
    typer.echo(f"{table.title}:")
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths))
        typer.echo(f"  {'  '.join(cells)}".rstrip())
    typer.echo()


def _rich(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=table.title, title_justify="left")
    for head in table.heads:
        drawn.add_column(head, overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))  # what a cell says is no markup
    Console().print(drawn)
