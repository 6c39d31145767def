"""`mmgen data`: make and inspect data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make data sets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make data sets."""
    # Without a callback typer would run a lone command directly, without its name.


@app.command()
def emoji(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write the shards (.tar files) to.")
    ],
    size: Annotated[int, typer.Option(help="Pixels a side: 16, 32, 64, 128 or 256.")] = 64,
    packages: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the six .tgz files of `npm pack`; default: npm fetches them."
        ),
    ] = None,
) -> None:
    """Build the captioned emoji set. It holds 7782 pictures in six styles, from npm packages."""
    from mmgen.cli.places import check_folder
    from mmgen.data.emoji import build_emoji
    from mmgen.progress import progress_of

    check_folder(out)
    with progress_of("Drawing emoji") as update:
        manifest = build_emoji(out, size, packages, update)
    counts = ", ".join(f"{name} {facts['count']}" for name, facts in manifest["splits"].items())
    typer.echo(f"Wrote {out} ({counts}). The pictures' licences are in {out / 'LICENSES.md'}.")
