"""Published systems at their published sizes, with random weights: speed needs no checkpoint.

The official tensors are described by name and shape, and converted as an imported file would be, so
that what is measured is what `mmgen import` makes.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from mmgen.errors import UserError, suggestion
from mmgen.models.conditional import ConditionalModel
from mmgen.pipeline import FORMAT, Pipeline, PipelineInfo
from mmgen.published import llamagen_gpt, nar
from mmgen.published.gpt_images import LABEL
from mmgen.published.systems import Converted
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import VQConfig

SYSTEMS: dict[str, ModuleType] = {"llamagen": llamagen_gpt, "nar": nar}
HEADS = {"llamagen": ("",), "nar": ("", "medusa_")}  # what their heads are called
CODES, CLASSES, MULTIPLE = 16384, 1000, 256

Shapes = dict[str, tuple[int, ...]]


def random_pipeline(name: str) -> Pipeline:
    """A pipeline that draws classes at 256 pixels, with the same random weights every time.

    Args:
        name: SYSTEM/PRESET, such as "llamagen/GPT-B".

    Raises:
        UserError: there is no such size.
    """
    if name not in names():
        raise UserError(f"There is no published size '{name}'{suggestion(name, names())}")
    converted = _converted(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: Any = converted.network
        transformer = ConditionalModel(network.config)
        vision = ConvTokenizer(ConvTokenizerConfig(VQConfig(normalize=True)))  # VQ-16
    sampling = converted.sampling
    assert sampling is not None
    info = PipelineInfo(FORMAT, f"{name}, random weights", 256, sampling)
    return Pipeline(None, vision, transformer.requires_grad_(False), info)


def names() -> list[str]:
    """Every SYSTEM/PRESET that there is."""
    return [
        f"{system}/{preset}"
        for system, module in SYSTEMS.items()
        for preset, options in module.PRESETS.items()
        if options["model_type"] == "c2i"
    ]


def _converted(name: str) -> Converted:
    """The transformer on the meta device, with all its settings."""
    system, _, preset = name.partition("/")
    size = SYSTEMS[system].PRESETS[preset]
    shapes = official_shapes(size, HEADS[system])
    (part,) = (part for part in SYSTEMS[system].PARTS if part.recognise(shapes))
    with torch.device("meta"):
        tensors = {key: torch.empty(shape) for key, shape in shapes.items()}
    converted: Converted = part.convert(tensors, {"n_head": size["n_head"]}, name)
    return converted


def official_shapes(size: dict[str, Any], heads: tuple[str, ...]) -> Shapes:
    """Tensors of an official class-conditional file (specs/nar.md 2.6 and 3.3).

    Args:
        size: `n_layer` and `dim`.
        heads: prefix of each head; every head but the first has a block more.
    """
    dim = size["dim"]
    hidden = -(-int(8 * dim / 3) // MULTIPLE) * MULTIPLE
    block: Shapes = {
        "attention.wqkv": (3 * dim, dim),
        "attention.wo": (dim, dim),
        "feed_forward.w1": (hidden, dim),
        "feed_forward.w3": (hidden, dim),
        "feed_forward.w2": (dim, hidden),
        "attention_norm": (dim,),
        "ffn_norm": (dim,),
    }
    layers = range(size["n_layer"] + len(heads) - 1)
    shapes: Shapes = {
        f"layers.{i}.{key}.weight": shape for i in layers for key, shape in block.items()
    }
    shapes |= {"tok_embeddings.weight": (CODES, dim), LABEL: (CLASSES + 1, dim)}
    for head in heads:
        shapes |= {f"{head}norm.weight": (dim,), f"{head}output.weight": (CODES, dim)}
    return shapes
