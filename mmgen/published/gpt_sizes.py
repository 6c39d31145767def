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
from mmgen.published.keymap import shape

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
    stages = [size for name, size in STAGES.items() if name in where] if model_type == "t2i" else []
    if len(stages) == 1:  # a file of `NAR-XL-t2i-stage2`
        return (stages[0] // PATCH) ** 2, "as its name says"
    return (256 // PATCH) ** 2, ""


def size_notes(
    block_size: int,
    options: Mapping[str, Any],
    where: str,
    model_type: str = "c2i",
    tabled: bool = False,
) -> tuple[str, ...]:
    """What to say of a size that the user did not give.

    Args:
        block_size: tokens of a picture.
        options: what the user said.
        where: what to call the file in messages.
        model_type: "c2i" or "t2i".
        tabled: the file's rotary table tells it.
    """
    if tabled or "block_size" in options:
        return ()
    size, said = image_size(block_size), named_size(where, model_type)[1]
    if said:
        return (f"{size} pixels, {said}",)
    return (f"{size} pixels assumed; say block_size= (tokens of a picture) if it is another size",)


def image_size(block_size: int) -> int:
    """Pixels a side of a picture of so many tokens."""
    return isqrt(block_size) * PATCH
