"""Two published systems that do not exist, small enough for tests, and files of theirs."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmgen.models.backbone import BackboneConfig
from mmgen.models.conditional import ConditionalConfig, ConditionalModel, Tap
from mmgen.models.conditions import ClassConfig
from mmgen.models.units import Unit
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published.keymap import load, rename
from mmgen.published.options import assumed, official
from mmgen.published.systems import Converted, Part, Piece, Shapes
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig

TINY = ConvTokenizerConfig(
    quantizer=FSQConfig(levels=(4, 4, 3)),
    patch_size=4,
    widths=(8,),
    res_blocks=1,
    decoder_res_blocks=1,
    attention_levels=(),
    middle_attention=False,
    z_channels=8,
    norm_groups=4,
)


@dataclass(frozen=True)
class Official:
    """Official option names of both systems."""

    ch: int = 8
    groups: int = 4


@dataclass(frozen=True)
class Drawn(Official):
    """Those of the generator."""

    rope_base: float = 100.0
    grid: int = 6


def tokenizer(**changes: Any) -> ConvTokenizer:
    """Random weights, the same ones every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvTokenizer(replace(TINY, **changes)).eval()


def generator(ch: int = 8, groups: int = 4, grid: int = 6) -> ConditionalModel:
    """Draws 24 pixels of the tokenizer's codes; random weights, the same ones every time."""
    config = ConditionalConfig(
        backbone=BackboneConfig(width=4 * ch, depth=1, heads=groups, qk_norm=False),
        condition=ClassConfig(classes=5),
        codebook_size=48,
        grid=(1, grid, grid),
        units=(Unit("token", "raster", "shift"),),
        taps=(Tap("x", 1),),
        positions="yx",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConditionalModel(config).eval()


def official_weights(prefix: str = "vq.") -> dict[str, Tensor]:
    """The state dict as the made-up official code would write it."""
    network = generator() if prefix == "gpt." else tokenizer()
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


def _has(*prefixes: str) -> Any:
    """Recognises a file in which every key has one of the prefixes, and every prefix occurs."""

    def recognise(shapes: Shapes) -> bool:
        met = {next((p for p in prefixes if key.startswith(p)), None) for key in shapes}
        return met == set(prefixes)

    return recognise


def _convert(prefix: str, component: str) -> Any:
    def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
        renamed = rename(tensors, [(rf"{prefix}(.*)", r"\1")], where)
        if component == "transformer":
            drawn = official(Drawn, options, where, ignored=("dropout",))
            painter = generator(drawn.ch, drawn.groups, drawn.grid)
            load(painter, renamed, where)
            sampling = SamplingDefaults(guidance_scale=2.0)
            left = assumed(drawn, options, ("rope_base",))
            size = 4 * drawn.grid
            return Converted(component, painter, size, sampling, ("a tiny one",), left)
        chosen = official(Official, options, where, ignored=("dropout",))
        network = tokenizer(widths=(chosen.ch,), norm_groups=chosen.groups)
        load(network, renamed, where)
        return Converted(component, network, 16, notes=("a tiny one",))

    return convert


def _part(system: str, name: str, prefix: str, component: str, **more: Any) -> Part:
    return Part(
        system=system,
        name=name,
        licence="MIT",
        source=f"somebody/{system}",
        recognise=more.pop("recognise", None) or _has(prefix),
        convert=_convert(prefix, component),
        component=component,
        **more,
    )


PARTS = (
    _part("apple", "VQ tokenizer", r"vq.", "vision"),
    _part(
        "apple", "generator", r"gpt.", "transformer", recorded=lambda extras: extras.get("args", {})
    ),
    _part(
        "pear",
        "two-piece tokenizer",
        "(?:core|head).",
        "vision",
        recognise=_has("core.", "head."),
        pieces=(
            Piece("core", _has("core.")),
            Piece("head", lambda shapes: set(shapes) == HEAD, prefix="head."),
        ),
    ),
)
HEAD = {name for name in official_weights("") if name.startswith("decoder")}


class Evil:
    """Runs a command when it is unpickled without care."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch was-here",)


def save(path: Path, content: Any, **how: Any) -> Path:
    """`torch.save`, returning the path."""
    torch.save(content, path, **how)
    return path


def save_pickle(path: Path, content: Any) -> Path:
    """A plain pickle, as hostile files may be."""
    path.write_bytes(pickle.dumps(content))
    return path
