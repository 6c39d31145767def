"""`mmgen experiment`: train variants of a recipe, measure them alike, and lay them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli.places import check_folder
from mmgen.cli.tables import show
from mmgen.progress import progress_of


def experiment(
    source: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT", help="A YAML file, or the name of a shipped experiment."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Changes to the experiment, such as change.train.steps=1000 (of every variant).",
        ),
    ] = None,
    *,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show what would run and leave.")
    ] = False,
) -> None:
    """Compare variants of a recipe: a table and a picture. Run again, it goes on where it was."""
    with progress_of("Loading"):
        from mmgen.experiments.planning import runs_of
        from mmgen.experiments.settings import load_experiment

        told = load_experiment(source, overrides or ())
        runs = runs_of(told)
    if print_config:
        from mmgen.train.recipe import dump

        typer.echo(dump(told), nl=False)
        for each in runs:
            typer.echo(f"# {each.title}: {each.recipe.train.steps} steps into {each.folder}")
        return
    check_folder(Path(told.out))
    with progress_of("Loading"):
        from mmgen.experiments.running import run_experiment

    report = run_experiment(told, typer.echo)
    show(report.tables)
    for file in report.files:
        typer.echo(str(file))
