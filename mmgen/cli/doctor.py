"""`mmgen doctor`: what runs here, and why."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Say what runs here, and why. Device, number type, attention, kernels, threads and extras."""
    from mmgen.doctor import findings

    rows = findings()
    width = max(len(row.topic) for row in rows)
    for row in rows:
        typer.echo(f"{row.topic:<{width}}  {row.found}")
        if row.why:
            typer.echo(f"{'':<{width}}  ({row.why})")
