"""`mmgen export`: write networks in the layouts of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Write networks in other libraries' layouts.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Write networks in other libraries' layouts."""
    # Without a callback typer would run a lone command directly, without its name.


@app.command()
def diffusers(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of a KL tokenizer or pipeline.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.")],
) -> None:
    """Write a KL tokenizer as a folder that AutoencoderKL.from_pretrained of diffusers reads."""
    from mmgen.cli.places import check_folder
    from mmgen.files import refuse_taken
    from mmgen.pipeline_folder import tokenizer_folder

    check_folder(out.parent)
    refuse_taken(out)
    folder = tokenizer_folder(model)
    # Only now what needs torch: a mistake is refused at once.
    from mmgen.components import load_component
    from mmgen.published.diffusers_kl_export import export

    export(load_component(folder), out, str(folder))
    typer.echo(f"written: {out}")
