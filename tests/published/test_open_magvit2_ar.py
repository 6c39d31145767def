"""Open-MAGVIT2's generators: names and sizes of the published files, and what a file tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmgen.errors import UserError
from mmgen.published import open_magvit2_ar
from mmgen.published.systems import parts
from tests.published.test_ibq_ar import Shapes, blocks, drawn, on_meta

TINY = {
    **{"spatial_n_layer": 2, "factorized_n_layer": 1, "dim": 32, "n_head": 2},
    **{"factorized_bits": (2, 4), "vocab_size": 64},
}


def official_shapes(options: dict[str, Any]) -> Shapes:
    """Keys and shapes of an official file without its tokenizer."""
    width, (pre, post) = options["dim"], options["factorized_bits"]
    found = blocks("spatial_blocks", options["spatial_n_layer"], width)
    found |= blocks("factorized_blocks", options["factorized_n_layer"], width)
    found |= {
        "pre_emb.weight": (2**pre, width),
        "post_emb.weight": (2**post, width),
        "class_emb.embedding_table.weight": (1001, width),
        "norm.weight": (width,),
        "head.0.weight": (2**pre, width),
        "head.1.weight": (2**post, width),
    }
    return {f"transformer.{key}": shape for key, shape in found.items()}


@pytest.mark.parametrize(
    ("name", "millions", "scales", "temperatures"),
    [
        ("AR-B", 343, (1.9, 2.0), (1.0, 1.0)),
        ("AR-L", 804, (1.9, 1.9), (1.1, 1.0)),
        ("AR-XL", 1500, (1.75, 1.85), (1.1, 1.0)),
    ],
)
def test_published_sizes(
    name: str, millions: int, scales: tuple[float, ...], temperatures: tuple[float, ...]
) -> None:
    options = open_magvit2_ar.PRESETS[name]
    shapes = official_shapes(options)
    tensors = on_meta(shapes)
    converted = open_magvit2_ar.convert(tensors, {}, name)  # strict both ways
    network = converted.network
    assert network.config == open_magvit2_ar.convert(tensors, options, name).network.config
    assert (network.config.backbone.heads, network.config.bits) == (options["n_head"], (6, 12))
    own = sum(p.numel() for p in network.parameters())
    assert own == sum(torch.Size(shape).numel() for shape in shapes.values())
    assert abs(own / 1e6 - millions) < 0.03 * millions
    assert converted.sampling is not None and converted.image_size == 256
    assert converted.sampling.guidance_scale == scales
    assert converted.sampling.temperature == temperatures
    for key in ("factorized_blocks.1.attention.wo.weight", "norm.weight", "head.0.weight"):
        fewer = {k: v for k, v in tensors.items() if k != f"transformer.{key}"}
        with pytest.raises(UserError):
            open_magvit2_ar.convert(fewer, {}, name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no published width"),
        ({"n_head": 2, "factorised_bits": [2, 4]}, "factorized_bits"),
        ({"n_head": 2, "factorized_bits": [4, 2]}, "factorized_bits"),
        ({"n_head": 2, "token_factorization": False}, "not built"),
        ({"n_head": 2, "block_size": 10}, "no square"),
    ],
)
def test_wrong_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_magvit2_ar.convert(drawn(official_shapes(TINY)), options, "a.ckpt")


def test_no_other_system_takes_the_file() -> None:
    known = [part for part in parts() if part.recognise(official_shapes(TINY))]
    assert [(part.system, part.component) for part in known] == [("open-magvit2", "transformer")]
