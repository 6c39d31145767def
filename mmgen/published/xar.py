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
from mmgen.published.keymap import count, load, rename
from mmgen.published.options import official
from mmgen.published.systems import Converted, Part, Shapes


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


# `class_num` is ignored by the official table too, which always has 1001 rows.
CLASSES = 1000
IGNORED = (
    "attn_dropout",
    "class_num",
    "diffusion_batch_mul",
    "grad_checkpointing",
    "norm_layer",
    "patch_size",
    "qk_norm",
)


def _preset(width: int, depth: int, heads: int) -> dict[str, Any]:
    sizes = {"embed_dim": width, "depth": depth, "num_heads": heads}
    return {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in sizes.items()}


PRESETS = {
    "xAR-B": _preset(768, 8, 12),
    "xAR-L": _preset(1024, 16, 16),
    "xAR-H": _preset(1280, 20, 16),
}

RULES = (
    (r"mask", None),
    (r"(?:en|de)coder_blocks\.\d+\.attn\.rope\.freqs(?:_cos|_sin)?", None),
    (r"class_emb\.weight", "labels.weight"),
    (r"time_embed\.(mlp\..*)", r"time.\1"),
    (r"pred\.(.*)", r"out.\1"),
    (r"z_proj\.(.*)", r"stacks.0.enter.\1"),
    (r"decoder_embed\.(.*)", r"stacks.1.enter.\1"),
    (r"z_proj_ln\.weight", "stacks.0.entry_norm.weight"),
    (r"encoder_pos_embed_learned", "stacks.0.places"),
    (r"decoder_pos_embed_learned", "stacks.1.places"),
    (r"encoder_norm\.weight", "stacks.0.norm.weight"),
    (r"decoder_norm\.weight", "stacks.1.norm.weight"),
    (r"encoder_blocks\.(.*)", r"stacks.0.backbone.blocks.\1"),
    (r"decoder_blocks\.(.*)", r"stacks.1.backbone.blocks.\1"),
)
BLOCK_RULES = (
    (r"(.*)\.attn\.qkv\.(.*)", r"\1.attention.qkv.\2"),
    (r"(.*)\.attn\.proj\.(.*)", r"\1.attention.out.\2"),
    (r"(.*)\.mlp\.fc2\.(.*)", r"\1.mlp.out.\2"),
    (r"(.*)\.ada_lin\.1\.(.*)", r"\1.modulation.\2"),
    (r"(.*)", r"\1"),
)


def configuration(options: Options) -> VelocityConfig:
    """Official options as a configuration of ours.

    Raises:
        ConfigError: a number of clusters that does not cut the latent into square cells.
    """
    side = options.img_size // options.vae_stride
    cells = math.isqrt(options.clusters)
    if options.clusters < 1 or cells * cells != options.clusters or side % cells:
        raise ConfigError(
            f"clusters={options.clusters} does not cut a latent of {side}x{side} into square "
            "cells; give a square of a divisor, such as 4."
        )
    return VelocityConfig(
        stacks=(_stack(options, "encoder"), _stack(options, "decoder")),
        channels=options.vae_embed_dim,
        grid=(1, side, side),
        order=f"cell:{side // cells}",
        classes=CLASSES,
        label_drop=options.label_drop_prob,
        whole_times=True,
    )


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """An official state dict as a component (`systems.Part.convert`)."""
    known = {**_inferred(tensors, where), **options}
    config = configuration(official(Options, known, where, IGNORED))
    network = VelocityModel(config)
    load(network, our_tensors(tensors, config, where), where)
    return Converted("transformer", network, image_size=int(known["img_size"]))


def our_tensors(
    tensors: Mapping[str, Tensor], config: VelocityConfig, where: str
) -> dict[str, Tensor]:
    """Official tensors by our names, in our layout.

    Raises:
        CheckpointError: a key that xAR does not have.
    """
    found = rename(rename(_fused(tensors), RULES, where), BLOCK_RULES, where)
    for name, tensor in found.items():
        if name.endswith(".places"):
            found[name] = tensor.squeeze(0)
        elif ".attention.qkv." in name:
            stack = config.stacks[int(name.split(".")[1])]
            found[name] = _split_pairs(tensor, stack.heads, stack.head_dim)
    return found


def recognise(shapes: Shapes) -> bool:
    """Whether these are the keys of an xAR file."""
    needed = ("encoder_blocks.0.ada_lin.1.weight", "decoder_blocks.0.mlp.fc1_g.weight")
    return all(key in shapes for key in (*needed, "z_proj_ln.weight", "time_embed.mlp.0.weight"))


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


def _stack(options: Options, part: str) -> BackboneConfig:
    width = getattr(options, f"{part}_embed_dim")
    return BackboneConfig(
        width=width,
        depth=getattr(options, f"{part}_depth"),
        heads=getattr(options, f"{part}_num_heads"),
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
        found: dict[str, Any] = {
            "img_size": 16 * math.isqrt(slots),
            "vae_stride": 16,
            "vae_embed_dim": len(tensors["pred.weight"]),
            # The hidden width was rounded down; half a channel more comes back to it.
            "mlp_ratio": 1.5 * (hidden + 0.5) / width,
        }
        for part in ("encoder", "decoder"):
            width = tensors[f"{part}_pos_embed_learned"].shape[-1]
            found[f"{part}_embed_dim"] = width
            found[f"{part}_depth"] = count(tensors, rf"{part}_blocks\.(\d+)\..*")
            rope = tensors.get(f"{part}_blocks.0.attn.rope.freqs")
            if rope is not None:
                found[f"{part}_num_heads"] = width // (4 * len(rope))
        if "mask" in tensors:
            found["clusters"] = slots // int((tensors["mask"][0, 0, 0] == 0).sum())
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{where} is no whole file of xAR (at {error}).") from None
    return found


def _fused(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Both inner layers of an MLP as one, the gate first."""
    fused = {}
    for key, tensor in tensors.items():
        if ".mlp.fc1_g." in key:
            other = tensors.get(key.replace("fc1_g", "fc1_x"))
            if other is not None:
                tensor = torch.cat([tensor, other])
            key = key.replace("fc1_g", "inner")
        elif ".mlp.fc1_x." in key and key.replace("fc1_x", "fc1_g") in tensors:
            continue
        fused[key] = tensor
    return fused


def _split_pairs(rows: Tensor, heads: int, head_dim: int) -> Tensor:
    """Rotary pairs (2i, 2i + 1) of queries and keys to ours, (i, i + head_dim / 2)."""
    q, k, v = rows.unflatten(0, (3, heads, head_dim)).unbind()
    pairs = torch.arange(head_dim).view(-1, 2).T.flatten()
    return torch.stack([q[:, pairs], k[:, pairs], v]).flatten(0, 2)
