"""NBP's causal video tokenizer (specs/nbp.md 2): `magvit2_*.pt`, or inside a transformer's file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from mmgen.errors import CheckpointError
from mmgen.published import keymap
from mmgen.published.building import build
from mmgen.published.options import assumed, official, refuse_contradictions, refuse_groups
from mmgen.published.systems import Converted, Part, shapes_of
from mmgen.tokenizers_vis.causal_video import CausalVideoTokenizer, CausalVideoTokenizerConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig

NESTED = "first_stage_model."  # where a transformer's file keeps its tokenizer

# A reference case's name of the class, and what it says of the published sizes.
_SAID = (
    "class",
    "official_channels",
    "official_residual_units_per_stage",
    "official_group_norm_groups",
)


@dataclass(frozen=True)
class TokenizerOptions:
    """Arguments of the official `VideoTokenizer`; None where the tensors tell."""

    fsq_levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    group_norm_groups: int = 32
    group_norm_eps: float = 1e-5
    image_size: int = 128
    channels: tuple[int, ...] | None = None
    residual_units_per_stage: int | None = None
    embed_dim: int | None = None
    codebook_size: int | None = None
    num_codebooks: Literal[1] = 1
    use_fsq: Literal[True] = True
    in_channels: Literal[3] = 3
    pad_mode: Literal["replicate"] = "replicate"
    spatial_stride: Literal[8] = 8
    temporal_stride: Literal[4] = 4


PRESETS: dict[str, dict[str, Any]] = {
    "NBP-tokenizer": {
        "fsq_levels": (8, 8, 8, 5, 5, 5),
        "channels": (128, 256, 512),
        "residual_units_per_stage": 4,
        "embed_dim": 6,
    }
}


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """Read a video tokenizer, from a file of its own or from that of a transformer."""
    read = official(TokenizerOptions, options, where, _SAID)
    nested = {k.removeprefix(NESTED): t for k, t in tensors.items() if k.startswith(NESTED)}
    own = nested or tensors
    config = network_config(shapes_of(own), read, where)
    renamed = keymap.rename(own, rules(config), where)
    network = build(lambda: CausalVideoTokenizer(config), renamed, where)
    untold = assumed(read, options, ("image_size", "fsq_levels", "group_norm_groups"))
    return Converted("vision", network, read.image_size, assumed=untold)


def network_config(
    shapes: Mapping[str, tuple[int, ...]], options: TokenizerOptions, where: str
) -> CausalVideoTokenizerConfig:
    """Sizes from the shapes, the rest from the options.

    Raises:
        CheckpointError: the tensors are not those of the published network, or not of the options.
    """
    units = sum(
        re.fullmatch(r"encoder_layers\.\d+\.fn\.0\.weight", key) is not None for key in shapes
    )
    units //= 5  # four levels and the middle
    try:
        fine = shapes["encoder_layers.0.conv.weight"][0]
        middle = shapes[f"encoder_layers.{units + 2}.fn.2.conv.weight"][0]
        coarse, latent = shapes["decoder_layers.0.conv.weight"][:2]
    except KeyError as error:
        raise CheckpointError(f"{where} lacks {error} and is no video tokenizer of NBP.") from None
    except (IndexError, ValueError):
        raise CheckpointError(
            f"{where} holds a convolution without its axes; get it again."
        ) from None
    told = {
        "channels": (fine, middle, coarse),
        "residual_units_per_stage": units,
        "embed_dim": latent,
        "codebook_size": math.prod(options.fsq_levels),
    }
    refuse_contradictions(options, told, where)
    refuse_groups((fine, middle, coarse), "group_norm_groups", options.group_norm_groups, where)
    return CausalVideoTokenizerConfig(
        quantizer=FSQConfig(levels=options.fsq_levels, variant="paper"),
        widths=(fine, middle, middle, coarse),
        res_blocks=units,
        z_channels=None if latent == len(options.fsq_levels) else latent,
        norm_groups=options.group_norm_groups,
        norm_eps=options.group_norm_eps,
        pixels="unit",
    )


def rules(config: CausalVideoTokenizerConfig) -> keymap.Rules:
    """Official layers are numbered through; ours have names."""
    layers = {side: _layers(config, side) for side in ("encoder", "decoder")}

    def ours(match: re.Match[str]) -> str:
        side, index, leaf = match[1], int(match[2]), match[3]
        names = layers[side]
        name = names[index] if index < len(names) else f"layer {index}"
        inner = re.sub(r"^(?:residual_)?fn\.\d", lambda part: _UNIT.get(part[0], part[0]), leaf)
        return f"{side}.{name}.{inner}"

    return (
        (r"(encoder|decoder)_layers\.(\d+)\.(.+)", ours),
        (r"quantizers\.project_in\.(weight|bias)", r"to_code.\1"),
        (r"quantizers\.project_out\.(weight|bias)", r"from_code.\1"),
    )


_UNIT = {
    "fn.0": "norm1",
    "fn.1": "act1",
    "fn.2": "conv1",
    "fn.3": "norm2",
    "fn.4": "act2",
    "fn.5": "conv2",
    "residual_fn.0": "shortcut",
}


def _layers(config: CausalVideoTokenizerConfig, side: str) -> list[str]:
    """Our name of each official layer."""
    middle = [f"middle.blocks.{j}" for j in range(config.res_blocks)]
    levels: list[str] = []
    for i in range(len(config.widths)):
        levels += [f"levels.{i}.blocks.{j}" for j in range(config.res_blocks)]
        if i + 1 < len(config.widths):
            # Depth-to-space is a layer of its own there, without tensors.
            resample = f"levels.{i}.resample"
            levels += [resample] if side == "encoder" else [f"{resample}.conv", "none"]
    inner = [*levels, *middle] if side == "encoder" else [*middle, *levels]
    return ["conv_in", *inner, "norm_out", "act_out", "conv_out"]


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the keys are those of a video tokenizer of its own."""
    return shapes.keys() >= _first_keys("")


def recognise_nested(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a transformer's file carries its tokenizer."""
    return shapes.keys() >= _first_keys(NESTED)


def _first_keys(prefix: str) -> set[str]:
    names = ("encoder_layers.0.conv.weight", "encoder_layers.1.fn.1.beta")
    return {prefix + name for name in (*names, "decoder_layers.0.conv.weight")}


PARTS = tuple(
    Part(
        system="nbp",
        name=name,
        licence="MIT",
        source="RenShuhuai-Andy/NBP",
        recognise=known,
        convert=convert,
        component="vision",
        embedded=embedded,
        needed=frozenset() if embedded else frozenset(_first_keys("")),
    )
    for name, known, embedded in (
        ("video tokenizer", recognise, False),
        ("video tokenizer in a transformer's file", recognise_nested, True),
    )
)
