"""`mmgen orders`: draw decoding orders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def orders(
    order: Annotated[
        list[str],
        typer.Argument(
            metavar="ORDER",
            help="Orders such as raster, row:1, frame:1, cell:4, block:1x2x4, run:16, neighbor, "
            "subsample:4, random:0:8, locality:0:8, interlace:1,2,4,8, scale:1,2,4,8 or whole.",
        ),
    ],
    *,
    grid: Annotated[str, typer.Option(help="Visual tokens as HxW or TxHxW.")] = "8x8",
    prediction: Annotated[
        str | None,
        typer.Option(
            help="Which hidden states predict a block: shift, neighbors or self; default: what the "
            "order is used with."
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            help="How the first block of shift begins: from learned tokens, token by token "
            "(hybrid), or after given frames: learned, hybrid or given."
        ),
    ] = "learned",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write to; it is made if it is missing.")
    ] = Path("."),
    gif: Annotated[bool, typer.Option("--gif", help="Also write an animation.")] = False,
) -> None:
    """Draw decoding orders. They say when each token of a picture or clip is decided."""
    from mmgen.cli.places import check_folder
    from mmgen.models.schedule import describe, parse_grid
    from mmgen.orders import save_order

    sizes = parse_grid(grid)
    check_folder(out)
    for spelling in order:
        plan, files = save_order(spelling, sizes, out, prediction=prediction, start=start, gif=gif)
        names = " and ".join(str(file) for file in files)
        typer.echo(f"{describe(plan.schedule)}; {plan.steps} steps by {plan.prediction}: {names}")
