"""`mmgen import`: make a pipeline of a published system's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmgen.errors import UserError


def import_(
    system: Annotated[
        str, typer.Argument(metavar="SYSTEM", help="Whose files they are; see `mmgen models`.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE... [KEY=VALUE...]",
            help="Checkpoint files, then what they do not say, under the official names.",
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to make.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON file of the official configuration.")
    ] = None,
    from_hub: Annotated[
        str | None, typer.Option(help="Download the files of this entry of `mmgen models`.")
    ] = None,
) -> None:
    """Make a pipeline of a published system's files."""
    from mmgen.cli.places import check_folder
    from mmgen.files import refuse_taken
    from mmgen.published.catalogue import SYSTEMS, refuse_system

    refuse_system(system, SYSTEMS)
    if out is None:
        raise UserError("Say which folder to make, with --out FOLDER.")
    check_folder(out.parent)
    files = [word for word in words or [] if _is_file(word)]
    settings = [word for word in words or [] if not _is_file(word)]
    if not files and from_hub is None:
        raise UserError("Give the files to import, or --from-hub NAME to download them.")

    from mmgen.published.options import read_options

    options = read_options(config, settings)
    refuse_taken(out)
    if from_hub is not None:
        from mmgen.published.hub import download

        files += [str(path) for path in download(system, from_hub)]
    from mmgen.published.importing import import_files

    for line in import_files(system, files, options, out):
        typer.echo(line)


def _is_file(word: str) -> bool:
    """Whether a word names a file; `key=value` does, where there is such a file."""
    try:
        return "=" not in word or Path(word).exists()
    except OSError:  # longer than any file's name
        return False
