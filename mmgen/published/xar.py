"""xAR (arXiv 2502.20388): entities of a KL-16 latent, one after the other, by flow matching.

Repository `OliverRensu/xAR`, files `xAR-B.pth`, `xAR-L.pth`, `xAR-H.pth`. The pictures need MAR's
KL-16 tokenizer beside it. What is unusual, and what we call it: the gate of "SwiGLU" is GELU
(`mlp="geglu"`), the network is told whole times (`whole_times`), positions are learned in entity
order and rotary in true rows and columns, guidance grows over the entities (`guidance_ramp`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmgen.errors import CheckpointError, ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.velocity import VelocityConfig, VelocityModel
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published.keymap import count, load
from mmgen.published.options import official
from mmgen.published.systems import Converted, Part, Shapes
from mmgen.published.xar_keys import STACKS, our_tensors

CLASSES = 1000  # the official table has one row more, whatever `class_num` is
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
    needed = ("encoder_blocks.0.ada_lin.1.weight", "decoder_blocks.0.mlp.fc1_g.weight")
    return all(key in shapes for key in (*needed, "z_proj_ln.weight", "time_embed.mlp.0.weight"))


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """An official state dict as a component; see `systems.Part`."""
    found = _inferred(tensors, where)
    for name in ("clusters", "encoder_num_heads", "decoder_num_heads"):  # no shape would object
        if options.get(name, found.get(name)) != found.get(name, options.get(name)):
            raise ConfigError(
                f"{where} was given {name}={options[name]}, but its file says {found[name]}; "
                "leave the option out."
            )
    chosen = official(Options, {**found, **options}, where, IGNORED)
    config = configuration(chosen)
    with torch.device("meta"):
        network = VelocityModel(config)
    network.to_empty(device=tensors["pred.weight"].device)
    load(network, our_tensors(tensors, config, where), where)
    sampling = sampling_of(chosen.encoder_embed_dim)
    return Converted("transformer", network.eval(), chosen.img_size, sampling)


PARTS = (
    Part(
        system="xar",
        name="class-conditional generator",
        licence="not stated",
        source="OliverRensu/xAR",
        recognise=recognise,
        convert=convert,
        component="transformer",
    ),
)


def configuration(options: Options) -> VelocityConfig:
    """Official options as a configuration of ours.

    Raises:
        ConfigError: a number of clusters that does not cut the latent into square cells.
    """
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
        classes=CLASSES,
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


def _inferred(tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Official options that a state dict tells."""
    try:
        slots, width = tensors["encoder_pos_embed_learned"].shape[1:]
        hidden = len(tensors["encoder_blocks.0.mlp.fc1_g.weight"])
        found: dict[str, Any] = {"img_size": 16 * math.isqrt(slots), "vae_stride": 16}
        found["vae_embed_dim"] = len(tensors["pred.weight"])
        # The hidden width was rounded down; half a channel more comes back to it.
        found["mlp_ratio"] = 1.5 * (hidden + 0.5) / width
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
    return found
