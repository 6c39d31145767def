"""`mmgen bench`: how fast this machine draws, and what limits it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from mmgen.cli.options import Model
from mmgen.errors import UserError, suggestion

if TYPE_CHECKING:
    from mmgen.bench.report import Report
    from mmgen.pipeline import Pipeline

app = typer.Typer(help="Measure how fast this machine draws.", no_args_is_help=True)


@app.callback()
def _bench() -> None:
    """Measure how fast this machine draws."""


@app.command()
def sample(
    *,
    model: Model = None,
    random: Annotated[
        str | None,
        typer.Option(
            metavar="SYSTEM/PRESET",
            help="A published size with random weights instead, such as llamagen/GPT-B.",
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Pictures drawn together; several as 1,4.")] = "1",
    weights: Annotated[
        str, typer.Option(help="How weights are stored: float, int8; both as float,int8.")
    ] = "float",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the fastest counts.")] = 3,
    unit: Annotated[str | None, typer.Option(help="What is predicted at a time.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="1 leaves the unconditional branch out.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything measured, as JSON.")] = False,
) -> None:
    """Draw, and report pictures a second, time a step, bytes read a second, and memory."""
    if model is not None and random is not None:
        raise UserError("Give --model or --random, not both.")
    settings: dict[str, Any] = {"unit": unit, "guidance_scale": guidance}
    given = {key: value for key, value in settings.items() if value is not None}
    batches, stored = _batches(batch), _stored(weights)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    report = _measure(_pipeline(model, random), stored, batches, repeats, given)
    for line in [json.dumps(report.described(), indent=2)] if as_json else report.lines():
        typer.echo(line)


def _measure(
    pipe: Pipeline, stored: list[Any], batches: list[int], repeats: int, settings: dict[str, Any]
) -> Report:
    from mmgen.bench.machine import look_around
    from mmgen.bench.report import Report
    from mmgen.bench.sampling import decoding_seconds, measure

    machine = look_around()
    parameters = sum(p.numel() for p in pipe.transformer.parameters())
    figures = [each for way in stored for each in measure(pipe, way, batches, repeats, **settings)]
    pixels = decoding_seconds(pipe, **settings)
    return Report(pipe.info.name, parameters, settings, machine, figures, pixels)


def _pipeline(model: str | None, random: str | None) -> Pipeline:
    if random is not None:
        from mmgen.bench.random_weights import random_pipeline

        return random_pipeline(random)
    from mmgen.pipeline import Pipeline

    return Pipeline.from_pretrained(model)


def _batches(words: str) -> list[int]:
    try:
        batches = [int(word) for word in words.split(",")]
    except ValueError:
        batches = [0]
    if min(batches) < 1:
        raise UserError(f"--batch is '{words}'; give a number of pictures, or several as 1,4.")
    return batches


def _stored(words: str) -> list[str]:
    from mmgen.pipeline import Weights

    known, given = get_args(Weights), words.split(",")
    for word in given:
        if word not in known:
            raise UserError(f"--weights cannot be '{word}'{suggestion(word, known)}")
    return sorted(set(given), key=known.index)  # integers do not become floats again
