"""`mmgen sample`: draw pictures or clips from text or of classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli.output import write
from mmgen.cli.places import check_place, is_picture_file
from mmgen.errors import UserError
from mmgen.progress import progress_of

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline
    from mmgen.request import Frames

MOST_THREADS = 1024  # more than any machine that this runs on has
MOST_PICTURES = 100_000  # of a prompt; what lies above is a slip of the pen


def sample(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT", help="What to draw, each prompt in quotes; '' draws anything."
        ),
    ] = None,
    *,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NUMBER",
            help="Class to draw, for weights that draw classes; repeatable.",
        ),
    ] = None,
    frames: Annotated[
        list[Path] | None,
        typer.Option(
            help="Clip to go on from, for weights that can: an animation, a folder of pictures or "
            "a film; its frames are squeezed into squares; repeatable."
        ),
    ] = None,
    given: Annotated[int, typer.Option(help="Frames of --frames to go on from.")] = 5,
    count: Annotated[
        int, typer.Option("-n", "--count", help="Pictures of each prompt or class.")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Picture i has seed SEED + i; default: a random one.")
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help="What is decided in one step; the shipped weights know token, block, neighbor and "
            "any. Default: the weights' own."
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="In which order tokens are decided, such as subsample:2; see `mmgen orders`."
        ),
    ] = None,
    guidance: Annotated[
        str | None,
        typer.Option(
            metavar="FLOAT[,FLOAT]",
            help="How strongly the prompt or class pulls; 1: no guidance. Several: one for each "
            "sub-token, for weights that draw those.",
        ),
    ] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(
            metavar="FROM:TO",
            help="Guide only between these shares of the picture's tokens, such as 0.1:0.8.",
        ),
    ] = None,
    guidance_ramp: Annotated[
        str | None,
        typer.Option(help="How guidance grows on the way: constant, linear, cosine."),
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(
            metavar="FLOAT[,FLOAT]",
            help="Below 1: likelier tokens, above: more surprising ones; 0: always the likeliest.",
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest tokens; 0: all.")] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Only the likeliest tokens that make up this share; 1: all."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="Only tokens at least this likely, relative to the likeliest; 0: all."),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="INT[,INT]",
            help="Steps of the solver, for weights that draw latents (xAR). Several: one for each "
            "block.",
        ),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(help="euler, heun or euler-maruyama, for weights that draw latents."),
    ] = None,
    negative: Annotated[
        str | None, typer.Option(help="A prompt that guidance leads away from.")
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(help="Enlarge pictures this many times; default: 4 up to 64 pixels, else 1."),
    ] = None,
    reproducible: Annotated[
        bool,
        typer.Option(
            "--reproducible",
            help="Decode pictures one at a time, so that a seed gives the same tokens beside any "
            "others; slower.",
        ),
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="float|int8",
            help="int8: matrices as 8-bit integers; faster on a CPU, not quite the same numbers.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; default: what PyTorch takes.")
    ] = None,
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
        typer.Option(
            "--out",
            "-o",
            help="FILE, ending in .png, .jpg, .webp or .gif, or a folder; default: a new name here "
            "from the prompt. Of several pictures FILE is the sheet, and they are FILE-1, FILE-2 "
            "... A FILE that is there is replaced. One missing folder is made, not two.",
        ),
    ] = None,
) -> None:
    """Draw what the prompts say, or classes. Several pictures also make a labelled sheet.

    The shipped weights draw emoji: mmgen sample "a red apple" "grinning cat, noto style".
    """
    if not (prompts or classes or frames):
        raise UserError("There is nothing to draw; give a prompt, --class NUMBER or --frames FILE.")
    if scale is not None and not 1 <= scale <= 64:
        raise UserError(f"--scale is {scale}; give a number from 1 to 64.")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UserError(f"--threads is {threads}; give a number from 1 to {MOST_THREADS}.")
    if count > MOST_PICTURES:
        raise UserError(f"--count is {count}; give {MOST_PICTURES} at most.")
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
        "class_labels": _classes(classes),
    }
    with progress_of("Drawing") as update:
        pipe = _load(model, text_encoder, threads, device).to(weights=weights)  # type: ignore[arg-type]
        _refuse_format(pipe, out)
        settings |= {"frames": _clips(pipe, frames, given)}
        output = pipe(prompts or None, **settings, progress=update)
        lines = write(output, out, scale or (4 if pipe.info.image_size <= 64 else 1))
    _say_what_was_cut(pipe, prompts or [])
    _say_what_was_squeezed(pipe, frames or [])
    for line in lines:
        typer.echo(line)


def _classes(words: list[str] | None) -> list[int] | None:
    return [_class(word) for word in words] if words else None


def _class(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UserError(
            f"--class is '{word}'; give the number of a class, such as 207, or a prompt where the "
            "weights draw from text."
        ) from None


def _refuse_format(pipe: Pipeline, out: Path | None) -> None:
    """Refuse a picture's ending that holds no clip, before one is drawn."""
    if out is not None and pipe.draws_clips and is_picture_file(out):
        from mmgen.sample.pictures import check_clip_ending

        check_clip_ending(out)


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


def _say_what_was_squeezed(pipe: Pipeline, files: list[Path]) -> None:
    """Name the clips whose frames are no squares."""
    if not files:
        return
    from mmgen.data.clips import frames_of
    from mmgen.data.fit import is_square

    size = pipe.info.image_size
    for file in files:
        width, height = next(frames_of(file)).size
        if not is_square((width, height)):
            print(
                f"mmgen: The frames of {file} are {width}x{height}; they were squeezed into "
                f"{size}x{size}, nothing was cut off.",
                file=sys.stderr,
            )
