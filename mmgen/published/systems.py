"""What a module of a published system offers: the kinds of official files that it reads.

Every module of this package that has `PARTS` is a system's. Nothing else is registered anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import mmgen.published
from mmgen.pipeline_folder import SamplingDefaults

if TYPE_CHECKING:
    from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]
ASSUMED = "assumed"  # in the place of what tells a size


@dataclass(frozen=True)
class Converted:
    """One official file as a component of ours.

    Args:
        component: sub-folder of the pipeline: "vision", "transformer", "image_normalizer" ...
        network: a `Saved` network with its weights loaded.
        image_size: pixels a side that it was trained on.
        sampling: the published evaluation settings.
        notes: said to the user, such as "EMA weights".
        assumed: official options that neither the file nor the user told, as they are taken.
        size_by: what tells `image_size`: "as the file's name says", or `ASSUMED`; "" where only the
            grid is told, or a component says it of itself.
    """

    component: str
    network: nn.Module
    image_size: int | None = None
    sampling: SamplingDefaults | None = None
    notes: tuple[str, ...] = ()
    assumed: Mapping[str, Any] = field(default_factory=dict)
    size_by: str = ""


@dataclass(frozen=True)
class Piece:
    """A file that holds a share of a part and is not enough alone.

    Args:
        name: "vision transformer".
        recognise: as in `Part`.
        prefix: what its keys get before the files of a part are joined.
    """

    name: str
    recognise: Callable[[Shapes], bool]
    prefix: str = ""


@dataclass(frozen=True)
class Part:
    """One kind of official file.

    Args:
        system: "llamagen".
        name: "VQ tokenizer", "class-conditional generator".
        licence: of the published weights.
        source: repository of the official code.
        recognise: from official key -> shape; no file of another kind may match. Keys come without
            a `module.` that stands before all of them.
        convert: (tensors, options under official names, where) -> Converted. It infers from shapes
            what it can and refuses option names that it does not know.
        component: `Converted.component`; where several files are imported, options are given to
            one of them as `component.name=value`.
        pieces: files that the part may be spread over; where keys repeat, later pieces win.
        recorded: official options that a checkpoint carries outside its weights.
        embedded: it lies in the file of another component; a file of its own goes first.
        needed: keys of every such file, by which one that lacks some of them is still known.
    """

    system: str
    name: str
    licence: str
    source: str
    recognise: Callable[[Shapes], bool]
    convert: Callable[[Mapping[str, Tensor], Mapping[str, Any], str], Converted]
    component: str = ""
    pieces: tuple[Piece, ...] = ()
    recorded: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    embedded: bool = False
    needed: frozenset[str] = frozenset()


@cache
def parts() -> tuple[Part, ...]:
    """All parts of all systems; imports their modules, and with them PyTorch."""
    found: list[Part] = []
    for entry in pkgutil.iter_modules(mmgen.published.__path__):
        module = importlib.import_module(f"mmgen.published.{entry.name}")
        found += getattr(module, "PARTS", ())
    return tuple(found)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Key -> shape, which is all that `Part.recognise` sees of a file."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}
