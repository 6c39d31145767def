"""What is known of a model by its name: a shipped pipeline, a folder, a published checkpoint.

Imports no PyTorch: all of it is read from JSON, the catalogue and the headers of weights.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

from mmgen.errors import CheckpointError, UserError, suggestion
from mmgen.files import read_json
from mmgen.pipeline_folder import (
    PIPELINE_FILE,
    find_pipeline,
    shipped_pipelines,
    shipped_tokenizer,
    shipped_tokenizers,
)
from mmgen.published.catalogue import SYSTEMS, Card, cards

WEIGHTS_FILE = "model.safetensors"
FIGURES_FILE = "figures.json"
TOKENIZER_CARD = "card.json"
SHIPPED = "mmgen"  # in the place of a system


def show(name: str) -> dict[str, Any]:
    """Describe a model.

    Args:
        name: of a shipped pipeline or tokenizer, a pipeline's folder, or a published checkpoint as
            SYSTEM/NAME; a name that one system alone has needs no SYSTEM.

    Raises:
        UserError: there is no such model, or the name is that of several.
    """
    if name in shipped_pipelines() or (Path(name) / PIPELINE_FILE).is_file():
        return describe_folder(find_pipeline(name), name in shipped_pipelines())
    if name in shipped_tokenizers() and not Path(name).exists():
        return describe_tokenizer(name)
    if Path(name).exists():
        return describe_folder(find_pipeline(name))  # which says what is wrong with it
    return describe_card(published_card(name))


def published_card(name: str) -> Card:
    """The catalogue's entry of a name.

    Raises:
        UserError: there is none, or several systems have one.
    """
    if name in SYSTEMS:
        raise UserError(
            f"'{name}' is a system of several models; `mmgen models {name}` lists them."
        )
    found = [card for card in cards() if name in (card.name, f"{card.system}/{card.name}")]
    if not found:
        own = [*shipped_pipelines(), *shipped_tokenizers()]
        known = [*own, *(f"{card.system}/{card.name}" for card in cards())]
        near = suggestion(name, known)
        if "did you mean" not in near:
            near = "; `mmgen models` lists them."
        raise UserError(f"There is no model '{name}'{near}")
    if len(found) > 1:
        names = " or ".join(f"{card.system}/{card.name}" for card in found)
        raise UserError(f"'{name}' is the name of several models; say {names}.")
    return found[0]


def shipped_cards() -> list[Card]:
    """The shipped pipelines and tokenizers as entries beside those of the catalogue."""
    found = []
    for name in shipped_pipelines():
        folder = find_pipeline(name)
        told = describe_folder(folder, shipped=True)
        size = round(
            sum(stored_bytes(folder / part / WEIGHTS_FILE) for part in told["weights"]) / 1e6
        )
        licence = told["licence"]
        card = Card(
            SHIPPED, name, "text-to-image", "", (), "", (), size, licence, "comes with mmgen"
        )
        found.append(card)
    for name in shipped_tokenizers():
        size = round(stored_bytes(shipped_tokenizer(name) / WEIGHTS_FILE) / 1e6)
        told = describe_tokenizer(name)
        note = "comes with mmgen"
        card = Card(SHIPPED, name, told["task"], "", (), "", (), size, told["licence"], note)
        found.append(card)
    return found


def describe_card(card: Card) -> dict[str, Any]:
    """What the catalogue has of a published checkpoint."""
    return {
        "name": f"{card.system}/{card.name}",
        "task": card.task,
        "where": card.repository or "not on the hub",
        "files": list(card.files),
        "goes with": [*([card.tokenizer] if card.tokenizer else []), *card.beside],
        "megabytes": card.megabytes,
        "licence": card.licence or "not stated",
        "note": card.note,
        "import": card.import_line,
    }


def describe_folder(folder: Path, shipped: bool = False) -> dict[str, Any]:
    """What a pipeline's folder says of itself.

    Raises:
        CheckpointError: the folder is damaged.
    """
    from mmgen.pipeline_folder import read_info

    info = read_info(folder)
    parts = {part: _config(folder / part) for part in ("vision", "transformer")}
    drawer = parts["transformer"]
    grid = drawer.get("grid") or ()
    return {
        "name": info.name,
        "task": _task(drawer),
        "where": "shipped with mmgen" if shipped else str(folder),
        "picture": f"{info.image_size} x {info.image_size} pixels",
        "grid": " x ".join(map(str, grid)) + _codes(drawer),
        "units": {
            unit["name"]: {"order": unit["order"], "prediction": unit["prediction"]}
            for unit in drawer.get("units", ())
        },
        "weights": {part: parameters(folder / part / WEIGHTS_FILE) for part in parts},
        "sampling": {
            k: v for k, v in asdict(info.sampling).items() if k not in ("solver", "steps")
        },
        "training": info.training,
        "sources": [f"{s.component}: {s.file} of {s.system} ({s.licence})" for s in info.sources],
        "licence": info.licence or "not stated",
        "figures": _figures(folder / FIGURES_FILE),
    }


def describe_tokenizer(name: str) -> dict[str, Any]:
    """What a shipped tokenizer's folder says of itself: its `card.json` and its weights.

    Raises:
        CheckpointError: the folder is damaged.
    """
    folder = shipped_tokenizer(name)
    card = read_json(folder / TOKENIZER_CARD)
    if not isinstance(card, dict):
        raise CheckpointError(f"{folder / TOKENIZER_CARD} is damaged; install mmgen again.")
    return {
        "name": name,
        "where": "shipped with mmgen",
        **card,
        "weights": {"vision": parameters(folder / WEIGHTS_FILE)},
    }


def parameters(file: Path) -> int:
    """How many numbers a safetensors file holds, by its header.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return sum(count for count, _ in _tensors(file))


def stored_bytes(file: Path) -> int:
    """How many bytes the numbers of a safetensors file take, by its header.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return sum(size for _, size in _tensors(file))


def _tensors(file: Path) -> list[tuple[int, int]]:
    """How many numbers and bytes each tensor of a safetensors file has, by its header."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, 2**27)))
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        offsets = [entry["data_offsets"] for entry in entries]
        return [
            (prod(e["shape"]), int(end) - int(start)) for e, (start, end) in zip(entries, offsets)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        raise CheckpointError(f"{file} is missing or damaged; copy the folder again.") from None


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'} is damaged; copy the folder again.")
    return config


def _task(drawer: dict[str, Any]) -> str:
    """By what its transformer reads: text of its own, a condition, or the first frames."""
    what = "video" if (drawer.get("grid") or (1,))[0] > 1 else "image"
    if drawer.get("class") == "UnifiedModel":
        return f"text-to-{what}, {what}-to-text"
    units = drawer.get("units") or ()
    if units and all(unit.get("start") == "given" for unit in units):
        return "frame-prediction"
    condition = drawer.get("condition")
    kind = condition.get("kind") if isinstance(condition, dict) else "class"
    reads = {"features": "text", "words": "text"}.get(str(kind), "class")
    return f"{reads}-to-{what}" if kind != "nothing" else what


def _codes(drawer: dict[str, Any]) -> str:
    size = drawer.get("codebook_size")
    return f" of {size} codes" if size else " latents"


def _figures(file: Path) -> dict[str, Any]:
    """Concept score and KID of generated and real pictures of each set, if they were measured."""
    if not file.is_file():
        return {}
    measured = read_json(file)
    try:
        return {
            name: {
                "concept top-1": own["concept"]["top1"],
                "real": measured["real"][name]["concept"]["top1"],
                "KID": own["kid"],
                "pictures": own["concept"]["count"],
            }
            for name, own in measured["generated"].items()
        }
    except (KeyError, TypeError):
        raise CheckpointError(f"{file} is damaged; copy the folder again.") from None
