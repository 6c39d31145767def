"""Two published systems that do not exist, small enough for tests, and files of theirs."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published.keymap import load, rename
from mmgen.published.options import official
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


def tokenizer(**changes: Any) -> ConvTokenizer:
    """Random weights, the same ones every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvTokenizer(replace(TINY, **changes)).eval()


def official_weights(prefix: str = "vq.") -> dict[str, Tensor]:
    """The state dict as the made-up official code would write it."""
    return {prefix + name: tensor for name, tensor in tokenizer().state_dict().items()}


def _has(*prefixes: str) -> Any:
    """Recognises a file in which every key has one of the prefixes, and every prefix occurs."""

    def recognise(shapes: Shapes) -> bool:
        met = {next((p for p in prefixes if key.startswith(p)), None) for key in shapes}
        return met == set(prefixes)

    return recognise


def _convert(prefix: str, component: str) -> Any:
    def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
        chosen = official(Official, options, where, ignored=("dropout",))
        network = tokenizer(widths=(chosen.ch,), norm_groups=chosen.groups)
        load(network, rename(tensors, [(rf"{prefix}(.*)", r"\1")], where), where)
        sampling = SamplingDefaults(guidance_scale=2.0) if component == "transformer" else None
        size = 24 if component == "transformer" else 16
        return Converted(component, network, size, sampling, notes=("a tiny one",))

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
