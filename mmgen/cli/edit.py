"""`mmgen edit`: draw a part of a picture anew, or what lies around it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli.loading import (
    check_count,
    check_model,
    check_threads,
    load,
    picture_at,
    say_seed,
    say_what_is_numbered,
    say_what_was_cut,
)
from mmgen.cli.options import Device, MinP, Model, Negative, Picture, Seed, Threads, TopK, TopP
from mmgen.cli.places import check_place
from mmgen.cli.values import check_settings
from mmgen.errors import UserError
from mmgen.outputs import picture_files, refuse_overwriting, write
from mmgen.progress import progress_of

if TYPE_CHECKING:
    from mmgen.calling import EditSettings


def edit(
    image: Picture,
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT...", help="What the new picture shows, each in quotes."),
    ],
    *,
    mask: Annotated[
        Path | None,
        typer.Option(help="Picture of the same shape, white or transparent where to draw anew."),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Draw this box anew: left, top, width, height."),
    ] = None,
    outpaint: Annotated[
        str | None,
        typer.Option(
            metavar="L,T,R,B",
            help="Draw so many pixels around the picture: left, top, right, bottom, or one number "
            "for all; a square must come out.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", help="Pictures of each prompt.")] = 1,
    seed: Seed = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Steps that the new tokens are drawn in; default: about their root."),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strongly the prompt pulls; 1: no guidance.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Below 1: likelier tokens; 0: always the likeliest.")
    ] = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    negative: Negative = None,
    reproducible: Annotated[
        bool,
        typer.Option("--reproducible", help="Decode pictures one at a time; slower."),
    ] = False,
    threads: Threads = None,
    device: Device = None,
    model: Model = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="FILE or folder, as in `mmgen sample`."),
    ] = None,
) -> None:
    """Draw a part of a picture anew under a prompt; the rest keeps its pixels."""
    check_threads(threads)
    check_count(count)
    _refuse_all_but_one({"--mask": mask, "--box": box, "--outpaint": outpaint})
    check_place(out or Path())
    where: dict[str, Any] = {
        "box": _four("--box", box),
        "outpaint": _four("--outpaint", outpaint, alike=True),
    }
    settings: EditSettings = {
        "num_images_per_prompt": count,
        "seed": seed,
        "guidance_scale": guidance,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "negative_prompt": negative,
        "reproducible": reproducible,
    }
    files = picture_files(out, [prompt for prompt in prompts for _ in range(count)])
    refuse_overwriting(files, [image] if mask is None else [image, mask])
    check_model(model)
    check_settings(settings)
    with progress_of("Drawing") as update:
        from mmgen.masks import canvas_of

        picture = picture_at(image)
        where["mask"] = None if mask is None else picture_at(mask)
        canvas_of(picture, **where)  # refuses what does not fit
        pipe = load(model, threads, device)
        output = pipe.edit(picture, prompts, **where, steps=steps, progress=update, **settings)
        lines = write(output, out, scale=1)
    say_what_was_cut(pipe, prompts)
    for line in lines:
        typer.echo(line)
    say_seed(seed, output.seeds)
    say_what_is_numbered(output.recipes)


def _refuse_all_but_one(places: dict[str, object]) -> None:
    given = [option for option, value in places.items() if value is not None]
    if not given:
        raise UserError("Say what is drawn anew: give one of --mask, --box and --outpaint.")
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} each say what is drawn anew; give one of them.")


def _four(option: str, words: str | None, alike: bool = False) -> int | tuple[int, ...] | None:
    """Four whole numbers between commas, or one for all of them."""
    if words is None:
        return None
    try:
        numbers = tuple(int(word) for word in words.split(","))
    except ValueError:
        numbers = ()
    if alike and len(numbers) == 1:
        return numbers[0]
    if len(numbers) != 4:
        raise UserError(f"{option} is '{words}'; give four whole numbers, such as 16,16,32,32.")
    return numbers
