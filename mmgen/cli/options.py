"""Options that several commands have, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Picture = Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of any size.")]
_PIPELINE = "Folder or name of a pipeline; default: the shipped one."
Model = Annotated[str | None, typer.Option(help=_PIPELINE)]
ModelArgument = Annotated[str | None, typer.Argument(metavar="[MODEL]", help=_PIPELINE)]
TokenizerArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder of a tokenizer or pipeline, or its name.")
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
AllowBad = Annotated[
    float, typer.Option(help="Share of pictures that may be bad; more ends with a sentence.")
]
ImageColumn = Annotated[
    str | None, typer.Option(help="Column of a table that holds the picture; default: by name.")
]
CaptionColumn = Annotated[
    str | None, typer.Option(help="Column of a table that holds the caption; default: by name.")
]
