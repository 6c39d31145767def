"""xAR (arXiv 2502.20388): entities of a KL-16 latent, one after the other, by flow matching.

Repository `OliverRensu/xAR`, files `xAR-B.pth`, `xAR-L.pth`, `xAR-H.pth`. The pictures need MAR's
KL-16 tokenizer beside it. What is unusual, and what we call it: the gate of "SwiGLU" is GELU
(`mlp="geglu"`), the network is told whole times (`whole_times`), positions are learned in entity
order and rotary in true rows and columns, guidance grows over the entities (`guidance_ramp`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mmgen.errors import CheckpointError, ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.velocity import VelocityConfig, VelocityModel
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published.building import build
from mmgen.published.keymap import count
from mmgen.published.options import assumed, official, refuse_contradictions, refuse_other_ranks
from mmgen.published.systems import Converted, Part, Shapes
from mmgen.published.xar_keys import NEEDED, STACKS, our_tensors

RANKS = {
    r".*_pos_embed_learned": 3,
    r"mask": 4,
    r".*\.rope\.freqs|.*\.(qkv|fc1_[gx])\.bias": 1,
    r"(class_emb|pred|time_embed\.mlp\.0|.*\.qkv|.*\.fc1_[gx])\.weight": 2,
}
# For training only, or without effect in the official code.
IGNORED = (
    *("attn_dropout", "class_num", "diffusion_batch_mul", "norm_layer", "patch_size", "qk_norm"),
)


@dataclass(frozen=True)
class Options:
    """The constructor's arguments that matter, under their official names."""

    encoder_embed_dim: int
    encoder_depth: int
    encoder_num_heads: int
    decoder_embed_dim: int
    decoder_depth: int
    decoder_num_heads: int
    img_size: int = 256
    vae_stride: int = 16
    vae_embed_dim: int = 16
    mlp_ratio: float = 4.0
    label_drop_prob: float = 0.1
    proj_dropout: float = 0.1
    clusters: int = 4


def _preset(width: int, depth: int, heads: int) -> dict[str, Any]:
    sizes = {"embed_dim": width, "depth": depth, "num_heads": heads}
    return {f"{stack}_{name}": size for stack in STACKS for name, size in sizes.items()}


PRESETS = {
    "xAR-B": _preset(768, 8, 12),
    "xAR-L": _preset(1024, 16, 16),
    "xAR-H": _preset(1280, 20, 16),
}


def recognise(shapes: Shapes) -> bool:
    """Whether these are the keys of an xAR file."""
    return set(shapes) >= NEEDED


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """An official state dict as a component; see `systems.Part`."""
    refuse_other_ranks(tensors, RANKS, where)
    found, ratio, side = _inferred(tensors, where)
    chosen = official(Options, {"mlp_ratio": ratio, **found, **options}, where, IGNORED)
    refuse_contradictions(options, found, where)
    if "img_size" not in options:
        chosen = replace(chosen, img_size=side * chosen.vae_stride)
    if chosen.img_size != side * chosen.vae_stride:
        raise ConfigError(
            f"{where} has latents of {side}x{side}, which img_size={chosen.img_size} and "
            f"vae_stride={chosen.vae_stride} do not make; leave img_size out."
        )
    # The class table has one row more, whatever `class_num` is.
    classes, waves = len(tensors["class_emb.weight"]) - 1, tensors["time_embed.mlp.0.weight"]
    config = configuration(chosen, classes, waves.shape[1])
    network = build(lambda: VelocityModel(config), our_tensors(tensors, config, where), where)
    sampling = sampling_of(chosen.encoder_embed_dim)
    untold = assumed(chosen, {**found, **options}, ("vae_stride", "clusters"))
    return Converted("transformer", network, chosen.img_size, sampling, assumed=untold)


PARTS = (
    Part(
        system="xar",
        name="class-conditional generator",
        licence="not stated",
        source="OliverRensu/xAR",
        recognise=recognise,
        convert=convert,
        component="transformer",
        needed=NEEDED,
    ),
)


def configuration(
    options: Options, classes: int = 1000, time_channels: int = 256
) -> VelocityConfig:
    """Official options as a configuration of ours.

    Args:
        options: the constructor's arguments.
        classes: labels, without the one of no label.
        time_channels: channels of the cosines and sines of a time.

    Raises:
        ConfigError: sizes below 1, or a number of clusters that does not cut the latent into square
            cells.
    """
    if min(options.img_size, options.vae_stride) < 1:
        raise ConfigError("img_size and vae_stride must be 1 or more.")
    if not 0 < options.mlp_ratio <= 1024:
        raise ConfigError(f"mlp_ratio must be above 0 and at most 1024, not {options.mlp_ratio}.")
    for name in ("label_drop_prob", "proj_dropout"):
        if not 0 <= getattr(options, name) <= 1:
            raise ConfigError(f"{name} must lie between 0 and 1, not {getattr(options, name)}.")
    side, across = options.img_size // options.vae_stride, math.isqrt(max(0, options.clusters))
    if across < 1 or across**2 != options.clusters or side % across:
        raise ConfigError(
            f"clusters={options.clusters} does not cut a latent of {side}x{side} into square "
            "cells; give a square of a divisor, such as 4."
        )
    return VelocityConfig(
        stacks=(_stack(options, "encoder"), _stack(options, "decoder")),
        channels=options.vae_embed_dim,
        grid=(1, side, side),
        order=f"cell:{side // across}",
        classes=classes,
        time_channels=time_channels,
        label_drop=options.label_drop_prob,
        whole_times=True,
    )


def sampling_of(width: int) -> SamplingDefaults:
    """The evaluation settings of the repository, by the width of the model."""
    scale = {768: 2.7, 1024: 2.3}.get(width, 2.2)
    steps = 40 if width == 768 else 50
    return SamplingDefaults(guidance_scale=scale, guidance_ramp="linear", steps=steps)


def _stack(options: Options, stack: str) -> BackboneConfig:
    width = getattr(options, f"{stack}_embed_dim")
    return BackboneConfig(
        width=width,
        depth=getattr(options, f"{stack}_depth"),
        heads=getattr(options, f"{stack}_num_heads"),
        mlp_width=int(int(width * options.mlp_ratio) * 2 / 3),
        mlp="geglu",
        norm_eps=1e-6,
        bias=True,
        qk_norm=False,
        dropout=options.proj_dropout,
        adaln=True,
    )


def _inferred(tensors: Mapping[str, Tensor], where: str) -> tuple[dict[str, Any], float, int]:
    """Official options that a state dict tells, the MLP's ratio, and the side of the latent."""
    found: dict[str, Any] = {}
    try:
        slots, width = tensors["encoder_pos_embed_learned"].shape[1:]
        hidden = len(tensors["encoder_blocks.0.mlp.fc1_g.weight"])
        side, odd = math.isqrt(slots), tensors["time_embed.mlp.0.weight"].shape[1] % 2
        if side**2 != slots or odd or len(tensors["class_emb.weight"]) < 2:
            raise ValueError("its sizes")
        found["vae_embed_dim"] = len(tensors["pred.weight"])
        # The hidden width was rounded down; half a channel more comes back to it.
        ratio = 1.5 * (hidden + 0.5) / width
        for stack in STACKS:
            width = tensors[f"{stack}_pos_embed_learned"].shape[-1]
            found[f"{stack}_embed_dim"] = width
            found[f"{stack}_depth"] = count(tensors, rf"{stack}_blocks\.(\d+)\..*")
            if (rope := tensors.get(f"{stack}_blocks.0.attn.rope.freqs")) is not None:
                found[f"{stack}_num_heads"] = width // (4 * len(rope))
        if "mask" in tensors:
            found["clusters"] = slots // int((tensors["mask"][0, 0, 0] == 0).sum())
    except (KeyError, IndexError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{where} is no whole file of xAR (at {error}).") from None
    return found, ratio, side
