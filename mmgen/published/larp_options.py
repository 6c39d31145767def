"""Official options of LARP: what a file tells of itself, and the rest as in LARP-L-long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.published import keymap
from mmgen.published.options import official, refuse_contradictions, refuse_other_ranks

PUBLISHED_WIDTH = 768  # with 12 heads
RANKS = {
    r"x_embedder\.proj\.weight": 5,
    r"(encoder_patch|decoder_latent)_pe|decoder_patch_query_embed": 3,
    r"encoder_latent_query_embed|bottleneck\.regularizer\.embedding\.weight": 2,
}


@dataclass(frozen=True)
class RegularizerArguments:
    """The quantizer; official names."""

    codebook_size: int = 8192
    commitment_loss_weight: float = 0.25
    codebook_loss_weight: float = 1.0
    entropy_loss_weight: float = 0.0  # of training
    entropy_loss_temperature: float = 0.01
    l2_normalized: bool = True
    stochastic: bool = True  # of training: encoding here is deterministic
    stochastic_temperature: float = 0.03


@dataclass(frozen=True)
class Regularizer:
    """Official names."""

    name: Literal["vq"] = "vq"
    args: RegularizerArguments = field(default_factory=RegularizerArguments)


@dataclass(frozen=True)
class BottleneckArguments:
    """Official names."""

    bottleneck_dim: int = 16
    norm: Literal["none"] = "none"
    regularizer: Regularizer = field(default_factory=Regularizer)


@dataclass(frozen=True)
class Bottleneck:
    """Official names."""

    name: Literal["bottleneck"] = "bottleneck"
    args: BottleneckArguments = field(default_factory=BottleneckArguments)


@dataclass(frozen=True)
class LarpOptions:
    """Constructor arguments of the official tokenizer; defaults: LARP-L-long."""

    bottleneck: Bottleneck = field(default_factory=Bottleneck)
    prior_model: dict[str, Any] = field(default_factory=dict)  # of training
    transformer_name: Literal["transformer_encoder_parallel"] = "transformer_encoder_parallel"
    in_channels: Literal[3] = 3
    learned_encoder_patch_pe: bool = False
    learned_encoder_latent_query_embed: bool = True
    learned_decoder_latent_pe: bool = False
    learned_decoder_patch_query_embed: bool = False
    use_encoder_patch_token_type_embed: Literal[False] = False
    use_encoder_latent_query_token_type_embed: Literal[False] = False
    use_decoder_latent_token_type_embed: Literal[False] = False
    use_decoder_patch_query_token_type_embed: Literal[True] = True
    encoder_query_gaussian_init: bool = True
    latent_pe_scale_factor: float = 10000.0
    query_init_std: float = 0.02
    bottleneck_token_num: int = 1024
    input_size: int = 128
    frame_num: int = 16
    temporal_patch_size: int = 4
    patch_size: int = 8
    decoder_temporal_patch_size: int = 4
    decoder_patch_size: int = 8
    encoder_hidden_size: int = 768
    decoder_hidden_size: int = 768
    encoder_num_heads: int = 12
    decoder_num_heads: int = 12
    encoder_depth: int = 12
    decoder_depth: int = 12


PRESETS: dict[str, dict[str, Any]] = {"LARP-L-long": asdict(LarpOptions())}

# What no tensor tells.
ASSUMED = ("frame_num", "encoder_num_heads", "decoder_num_heads", "latent_pe_scale_factor")


def read_options(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> LarpOptions:
    """What the options say over what the tensors tell.

    Raises:
        UserError: an option is unknown or contradicts the tensors, or nothing tells the heads.
    """
    refuse_other_ranks(tensors, RANKS, where)
    told = _told(tensors, where)
    patches = {f"decoder_{name}": told[name] for name in ("temporal_patch_size", "patch_size")}
    read = official(LarpOptions, {**told, **patches, **options}, where)
    refuse_contradictions(options, told, where)
    for side in ("encoder", "decoder"):
        if f"{side}_num_heads" not in options and told[f"{side}_hidden_size"] != PUBLISHED_WIDTH:
            raise ConfigError(f"No tensor of {where} tells {side}_num_heads; say it.")
    if "input_size" not in options:
        rows = keymap.shape(tensors, "encoder_patch_pe", 3, where)[1]
        times = max(1, read.frame_num // max(1, read.temporal_patch_size))
        read = replace(read, input_size=read.patch_size * math.isqrt(rows // times))
    _refuse_other_clips(read, tensors, where)
    return _with_quantizer(read, tensors, options, where)


def _refuse_other_clips(read: LarpOptions, tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse clips of other patches than the file has, before tables are made for them."""
    for side, key in (("", "encoder_patch_pe"), ("decoder_", "decoder_patch_query_embed")):
        rows = keymap.shape(tensors, key, 3, where)[1]
        time = getattr(read, f"{side}temporal_patch_size")
        across = getattr(read, f"{side}patch_size")
        if min(time, across) < 1 or read.frame_num * read.input_size**2 != rows * time * across**2:
            raise ConfigError(
                f"{where} has {rows} patches of {time}x{across}x{across}, which frame_num="
                f"{read.frame_num} and input_size={read.input_size} do not make; say those of its "
                "clips."
            )


def recorded(extras: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments of the constructor that lie beside the weights."""
    found = extras.get("args")
    if not isinstance(found, Mapping):
        return {}
    return {item.name: found[item.name] for item in fields(LarpOptions) if item.name in found}


def _told(tensors: Mapping[str, Tensor], where: str) -> dict[str, int]:
    """Official options that the tensors tell."""
    tokens, width = keymap.shape(tensors, "encoder_latent_query_embed", 2, where)
    _, _, time, patch, _ = keymap.shape(tensors, "x_embedder.proj.weight", 5, where)
    return {
        "bottleneck_token_num": tokens,
        "temporal_patch_size": time,
        "patch_size": patch,
        "encoder_hidden_size": width,
        "decoder_hidden_size": keymap.shape(tensors, "decoder_latent_pe", 3, where)[2],
        "encoder_depth": keymap.count(tensors, r"encoder\.blocks\.(\d+)\..+"),
        "decoder_depth": keymap.count(tensors, r"decoder\.blocks\.(\d+)\..+"),
    }


def _with_quantizer(
    read: LarpOptions, tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> LarpOptions:
    """The same with the sizes of the codebook."""
    codes, channels = keymap.shape(tensors, "bottleneck.regularizer.embedding.weight", 2, where)
    said = options.get("bottleneck", {}).get("args", {})
    refuse_contradictions(said, {"bottleneck_dim": channels}, where)
    said = said.get("regularizer", {}).get("args", {})
    refuse_contradictions(said, {"codebook_size": codes}, where)
    own = read.bottleneck.args
    vq = replace(own.regularizer.args, codebook_size=codes)
    args = replace(own, bottleneck_dim=channels, regularizer=replace(own.regularizer, args=vq))
    return replace(read, bottleneck=replace(read.bottleneck, args=args))
