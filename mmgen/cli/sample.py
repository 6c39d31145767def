"""`mmgen sample`: draw pictures or clips from text or of classes."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli.loading import check_count, check_model, check_threads, load, say_what_was_cut
from mmgen.cli.options import Device, MinP, Model, Negative, Seed, Threads, TopK, TopP
from mmgen.cli.places import check_place
from mmgen.cli.values import (
    check_settings,
    check_size,
    classes_in,
    counts_in,
    interval_in,
    numbers_in,
    prompts_in,
    size_in,
)
from mmgen.errors import UserError
from mmgen.files import is_picture_file
from mmgen.outputs import check_scale, line_of, picture_files, refuse_overwriting, write
from mmgen.progress import progress_of

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline
    from mmgen.preview import Growth
    from mmgen.request import Frames

GIVEN = 5  # frames of a clip to go on from


def sample(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT", help="What to draw, each prompt in quotes; '' draws anything."
        ),
    ] = None,
    *,
    prompts_file: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FILE", help="More prompts, one a line; -: from stdin."),
    ] = None,
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
            help="Clip to go on from, for weights that can: an animation, a film or a folder of "
            "pictures, its frames; they are squeezed into squares; repeatable."
        ),
    ] = None,
    given: Annotated[
        int | None, typer.Option(help=f"Frames of --frames to go on from; default: {GIVEN}.")
    ] = None,
    count: Annotated[
        int, typer.Option("-n", "--count", help="Pictures of each prompt or class.")
    ] = 1,
    seed: Seed = None,
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
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
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
    negative: Negative = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW", help="Pixels to draw, before --scale; only what the weights know."
        ),
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
    threads: Threads = None,
    device: Device = None,
    model: Model = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="T5 folder or hub name, for published weights that draw from text."),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show the picture growing in the terminal.")
    ] = False,
    frames_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the growth too, as .gif, .webp or .png."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="FILE, ending in .png, .jpg, .webp or .gif, or a folder; default: a new name here "
            "from the prompt. Of several pictures FILE is the sheet, and they are FILE-1, FILE-2 "
            "... A FILE that is there is replaced; folders that are missing are made.",
        ),
    ] = None,
) -> None:
    """Draw what the prompts say, or classes. Several pictures also make a labelled sheet.

    The shipped weights draw emoji: mmgen sample "a red apple" "grinning cat, noto style".
    """
    texts = [*(prompts or []), *prompts_in(prompts_file)]
    if not (texts or classes or frames):
        raise UserError("There is nothing to draw; give a prompt, --class NUMBER or --frames FILE.")
    if given is not None and not frames:
        raise UserError("--given counts frames of --frames; add --frames FILE, or leave it out.")
    given = GIVEN if given is None else given
    check_scale("--scale", scale)
    check_threads(threads)
    check_count(count)
    check_place(out or Path())
    _check_frames_out(frames_out, out)
    wanted = size_in(size)
    settings: dict[str, Any] = {
        "negative_prompt": negative,
        "num_images_per_prompt": count,
        "guidance_scale": numbers_in("--guidance", guidance),
        "guidance_interval": interval_in(guidance_interval),
        "guidance_ramp": guidance_ramp,
        "seed": seed,
        "unit": unit,
        "order": order,
        "temperature": numbers_in("--temperature", temperature),
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "num_inference_steps": counts_in("--steps", steps),
        "solver": solver,
        "reproducible": reproducible,
        "class_labels": classes_in(classes),
    }
    if frames:
        files = picture_files(out, [""] * count * len(frames))
        refuse_overwriting([*files, *([frames_out] if frames_out else [])], frames)
    check_model(model)
    check_settings(settings)
    growth: Growth | None = None
    with nullcontext() if preview else progress_of("Drawing") as update:
        pipe = load(model, threads, device, text_encoder).to(weights=weights)  # type: ignore[arg-type]
        _refuse_format(pipe, out)
        check_size(pipe, wanted)
        clips, squeezed = _clips(pipe, frames or [], given)
        settings["frames"] = clips or None
        if preview or frames_out:
            growth = _growth(pipe, count * len(texts or classes or []), preview, frames_out)
            settings["watch"] = growth.watch
        output = pipe(texts or None, **settings, progress=update)
        factor = scale or (4 if pipe.info.image_size <= 64 else 1)
        lines = write(output, out, factor)
    for line in lines:  # at once: what comes now may fail, and the files are there
        typer.echo(line)
    if growth and frames_out:
        line = line_of(frames_out)
        growth.save(frames_out, output.recipes, factor)
        typer.echo(line)
    for line in squeezed:
        typer.echo(line, err=True)
    say_what_was_cut(pipe, texts)


def _check_frames_out(frames_out: Path | None, out: Path | None) -> None:
    """Refuse a place for the growth that cannot take it, before anything is drawn."""
    if frames_out is None:
        return
    check_place(frames_out)
    if not is_picture_file(frames_out) or frames_out == out:
        raise UserError(f"--frames-out is {frames_out}; name a .gif, .webp or .png of its own.")
    from mmgen.sample.pictures import check_clip_ending

    check_clip_ending(frames_out)


def _growth(pipe: Pipeline, count: int, preview: bool, frames_out: Path | None) -> Growth:
    """Watches the pictures of a call.

    Raises:
        UserError: the weights draw clips.
    """
    from mmgen.preview import Growth

    if pipe.draws_clips:
        raise UserError(
            f"The weights of '{pipe.info.name}' draw clips; --preview and --frames-out show how "
            "pictures grow."
        )
    return Growth(pipe, count, sys.stderr if preview else None, keep=frames_out is not None)


def _refuse_format(pipe: Pipeline, out: Path | None) -> None:
    """Refuse a picture's ending that holds no clip, before one is drawn."""
    if out is not None and pipe.draws_clips and is_picture_file(out):
        from mmgen.sample.pictures import check_clip_ending

        check_clip_ending(out)


def _clips(pipe: Pipeline, files: list[Path], given: int) -> tuple[list[Frames], list[str]]:
    """The beginnings of clips, and a sentence about each whose frames are no squares."""
    if given < 1:
        raise UserError(f"--given is {given}; give 1 or more.")
    if not files:
        return [], []
    from mmgen.data.clips import first_frames, squashed
    from mmgen.data.fit import is_square
    from mmgen.request import Frames

    size, clips, squeezed = pipe.info.image_size, [], []
    for file in files:
        frames = first_frames(file, given)
        width, height = frames[0].size
        clips.append(Frames(file.stem, squashed(frames, size)))
        if not is_square((width, height)):
            squeezed.append(
                f"mmgen: The frames of {file} are {width}x{height}; they were squeezed into "
                f"{size}x{size}, nothing was cut off."
            )
    return clips, squeezed
