"""What LlamaGen's and NAR's image transformers have in common (specs/nar.md 2 and 3).

Options, condition and keys are the same; NAR has one head more (`nar.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from mmgen.models.conditional import ConditionalConfig, Tap
from mmgen.models.conditions import ClassConfig, FeatureConfig
from mmgen.models.units import Unit
from mmgen.published import keymap
from mmgen.published.gpt_blocks import (
    backbone_config,
    block_rules,
    heads_of,
    square,
)
from mmgen.published.gpt_classes import classes_of, table_condition
from mmgen.published.gpt_sizes import STALE, named_size, table_facts
from mmgen.published.options import official, refuse_contradictions
from mmgen.published.systems import Shapes

SIZES: dict[str, dict[str, int]] = {
    "GPT-B": {"n_layer": 12, "n_head": 12, "dim": 768},
    "GPT-M": {"n_layer": 18, "n_head": 16, "dim": 1024},
    "GPT-L": {"n_layer": 24, "n_head": 16, "dim": 1024},
    "GPT-XL": {"n_layer": 36, "n_head": 20, "dim": 1280},
    "GPT-XXL": {"n_layer": 48, "n_head": 24, "dim": 1536},
    "GPT-XXXL": {"n_layer": 48, "n_head": 40, "dim": 2560},
    "GPT-1B": {"n_layer": 22, "n_head": 32, "dim": 2048},
    "GPT-3B": {"n_layer": 24, "n_head": 32, "dim": 3200},
    "GPT-7B": {"n_layer": 32, "n_head": 32, "dim": 4096},
}

# Official arguments that say nothing about inference, or that the sizes of the tensors say.
IGNORED = frozenset(
    {
        *("token_dropout_p", "attn_dropout_p", "resid_dropout_p", "ffn_dropout_p"),
        *("drop_path_rate", "class_dropout_prob", "initializer_range"),
        *("multiple_of", "ffn_dim_multiplier", "max_batch_size"),
    }
)
TASKS = {"c2i": "class-conditional generator", "t2i": "text-to-image generator"}
LABEL, CAPTION = "cls_embedding.embedding_table.weight", "cls_embedding.uncond_embedding"
CONDITION = {
    "c2i": {LABEL},
    "t2i": {CAPTION, "cls_embedding.cap_proj.fc1.weight", "cls_embedding.cap_proj.fc2.weight"},
}
BLOCK_KEY = re.compile(r"layers\.(\d+)\..+")
HEAD = frozenset({"norm.weight", "output.weight"})

RULES = (
    *block_rules(),
    (r"tok_embeddings\.weight", "code_embedding.weight"),
    (re.escape(LABEL), "condition.table.weight"),
    (r"cls_embedding\.cap_proj\.fc1\.weight", "condition.inner.weight"),
    (r"cls_embedding\.cap_proj\.fc2\.weight", "condition.out.weight"),
    (re.escape(CAPTION), "condition.null_values"),
    (r"norm\.weight", "head.norms.x.weight"),
    (r"output\.weight", "head.outs.x.weight"),
)


@dataclass(frozen=True)
class Options:
    """Official arguments of the image transformers; what the tensors tell need not be given."""

    model_type: str
    dim: int
    n_layer: int
    n_head: int
    vocab_size: int
    block_size: int
    num_classes: int = 1000
    caption_dim: int = 2048
    cls_token_num: int = 1
    caption_token_num: int = 120
    n_kv_head: int | None = None
    norm_eps: float = 1e-5
    rope_base: float = 10000.0


Kind = TypeVar("Kind", bound=Options)


def read(
    kind: type[Kind],
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    where: str,
    extra: int = 0,
) -> Kind:
    """Official options over what the file's name and its tensors tell.

    Args:
        kind: dataclass of the options.
        tensors: by official key.
        options: what the user said.
        where: what to call the file in messages.
        extra: blocks behind the first head.

    Raises:
        UserError: an option that is unknown, or that the tensors contradict.
    """
    facts = facts_of(tensors, options, extra, where)
    refuse_contradictions(options, facts, where)
    defaults: dict[str, Any] = {"block_size": named_size(where, facts["model_type"])[0]}
    if "n_head" not in facts:
        defaults["n_head"] = heads_of(SIZES, "dim", facts["dim"], options, where)
    return official(kind, {**defaults, **options, **facts}, where, IGNORED)


def facts_of(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], extra: int, where: str
) -> dict[str, Any]:
    """What the tensors tell.

    Raises:
        CheckpointError: one that tells a size has other axes, or the rotary table is of no picture.
    """
    vocab, dim = keymap.shape(tensors, "tok_embeddings.weight", 2, where)
    layers = keymap.count(tensors, BLOCK_KEY.pattern) - extra
    facts: dict[str, Any] = {"vocab_size": vocab, "dim": dim, "n_layer": layers}
    if LABEL in tensors:
        rows, _ = keymap.shape(tensors, LABEL, 2, where)
        classes = classes_of(rows, options, "num_classes")
        facts |= {"model_type": "c2i", "num_classes": classes, "cls_token_num": 1}
    else:
        # Officially a caption has as many rows as its null twin, or it cannot be guided.
        rows, channels = keymap.shape(tensors, CAPTION, 2, where)
        facts |= {"caption_token_num": rows, "cls_token_num": rows, "caption_dim": channels}
        facts |= {"model_type": "t2i"}
    return facts | table_facts(tensors, facts, where)


def image_config(
    given: Options, tensors: Mapping[str, Tensor], where: str, unit: Unit, taps: tuple[Tap, ...]
) -> ConditionalConfig:
    """Our configuration of an official image transformer, trained on `unit`."""
    condition: ClassConfig | FeatureConfig
    if given.model_type == "t2i":
        condition = FeatureConfig(channels=given.caption_dim, rows=given.cls_token_num)
    else:
        condition = table_condition(len(tensors[LABEL]), given.num_classes)
    heads, eps = given.n_head, given.norm_eps
    return ConditionalConfig(
        backbone=backbone_config(tensors, heads, eps, where, kv_heads=given.n_kv_head),
        condition=condition,
        codebook_size=given.vocab_size,
        grid=square(given.block_size, where),
        units=(unit,),
        taps=taps,
        positions="yx",
        rope_base=given.rope_base,
        silent_condition=True,
    )


def without_stale(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without a rotary table."""
    return {key: tensor for key, tensor in tensors.items() if key != STALE}


def is_transformer(shapes: Shapes, task: str, heads: frozenset[str]) -> bool:
    """Whether a file holds blocks, the condition of `task` and these heads, and nothing else."""
    rest = {key for key in shapes if not BLOCK_KEY.fullmatch(key)} - {STALE}
    needed = needed_by(task, heads)
    return needed <= set(shapes) and rest <= needed


def needed_by(task: str, heads: frozenset[str]) -> frozenset[str]:
    """Keys of every file of `task` with these heads."""
    blocks = {"tok_embeddings.weight", "layers.0.attention.wqkv.weight"}
    return heads | CONDITION[task] | blocks
