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
Seed = Annotated[
    int | None, typer.Option(help="Picture i has seed SEED + i; default: a random one.")
]
TopK = Annotated[int | None, typer.Option(help="Only the k likeliest tokens; 0: all.")]
TopP = Annotated[
    float | None, typer.Option(help="Only the likeliest tokens that make up this share; 1: all.")
]
MinP = Annotated[
    float | None,
    typer.Option(help="Only tokens at least this likely, relative to the likeliest; 0: all."),
]
Negative = Annotated[str | None, typer.Option(help="A prompt that guidance leads away from.")]
