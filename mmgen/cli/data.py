"""`mmgen data`: make, inspect and pack data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen.cli.options import AllowBad, CaptionColumn, ImageColumn
from mmgen.errors import UserError

if TYPE_CHECKING:
    from mmgen.data.inspect import Findings

app = typer.Typer(help="Make data sets, look into them, pack them.", no_args_is_help=True)

WHAT = (
    "Folder of pictures, .tar or .parquet files (one or a brace range), or a folder of "
    "HuggingFace's save_to_disk."
)
Place = Annotated[str, typer.Argument(metavar="PATH", help=WHAT)]
AsClips = Annotated[
    bool,
    typer.Option("--clips", help="Samples are clips: animations, strips, films; not first frames."),
]


@app.command()
def check(
    path: Place,
    out: Annotated[Path, typer.Option("--out", "-o", help="Contact sheet to write.")] = Path(
        "data-check.png"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
    clips: AsClips = False,
    allow_bad: AllowBad = 0.01,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
) -> None:
    """Say what is in a data set. Exit code 1 if too many samples are bad."""
    from mmgen.cli.places import check_place, check_share
    from mmgen.data.inspect import inspect
    from mmgen.data.pictures import FILMS
    from mmgen.data.remarks import remarks_on
    from mmgen.data.reports import refuse_many_bad
    from mmgen.data.sources import open_any
    from mmgen.data.tables import Columns
    from mmgen.errors import DataError
    from mmgen.files import is_picture_file
    from mmgen.outputs import line_of
    from mmgen.progress import progress_of

    check_share(allow_bad)
    if not is_picture_file(out):
        raise UserError(f"{out} does not name a picture; end it in .png.")
    check_place(out)
    with progress_of("Looking") as update:
        source = open_any(path, Columns(image_column, caption_column), films=clips)
        found = inspect(source, update, clips)
        remarks = remarks_on(path, Columns(image_column), FILMS if clips else ())
    said = line_of(out)
    sheet = str(out) if _write_sheet(found, out) else None
    if as_json:
        facts = {**found.to_dict(), "remarks": remarks, "sheet": sheet}
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        lines = [*found.lines(), *(f"remark      {remark}" for remark in remarks)]
        for line in [*lines, *([f"sheet       {said}"] if sheet else [])]:
            typer.echo(line)
    try:
        refuse_many_bad(found.bad, found.count, found.name, allow_bad)
    except DataError as error:
        typer.echo(f"mmgen: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def pack(
    path: Place,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write the shards (.tar files) to.")
    ],
    shard_size: Annotated[int, typer.Option(help="Most samples in a shard.")] = 1000,
    image_size: Annotated[
        int | None,
        typer.Option(help="Crop and resize to so many pixels a side; default: leave them."),
    ] = None,
    clips: AsClips = False,
    fps: Annotated[
        float | None,
        typer.Option(help="With --clips and --image-size: frames of a second that are kept."),
    ] = None,
    allow_bad: AllowBad = 0.01,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
) -> None:
    """Write a data set as WebDataset shards. What is bad is left out and named."""
    from mmgen.cli.places import check_folder, check_share
    from mmgen.data.packing import Clips
    from mmgen.data.packing import pack as write
    from mmgen.data.sources import open_any
    from mmgen.data.tables import Columns
    from mmgen.progress import progress_of

    if fps is not None and not (clips and image_size):
        raise UserError("--fps goes with --clips and --image-size; else clips stay as they are.")
    check_share(allow_bad)
    check_folder(out)
    with progress_of("Packing") as update:
        source = open_any(path, Columns(image_column, caption_column), films=clips)
        kind = Clips(fps) if clips else None
        done = write(source, out, shard_size, image_size, allow_bad, update, kind)
    what = "clips" if clips else "pictures"
    typer.echo(f"Wrote {done.count} {what} to {done.name}. {done.report}")


def _write_sheet(found: Findings, out: Path) -> bool:
    """Lay out the small pictures that were kept, each above its first caption, if there are any.

    Its name stands for a caption with letters that the font lacks.
    """
    from mmgen.sample.pictures import grid, has_letters, save_picture

    shown = [(look.thumbnail, look) for look in found.good if look.thumbnail is not None]
    if not shown:
        return False
    texts = [(look.captions[0].text if look.captions else "", look.key) for _, look in shown]
    labels = [text if text and has_letters(text) else key for text, key in texts]
    save_picture(grid([image for image, _ in shown], labels=labels), out, {"data": found.name})
    return True


@app.command()
def emoji(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write the shards (.tar files) to.")
    ],
    size: Annotated[int, typer.Option(help="Pixels a side: 16, 32, 64, 128 or 256.")] = 64,
    packages: Annotated[
        Path | None,
        typer.Option(help="Folder with the .tgz files of `npm pack`; default: npm fetches them."),
    ] = None,
    clips: Annotated[
        bool,
        typer.Option(
            "--clips", help="Build the 555 clips of the 3d style instead (npm fetches 730 MB)."
        ),
    ] = False,
    variants: Annotated[
        bool,
        typer.Option(
            "--variants", help="With --clips: also the 1453 variants of skin tone and gender."
        ),
    ] = False,
) -> None:
    """Build the captioned emoji set. It holds 7782 pictures in six styles, from npm packages."""
    from mmgen.cli.places import check_folder
    from mmgen.data.emoji import build_emoji
    from mmgen.data.emoji_clips import build_clips
    from mmgen.progress import progress_of

    if variants and not clips:
        raise UserError("--variants goes with --clips; the pictures have none.")

    def say(line: str) -> None:
        typer.echo(f"mmgen: {line}", err=True)

    check_folder(out)
    with progress_of("Drawing emoji") as update:
        if clips:
            manifest = build_clips(out, size, packages, variants, update, say)
        else:
            manifest = build_emoji(out, size, packages, update, say)
    counts = ", ".join(f"{name} {facts['count']}" for name, facts in manifest["splits"].items())
    typer.echo(f"Wrote {out} ({counts}). The drawings' licences are in {out / 'LICENSES.md'}.")
