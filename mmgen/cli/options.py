"""Options that several commands have, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Picture = Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of any size.")]
Model = Annotated[
    str | None, typer.Option(help="Folder or name of a pipeline; default: the shipped one.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: cuda if there is one.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; default: what PyTorch takes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Everything as JSON.")]
