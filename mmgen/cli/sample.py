"""`mmgen sample`: draw pictures or clips from text or of classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli.output import write
from mmgen.cli.places import check_place
from mmgen.errors import UserError
from mmgen.progress import progress_of

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline
    from mmgen.request import Frames


def sample(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What to draw.")
    ] = None,
    *,
    classes: Annotated[
        list[int] | None,
        typer.Option("--class", help="Class to draw, for weights that draw classes; repeatable."),
    ] = None,
    frames: Annotated[
        list[Path] | None,
        typer.Option(help="Clip to go on from: an animation, a folder, a film; repeatable."),
    ] = None,
    given: Annotated[int, typer.Option(help="Frames of --frames to go on from.")] = 5,
    count: Annotated[
        int, typer.Option("-n", "--count", help="Pictures of each prompt or class.")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Picture i has seed SEED + i; default: a random one.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="What is predicted at a time: token, block, neighbor, any.")
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="Decoding order, such as subsample:2; see `mmgen orders`.")
    ] = None,
    guidance: Annotated[
        str | None,
        typer.Option(
            metavar="FLOAT[,FLOAT]",
            help="How strongly the prompt pulls; 1: not at all. Several: one for each sub-token.",
        ),
    ] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(help="Guide only between these shares of the tokens, such as 0.1:0.8."),
    ] = None,
    guidance_ramp: Annotated[
        str | None, typer.Option(help="How guidance grows: constant, linear, cosine.")
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(
            metavar="FLOAT[,FLOAT]",
            help="0: always the likeliest. Several: one for each sub-token.",
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest tokens; 0: all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest share; 1: all.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Only tokens at least this likely, relative to the best.")
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="INT[,INT]",
            help="Solver steps, for weights that draw latents. Several: one for each block.",
        ),
    ] = None,
    solver: Annotated[
        str | None, typer.Option(help="euler, heun, euler-maruyama, for the same weights.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What guidance leads away from.")] = None,
    scale: Annotated[
        int | None,
        typer.Option(help="Enlarge pictures this many times; default: 4 up to 64 pixels, else 1."),
    ] = None,
    reproducible: Annotated[
        bool, typer.Option("--reproducible", help="The same tokens in any batch; slower.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="float|int8",
            help="int8: matrices as 8-bit integers; faster on a CPU, not quite the same numbers.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps; default: cuda if there is one.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or name of a pipeline; default: the shipped one.")
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="T5 folder or hub name, for published weights that draw from text."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Picture to write, or a folder; default: named here."),
    ] = None,
) -> None:
    """Draw what the prompts say, or classes. Several pictures also make a labelled sheet."""
    if not (prompts or classes or frames):
        raise UserError("There is nothing to draw; give a prompt, --class NUMBER or --frames FILE.")
    if scale is not None and not 1 <= scale <= 64:
        raise UserError(f"--scale is {scale}; give a number from 1 to 64.")
    if threads is not None and threads < 1:
        raise UserError(f"--threads is {threads}; give 1 or more.")
    check_place(out or Path())
    settings: dict[str, Any] = {
        "negative_prompt": negative,
        "num_images_per_prompt": count,
        "guidance_scale": _numbers("--guidance", guidance),
        "guidance_interval": _interval(guidance_interval),
        "guidance_ramp": guidance_ramp,
        "seed": seed,
        "unit": unit,
        "order": order,
        "temperature": _numbers("--temperature", temperature),
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "num_inference_steps": _counts("--steps", steps),
        "solver": solver,
        "reproducible": reproducible,
    }
    with progress_of("Drawing") as update:
        pipe = _load(model, text_encoder, threads, device).to(weights=weights)  # type: ignore[arg-type]
        settings |= {"class_labels": classes or None, "frames": _clips(pipe, frames, given)}
        output = pipe(prompts or None, **settings, progress=update)
        files = write(output, out, scale or (4 if pipe.info.image_size <= 64 else 1))
    _say_what_was_cut(pipe, prompts or [])
    for file in files:
        typer.echo(file)


def _clips(pipe: Pipeline, files: list[Path] | None, given: int) -> list[Frames] | None:
    if given < 1:
        raise UserError(f"--given is {given}; give 1 or more.")
    if not files:
        return None
    from mmgen.data.clips import read_clip
    from mmgen.request import Frames

    size = pipe.info.image_size
    return [Frames(file.stem, read_clip(file, given, size)) for file in files]


def _numbers(option: str, words: str | None) -> float | list[float] | None:
    """A number, or several between commas."""
    if words is None:
        return None
    try:
        numbers = [float(word) for word in words.split(",")]
    except ValueError:
        raise UserError(f"{option} is '{words}'; give a number, or several as 1.9,2.0.") from None
    return numbers if len(numbers) > 1 else numbers[0]


def _counts(option: str, words: str | None) -> int | list[int] | None:
    """A whole number, or several between commas."""
    if words is None:
        return None
    try:
        counts = [int(word) for word in words.split(",")]
    except ValueError:
        raise UserError(
            f"{option} is '{words}'; give a whole number, or several as 50,38,26,15."
        ) from None
    return counts if len(counts) > 1 else counts[0]


def _interval(words: str | None) -> tuple[float, float] | None:
    if words is None:
        return None
    try:
        start, stop = map(float, words.split(":"))
    except ValueError:
        raise UserError(
            f"--guidance-interval is '{words}'; give two shares, such as 0.1:0.8."
        ) from None
    return start, stop


def _load(
    model: str | None, text_encoder: str | None, threads: int | None, device: str | None
) -> Pipeline:
    from mmgen.devices import usable_device
    from mmgen.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(model, text_encoder=text_encoder).to(usable_device(device))
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return pipe


def _say_what_was_cut(pipe: Pipeline, prompts: list[str]) -> None:
    """Name the prompts that are longer than what the pipeline reads."""
    from mmgen.prefixes import part_read

    for prompt in prompts:
        read = part_read(pipe, prompt)
        if read is not None:
            print(f"mmgen: The prompt is too long; only this was read: {read}", file=sys.stderr)
