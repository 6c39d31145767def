"""How large the pictures of LlamaGen's descendants are: no weight of them tells it.

A rotary table tells it where a file carries one, else the file's name; else 256 pixels are assumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from mmgen.errors import CheckpointError
from mmgen.published.catalogue import cards
from mmgen.published.keymap import shape
from mmgen.published.systems import ASSUMED

PATCH = 16  # pixels a side of a token, with the tokenizer that the weights were trained on
PIXELS = re.compile(r"_(256|384|512)(?!\d)")  # in the name of a published file
STAGES = {"stage1": 256, "stage2": 512}  # in that of the file or repository of a caption's model
STALE = "freqs_cis"  # the rotary table (T + N, D / 2, 2), in some files


def table_facts(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Grid and heads by the shape of the rotary table, if the file carries one."""
    if STALE not in tensors:
        return {}
    rows, pairs, two = shape(tensors, STALE, 3, where)
    sites = rows - facts["cls_token_num"]
    if two != 2 or facts["dim"] % (2 * pairs) or sites < 1 or isqrt(sites) ** 2 != sites:
        raise CheckpointError(
            f"{where} holds '{STALE}' of shape {(rows, pairs, two)}, which is no table of a square "
            f"picture behind {facts['cls_token_num']} rows at width {facts['dim']}; remove it."
        )
    return {"block_size": sites, "n_head": facts["dim"] // (2 * pairs)}


def named_size(where: str, model_type: str) -> tuple[int, str]:
    """Tokens of a picture, and what tells it: the name of a published file, or "" for nothing."""
    if told := PIXELS.search(Path(where).stem):
        return (int(told[1]) // PATCH) ** 2, "as the file's name says"
    named = (Path(where).stem, repository_of(Path(where)))
    stages = [size for stage, size in STAGES.items() if any(stage in name for name in named)]
    if model_type == "t2i" and len(stages) == 1:  # a file of `NAR-XL-t2i-stage2`
        return (stages[0] // PATCH) ** 2, "as its name says"
    return (256 // PATCH) ** 2, ""


def size_by(
    options: Mapping[str, Any], where: str, model_type: str = "c2i", tabled: bool = False
) -> str:
    """What tells the pixels of a picture, as `Converted.size_by` has it.

    Args:
        options: what the user said.
        where: what to call the file in messages.
        model_type: "c2i" or "t2i".
        tabled: the file's rotary table tells its grid.
    """
    if tabled or "block_size" in options:
        return ""
    return named_size(where, model_type)[1] or ASSUMED


def repository_of(path: Path) -> str:
    """The repository whose folder a file lies in, in the hub's cache or under its own name."""
    cached = [part for part in path.parts if part.startswith("models--")]
    published = {card.repository.rpartition("/")[2] for card in cards()}
    return next(iter(cached), path.parent.name if path.parent.name in published else "")


def image_size(block_size: int) -> int:
    """Pixels a side of a picture of so many tokens."""
    return isqrt(block_size) * PATCH
