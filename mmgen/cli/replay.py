"""`mmgen replay`: draw a picture again from its own metadata and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli.loading import check_threads, load
from mmgen.cli.options import Device, Threads
from mmgen.errors import UserError
from mmgen.progress import progress_of


def replay(
    picture: Annotated[
        Path,
        typer.Argument(metavar="PICTURE", help="A picture, sheet or clip that mmgen wrote."),
    ],
    *,
    source: Annotated[
        Path | None,
        typer.Option(help="The picture that was edited, or the clip that was gone on from."),
    ] = None,
    threads: Threads = None,
    device: Device = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder of the pipeline; default: the shipped one that the picture names."
        ),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="T5 folder or hub name, for published weights that draw from text."),
    ] = None,
) -> None:
    """Draw a picture again from its metadata; exit code 0 if all pixels agree, 1 if not."""
    from mmgen.pipeline_folder import shipped_pipelines
    from mmgen.recipes import in_words
    from mmgen.replaying import recipes_in, replay

    check_threads(threads)
    if source is not None and not source.exists():
        raise UserError(f"There is no file {source}; check the path.")
    recipes = recipes_in(picture)
    recipe = recipes[0]
    if source is not None and not any({"edit", "frames"} & told.keys() for told in recipes):
        raise UserError(f"{picture} was drawn from no other file; leave out --source.")
    name = recipe.get("model")
    if model is None and name not in shipped_pipelines():
        raise UserError(
            f"{picture} was drawn by '{name}', which does not come with mmgen; give its folder as "
            "--model FOLDER."
        )
    with progress_of("Drawing again") as update:
        pipe = load(model or name, threads, device, text_encoder)
        if recipe.get("stored_as") == "int8":
            pipe.to(weights="int8")
        verdict = replay(pipe, picture, source, update)
    typer.echo(f"{picture}: {verdict.said}")
    for told in recipes:
        typer.echo(f"  {in_words(told)}")
    raise typer.Exit(0 if verdict.same else 1)
