"""`mmgen sample`: draw pictures from text."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli.places import check_place, is_picture_file
from mmgen.errors import UserError
from mmgen.progress import progress_of

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline, PipelineOutput


def sample(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="What to draw.")],
    *,
    count: Annotated[int, typer.Option("-n", "--count", help="Pictures of each prompt.")] = 1,
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
        float | None, typer.Option(help="How strongly the prompt pulls; 1: not at all.")
    ] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(help="Guide only between these shares of the tokens, such as 0.1:0.8."),
    ] = None,
    guidance_ramp: Annotated[
        str | None, typer.Option(help="How guidance grows: constant, linear, cosine.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0: always the likeliest.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest tokens; 0: all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest share; 1: all.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Only tokens at least this likely, relative to the best.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What guidance leads away from.")] = None,
    scale: Annotated[int, typer.Option(help="Enlarge pictures this many times.")] = 4,
    reproducible: Annotated[
        bool, typer.Option("--reproducible", help="The same tokens in any batch; slower.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps; default: cuda if there is one.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or name of a pipeline; default: the shipped one.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Picture to write, or a folder; default: named here."),
    ] = None,
) -> None:
    """Draw what the prompts say. Several pictures also make a labelled sheet."""
    if not 1 <= scale <= 64:
        raise UserError(f"--scale is {scale}; give a number from 1 to 64.")
    if threads is not None and threads < 1:
        raise UserError(f"--threads is {threads}; give 1 or more.")
    check_place(out or Path())
    settings: dict[str, Any] = {
        "negative_prompt": negative,
        "num_images_per_prompt": count,
        "guidance_scale": guidance,
        "guidance_interval": _interval(guidance_interval),
        "guidance_ramp": guidance_ramp,
        "seed": seed,
        "unit": unit,
        "order": order,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "reproducible": reproducible,
    }
    with progress_of("Drawing") as update:
        pipe = _load(model, threads, device)
        output = pipe(prompts, **settings, progress=update)
        files = _write(output, out, scale)
    _say_what_was_cut(pipe, prompts)
    for file in files:
        typer.echo(file)


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


def _load(model: str | None, threads: int | None, device: str | None) -> Pipeline:
    from mmgen.devices import usable_device
    from mmgen.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(model).to(usable_device(device))
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return pipe


def _say_what_was_cut(pipe: Pipeline, prompts: list[str]) -> None:
    """Name the prompts that are longer than what the pipeline reads."""
    longest = pipe.transformer.config.max_text
    for prompt in prompts:
        if len(pipe.text.ids(prompt, longest + 1)) > longest:
            read = pipe.text.decode(pipe.text.ids(prompt, longest))
            print(f"mmgen: The prompt is too long; only this was read: {read}", file=sys.stderr)


def _write(output: PipelineOutput, out: Path | None, scale: int) -> list[Path]:
    """Write the pictures, and a sheet of them if there are several; returns the files."""
    from PIL import Image

    from mmgen.sample.pictures import grid, save_picture

    smooth = Image.Resampling.BICUBIC
    images = [
        image.resize((image.width * scale, image.height * scale), smooth) for image in output.images
    ]
    recipes = [{**recipe, "scale": scale} for recipe in output.recipes]
    sheet, singles = _names(out, [recipe["prompt"] for recipe in recipes])
    for image, recipe, path in zip(images, recipes, singles):
        save_picture(image, path, recipe)
    if len(images) == 1:
        return singles
    labels = [f"{recipe['prompt']} ({recipe['seed']})" for recipe in recipes]
    save_picture(grid(images, labels=labels), sheet, {"pictures": recipes})
    return [*singles, sheet]


def _names(out: Path | None, prompts: list[str]) -> tuple[Path, list[Path]]:
    """Name of the sheet and of each picture."""
    if out is not None and is_picture_file(out):
        if len(prompts) == 1:
            return out, [out]
        return out, [out.with_stem(f"{out.stem}-{i + 1}") for i in range(len(prompts))]
    folder = out or Path()
    used: Counter[str] = Counter()
    names = [_free(folder, _slug(prompt), used) for prompt in prompts]
    return _free(folder, f"{_slug(prompts[0])}-sheet", used), names


def _free(folder: Path, stem: str, used: Counter[str]) -> Path:
    """A name in `folder` that nothing has yet: no file is overwritten unasked.

    `used` counts the numbers that each stem has been through in this call.
    """
    while True:
        used[stem] += 1
        number = f"-{used[stem]}" if used[stem] > 1 else ""
        path = folder / f"{stem}{number}.png"
        if not path.exists():
            return path


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "picture"
