"""`mmgen score`: which of several texts fits a picture best."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mmgen.cli.caption import as_data
from mmgen.cli.loading import check_model, check_threads, load, picture_at, say_what_was_cut
from mmgen.cli.options import AsJson, Device, Model, Picture, Threads
from mmgen.errors import UserError
from mmgen.progress import progress_of
from mmgen.scoring import way_in


def score(
    image: Picture,
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help="Texts, each in quotes.")
    ],
    *,
    by: Annotated[
        str,
        typer.Option(
            help="caption: how likely a text is for the picture; picture: how likely the picture "
            "is for a text."
        ),
    ] = "caption",
    unit: Annotated[
        str | None,
        typer.Option(help="Schedule that the picture is read or drawn by; default: the usual one."),
    ] = None,
    as_json: AsJson = False,
    threads: Threads = None,
    device: Device = None,
    model: Model = None,
) -> None:
    """Rank texts by how well they fit a picture: log-likelihood, mean of the tokens, best first."""
    check_threads(threads)
    way = way_in(by)
    if way == "caption" and not all(text.strip() for text in prompts):
        raise UserError("One of the texts is empty; give words, or score --by picture.")
    check_model(model)
    with progress_of("Scoring") as update:
        picture = picture_at(image)
        pipe = load(model, threads, device)
        found = pipe.score(picture, prompts, by=way, unit=unit, progress=update)
    say_what_was_cut(pipe, prompts)
    found.sort(key=lambda each: -each.mean)
    if as_json:
        told = [{"prompt": each.text, **as_data(each)} for each in found]
        lines = (json.dumps(each, ensure_ascii=False) for each in told)  # tokens may be hundreds
        typer.echo("[" + ",\n ".join(lines) + "]")
        return
    typer.echo(f"{'a token':>9}  {'total':>9}  tokens  prompt")
    for each in found:
        count = len(each.tokens)
        typer.echo(f"{each.mean:>9.3f}  {each.total:>9.2f}  {count:>6}  {each.text}")
