"""`mmgen doctor`: what runs here, and why."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Say which device, type, attention, kernels and extras are used here, and why."""
    from mmgen.doctor import findings

    rows = findings()
    width = max(len(row.topic) for row in rows)
    for row in rows:
        typer.echo(f"{row.topic:<{width}}  {row.found}")
        if row.why:
            typer.echo(f"{'':<{width}}  ({row.why})")
