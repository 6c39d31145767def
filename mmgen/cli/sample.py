"""`mmgen sample`: draw pictures or clips from text or of classes."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli.clips import ClipOptions
from mmgen.cli.loading import (
    check_count,
    check_model,
    check_threads,
    load,
    say_seed,
    say_what_is_numbered,
    say_what_was_cut,
)
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
from mmgen.files import CLIP_ENDINGS, PICTURE_FORMATS
from mmgen.outputs import check_scale, line_of, picture_files, refuse_overwriting, write
from mmgen.progress import progress_of

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline
    from mmgen.preview import Growth


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
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="More prompts: text in UTF-8, one a line; empty lines are left out, and # is a "
            "sign like others. -: from stdin.",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NUMBER",
            help="Class to draw, for weights that draw classes; repeatable.",
        ),
    ] = None,
    video: Annotated[
        bool,
        typer.Option("--video", help="Draw a clip; each of the next six options says so too."),
    ] = False,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames of the clip, given ones included; default: as many as in the training. "
            "Longer ones are drawn window by window.",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames a second; default: the weights' own, or 8. A GIF shows 50 at most."
        ),
    ] = None,
    loop: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Play the clip N times; 0, the default: over and over. No film says."
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Animate this picture: the clip begins with it; repeatable."
        ),
    ] = None,
    frames_from: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Continue this clip from its last frames: an animation, a film or a folder of "
            "pictures; repeatable.",
        ),
    ] = None,
    given: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames of --frames-from to go on from; default: half as many as the weights draw "
            "at once.",
        ),
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
            "... Clips are .gif, .webp, .apng, .mp4 or .webm, or .png: a sheet of the frames. A "
            "FILE that is there is replaced; folders that are missing are made.",
        ),
    ] = None,
) -> None:
    """Draw what the prompts say, or classes. Several pictures also make a labelled sheet.

    The shipped weights draw emoji: mmgen sample "a red apple" "grinning cat, noto style".
    """
    texts = [*(prompts or []), *prompts_in(prompts_file)]
    begun = [*(image or []), *(frames_from or [])]
    if not (texts or classes or begun):
        raise UserError("There is nothing to draw; give a prompt, --class NUMBER or --image FILE.")
    check_scale("--scale", scale)
    check_threads(threads)
    check_count(count)
    check_place(out or Path(), (*PICTURE_FORMATS, *CLIP_ENDINGS))
    _check_frames_out(frames_out, out)
    clip = ClipOptions(video, frames, fps, loop, image or [], frames_from or [], given, out)
    clip.check()
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
    if texts and classes:
        raise UserError(
            "Give prompts or --class, not both: --class is for weights that draw classes, and "
            "others, such as the shipped ones, draw from text."
        )
    if begun:
        files = picture_files(out, [""] * count * max(len(texts), len(begun)))
        refuse_overwriting([*files, *([frames_out] if frames_out else [])], begun)
    check_model(model)
    check_settings(settings)
    growth: Growth | None = None
    with nullcontext() if preview else progress_of("Drawing") as update:
        pipe = load(model, threads, device, text_encoder).to(weights=weights)  # type: ignore[arg-type]
        check_size(pipe, wanted)
        of_clip, fitted = clip.settings(pipe)
        settings |= of_clip
        if preview or frames_out:
            number = count * max(len(texts), len(classes or []), len(begun))
            growth = _growth(pipe, number, preview, frames_out, bool(of_clip))
            settings["watch"] = growth.watch
        output = pipe(texts or None, **settings, progress=update)
        factor = scale or (4 if pipe.info.image_size <= 64 else 1)
        lines = write(output, out, factor, clip.rate(pipe), clip.loop or 0)
    for line in lines:  # at once: what comes now may fail, and the files are there
        typer.echo(line)
    if growth and frames_out:
        line = line_of(frames_out)
        growth.save(frames_out, output.recipes, factor)
        typer.echo(line)
    for line in fitted:
        typer.echo(f"mmgen: {line}", err=True)
    say_what_was_cut(pipe, texts)
    if output.images:
        say_what_is_numbered(output.recipes)
    say_seed(seed, output.seeds)


def _check_frames_out(frames_out: Path | None, out: Path | None) -> None:
    """Refuse a place for the growth that cannot take it, before anything is drawn."""
    if frames_out is None:
        return
    from mmgen.sample.clip_files import check_clip_file

    if not frames_out.suffix or frames_out == out or frames_out.is_dir():
        raise UserError(f"--frames-out is {frames_out}; name a .gif, .webp or .png of its own.")
    check_clip_file(frames_out)
    check_place(frames_out, CLIP_ENDINGS)


def _growth(
    pipe: Pipeline, count: int, preview: bool, frames_out: Path | None, is_clip: bool
) -> Growth:
    """Watches the pictures or clips of a call.

    Raises:
        UserError: the growth of clips is to be kept.
    """
    from mmgen.preview import Growth

    if is_clip and frames_out:
        raise UserError("--frames-out shows how pictures grow, and a clip is drawn; leave it out.")
    return Growth(pipe, count, sys.stderr if preview else None, keep=frames_out is not None)
