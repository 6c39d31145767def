"""Blocks as LlamaGen writes them, which many systems took over, as blocks of our `Backbone`.

Official: one matrix `wqkv`, a gated MLP in three matrices `w1`, `w3`, `w2`, and rotary pairs that
are interleaved channels (2i, 2i + 1). Ours: gate and input in one matrix, and pairs that are halves
(i, i + D/2), so the rows of the query and key matrices change places once, at import.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.conditional import ConditionalConfig, ConditionalModel
from mmgen.published import building, keymap, layouts
from mmgen.published.options import refuse_contradictions, whole

QKV, GATE, INPUT, BOTH = "attention.wqkv", "feed_forward.w1", "feed_forward.w3", "feed_forward.w13"
LONGEST_SIDE = 512  # tokens; far more than any published picture has


def block_rules(official: str = "layers", ours: str = "backbone.blocks") -> keymap.Rules:
    """Key rules of the blocks, after `fuse`.

    Args:
        official: what stands before the number of a block.
        ours: what becomes of it.
    """
    names = {
        QKV: "attention.qkv",
        "attention.wo": "attention.out",
        BOTH: "mlp.inner",
        "feed_forward.w2": "mlp.out",
        "attention_norm": "attention_norm",
        "ffn_norm": "mlp_norm",
    }
    return tuple(
        (rf"{re.escape(official)}\.(\d+)\.{re.escape(theirs)}\.weight", rf"{ours}.\1.{name}.weight")
        for theirs, name in names.items()
    )


def backbone_config(
    tensors: Mapping[str, Tensor],
    heads: int,
    norm_eps: float,
    where: str,
    prefix: str = "layers",
    kv_heads: int | None = None,
) -> BackboneConfig:
    """The official blocks in the sizes of the tensors.

    Args:
        tensors: by official key.
        heads: query heads, which no tensor tells.
        norm_eps: of the norms.
        where: what to call the file in messages.
        prefix: what stands before the number of a block.
        kv_heads: what the user says of key and value heads, which the tensors tell.

    Raises:
        UserError: the first block is not whole, or it has other heads.
    """
    keys = [f"{prefix}.0.{name}.weight" for name in (QKV, GATE, INPUT)]
    (rows, width), (hidden, _), _ = (keymap.shape(tensors, key, 2, where) for key in keys)
    if heads < 1 or width % heads:
        raise ConfigError(f"{where}: heads {heads} does not divide width {width}; say n_head=.")
    found, odd = divmod(rows - width, 2 * (width // heads))
    if odd or found < 1 or heads % found:
        raise ConfigError(
            f"{where} has {rows} rows of queries, keys and values, which {heads} heads of "
            f"{width // heads} channels do not make; say another n_head=."
        )
    refuse_contradictions({"n_kv_head": kv_heads}, {"n_kv_head": found}, where)
    return BackboneConfig(
        width=width,
        depth=keymap.count(tensors, rf"{re.escape(prefix)}\.(\d+)\..+"),
        heads=heads,
        kv_heads=found,
        mlp_width=hidden,
        norm_eps=norm_eps,
        qk_norm=False,
    )


def heads_of(
    presets: Mapping[str, Mapping[str, Any]],
    name: str,
    width: int,
    options: Mapping[str, Any],
    where: str,
) -> int:
    """Number of heads: no tensor tells it, but every published width has one.

    Raises:
        ConfigError: another width, and no option that says it.
    """
    published = {size[name]: size["n_head"] for size in presets.values()}
    if "n_head" not in options and width not in published:
        raise ConfigError(f"{where} has no published width ({width}); say its heads with n_head=.")
    return whole(options, "n_head", published.get(width, 0), where, least=1)


def square(block_size: int, where: str) -> tuple[int, int, int]:
    """The grid of so many tokens.

    Raises:
        ConfigError: it is none.
    """
    side = isqrt(max(0, block_size))
    if not 1 <= side <= LONGEST_SIDE or side * side != block_size:
        raise ConfigError(
            f"block_size {block_size} of {where} is no square of 1 to {LONGEST_SIDE}; give that of "
            "a whole picture."
        )
    return 1, side, side


def fuse(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The two inner matrices of each MLP in one.

    Raises:
        CheckpointError: they have unequal shapes.
    """
    return layouts.fuse(tensors, GATE, INPUT, BOTH, where)


def halves(tensors: Mapping[str, Tensor], config: BackboneConfig) -> dict[str, Tensor]:
    """Interleaved rotary pairs to halves, in the query and key rows of every `wqkv`."""
    turned = (config.heads + config.kv_head_count) * config.head_dim  # rows of queries and keys
    wanted = (turned + config.kv_head_count * config.head_dim, config.width)

    def rows(matrix: Tensor) -> Tensor:
        if matrix.shape != wanted:
            return matrix  # `keymap.load` refuses it by name
        return torch.cat([layouts.halves(matrix[:turned], config.head_dim), matrix[turned:]])

    return {key: rows(t) if QKV in key else t for key, t in tensors.items()}


def build(
    config: ConditionalConfig,
    tensors: Mapping[str, Tensor],
    rules: keymap.Rules,
    where: str,
    kind: type[ConditionalModel] = ConditionalModel,
) -> ConditionalModel:
    """The network with its weights, on the device of the tensors; no random numbers are drawn."""
    keymap.refuse_halves(tensors, ("w1", "w3"), where)
    return building.build(lambda: kind(config), keymap.rename(tensors, rules, where), where)
