"""`mmgen tokenizer`: look at a visual tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli.options import AllowBad, Device, TokenizerArgument
from mmgen.cli.places import check_place, check_share
from mmgen.errors import UserError
from mmgen.files import CLIP_ENDINGS, PICTURE_FORMATS, is_picture_file
from mmgen.outputs import line_of
from mmgen.progress import progress_of

app = typer.Typer(help="Look at visual tokenizers.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look at visual tokenizers."""
    # Without a callback typer would run a lone command directly, without its name.


@app.command()
def check(
    model: TokenizerArgument,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Pictures, with captions or without: a folder, .tar shards or one file. For "
            "tokenizers of clips: a folder of animations, films and pictures, or one of them; each "
            "picture is a clip of one frame.",
        ),
    ],
    *,
    size: Annotated[
        int | None,
        typer.Option(help="Pixels a side; default: what the pipeline was trained on, or 64."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Look at no more pictures or clips.")] = 2000,
    device: Device = None,
    allow_bad: AllowBad = 0.01,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Side-by-side picture to write; for tokenizers of clips a .gif, .webp or .mp4 "
            "plays them.",
        ),
    ] = Path("tokenizer-check.png"),
) -> None:
    """Measure what a tokenizer loses. Also how many codes it uses, and a picture of both sides."""
    if limit < 1:
        raise UserError(f"--limit is {limit}; give 1 or more.")
    if size is not None and size < 1:
        raise UserError(f"--size is {size}; give 1 or more.")
    check_share(allow_bad)
    if not is_picture_file(out):
        raise UserError(f"{out} does not name a picture; end it in .png.")
    check_place(out, (*PICTURE_FORMATS, *CLIP_ENDINGS))
    with progress_of("Reconstructing") as update:
        from mmgen.tokenizer_check import check_tokenizer

        result = check_tokenizer(model, data, size, limit, update, device, allow_bad)
    for line in result.lines():
        typer.echo(line)
    if result.cropping:
        typer.echo(f"mmgen: {result.cropping}", err=True)
    said = line_of(out)
    result.save(out)
    typer.echo(f"Originals above reconstructions: {said}")
