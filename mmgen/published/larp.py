"""LARP: the holistic video tokenizer that NAR uses on clips (specs/nar.md 6.1).

Official files: `hywang66/LARP-L-long-tokenizer` (config.json and model.safetensors), and the folder
of a .json and a .pth that the NAR repository reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.published import keymap
from mmgen.published.options import official
from mmgen.published.systems import Converted, Part
from mmgen.tokenizers_vis.larp import LarpConfig, LarpTokenizer
from mmgen.tokenizers_vis.quantizers import VQConfig
from mmgen.tokenizers_vis.vit import ViTConfig


@dataclass(frozen=True)
class RegularizerArguments:
    """The quantizer; official names."""

    codebook_size: int = 8192
    commitment_loss_weight: float = 0.25
    codebook_loss_weight: float = 1.0
    entropy_loss_weight: float = 0.0
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


PRESETS: dict[str, dict[str, Any]] = {"LARP-L-long": {}}

RULES: tuple[tuple[str, keymap.Target], ...] = (
    (r"x_embedder\.proj\.(weight|bias)", r"patchify.\1"),
    (r"encoder_latent_query_embed", "encoder_queries"),
    # Tables are kept as the file has them, fixed or learned.
    (r"encoder_patch_pe", "patch_places"),
    (r"decoder_latent_pe", "token_places"),
    (r"decoder_patch_query_embed", "query_places"),
    (r"decoder_patch_query_token_type_embed", "query_type"),
    (r"((?:en|de)coder\.blocks\.\d+)\.(norm[12]\.(?:weight|bias))", r"\1.\2"),
    (r"((?:en|de)coder\.blocks\.\d+)\.(?:attn|mlp)\.((?:qkv|proj|fc[12])\.\w+)", r"\1.\2"),
    (r"bottleneck\.in_linear\.(weight|bias)", r"to_code.\1"),
    (r"bottleneck\.out_linear\.(weight|bias)", r"from_code.\1"),
    (r"bottleneck\.regularizer\.embedding\.weight", "quantizer.codebook"),
    (r"final_layer\.norm_final\.(weight|bias)", r"norm_out.\1"),
    (r"final_layer\.linear\.(weight|bias)", r"to_pixels.\1"),
    (r"prior_model\..+", None),  # a regulariser of training
)
_ROWS = ("patch_places", "token_places", "query_places")  # officially with a batch axis of 1


def tokenizer_config(options: LarpOptions) -> LarpConfig:
    """Our configuration of official options."""
    arguments = options.bottleneck.args
    vq = arguments.regularizer.args
    return LarpConfig(
        quantizer=VQConfig(
            codebook_size=vq.codebook_size,
            channels=arguments.bottleneck_dim,
            normalize=vq.l2_normalized,
            codebook_weight=vq.codebook_loss_weight,
            commitment_weight=vq.commitment_loss_weight,
        ),
        encoder=_vit(options, "encoder"),
        decoder=_vit(options, "decoder"),
        tokens=options.bottleneck_token_num,
        frames=options.frame_num,
        size=options.input_size,
        patch=(options.temporal_patch_size, options.patch_size, options.patch_size),
        decoder_patch=(
            options.decoder_temporal_patch_size,
            options.decoder_patch_size,
            options.decoder_patch_size,
        ),
        token_base=options.latent_pe_scale_factor,
    )


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """Read a tokenizer; sizes come from the options, by default those of LARP-L-long."""
    read = official(LarpOptions, options, where)
    vq = read.bottleneck.args.regularizer.args
    if vq.entropy_loss_weight:
        raise ConfigError(f"{where} was trained with an entropy loss, which is not supported.")
    with next(iter(tensors.values())).device:
        network = LarpTokenizer(tokenizer_config(read))
    ours = keymap.rename(tensors, RULES, where)
    for name in _ROWS:
        if name in ours and ours[name].ndim > 1:  # else the size is refused below
            ours[name] = ours[name].flatten(0, -2)  # (rows, width)
    if "query_type" in ours:
        ours["query_type"] = ours["query_type"].flatten()
    keymap.load(network, ours, where)
    notes = ("codes are the likeliest ones; the official class draws them unless told otherwise",)
    return Converted("vision", network.eval(), read.input_size, notes=notes)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the keys are those of a LARP tokenizer."""
    return "encoder_latent_query_embed" in shapes and "bottleneck.in_linear.weight" in shapes


def _vit(options: LarpOptions, side: str) -> ViTConfig:
    return ViTConfig(
        width=getattr(options, f"{side}_hidden_size"),
        depth=getattr(options, f"{side}_depth"),
        heads=getattr(options, f"{side}_num_heads"),
    )


PARTS = (
    Part(
        system="larp",
        name="holistic video tokenizer",
        licence="MIT",
        source="hywang66/LARP",
        recognise=recognise,
        convert=convert,
        component="vision",
    ),
)
