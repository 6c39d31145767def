"""What LlamaGen's and NAR's image transformers have in common (specs/nar.md 2 and 3).

Options, condition and keys are the same; NAR has one head more (`nar.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from mmgen.models.conditional import ConditionalConfig, Tap
from mmgen.models.conditions import ClassConfig, FeatureConfig
from mmgen.models.units import Unit
from mmgen.published import keymap
from mmgen.published.gpt_blocks import backbone_config, block_rules, heads_of, square
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
PIXELS = re.compile(r"_(256|384|512)(?!\d)")  # in the name of a published file
PATCH = 16  # pixels a side of a token, with the tokenizer that the weights were trained on

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
STALE = "freqs_cis"  # some files carry the rotary table
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
        ConfigError: an option that is unknown, or that the tensors contradict.
    """
    facts = facts_of(tensors, extra)
    refuse_contradictions(options, facts, where)
    heads = heads_of(SIZES, "dim", facts["dim"], options, where)
    defaults = {"block_size": block_size(where), "n_head": heads}
    return official(kind, {**defaults, **options, **facts}, where, IGNORED)


def facts_of(tensors: Mapping[str, Tensor], extra: int) -> dict[str, Any]:
    """What the tensors tell."""
    vocab, dim = tensors["tok_embeddings.weight"].shape
    layers = keymap.count(tensors, BLOCK_KEY.pattern) - extra
    facts: dict[str, Any] = {"vocab_size": vocab, "dim": dim, "n_layer": layers}
    if LABEL in tensors:
        return facts | {"model_type": "c2i", "num_classes": len(tensors[LABEL]) - 1}
    rows, channels = tensors[CAPTION].shape
    told = {"caption_token_num": rows, "cls_token_num": rows, "caption_dim": channels}
    return facts | {"model_type": "t2i"} | told


def image_config(
    given: Options, tensors: Mapping[str, Tensor], where: str, unit: Unit, taps: tuple[Tap, ...]
) -> ConditionalConfig:
    """Our configuration of an official image transformer, trained on `unit`."""
    condition: ClassConfig | FeatureConfig = ClassConfig(classes=given.num_classes)
    if given.model_type == "t2i":
        condition = FeatureConfig(channels=given.caption_dim, rows=given.cls_token_num)
    return ConditionalConfig(
        backbone=backbone_config(tensors, given.n_head, given.norm_eps, where),
        condition=condition,
        codebook_size=given.vocab_size,
        grid=square(given.block_size, where),
        units=(unit,),
        taps=taps,
        positions="yx",
        rope_base=given.rope_base,
        silent_condition=True,
    )


def image_size(given: Options) -> int:
    """Pixels a side of the pictures."""
    return isqrt(given.block_size) * PATCH


def block_size(where: str) -> int:
    """Tokens of a picture: published files name their pixels (`c2i_B_384.pt`); else 256 pixels."""
    told = PIXELS.search(Path(where).stem)
    return (int(told[1] if told else 256) // PATCH) ** 2


def size_notes(given: Options, options: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Where the size comes from, since no tensor tells it."""
    if "block_size" in options:
        return ()
    size = image_size(given)
    if PIXELS.search(Path(where).stem):
        return (f"{size} pixels, as the file's name says",)
    return (f"{size} pixels assumed; say block_size= (tokens of a picture) if it is another size",)


def without_stale(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without a rotary table."""
    return {key: tensor for key, tensor in tensors.items() if key != STALE}


def is_transformer(shapes: Shapes, task: str, heads: frozenset[str]) -> bool:
    """Whether a file holds blocks, the condition of `task` and these heads, and no other heads."""
    own = {key.partition("_")[0] for key in heads}
    others = {"abs", "medusa"} - own
    return needed_by(task, heads) <= set(shapes) and not any(
        key.partition("_")[0] in others for key in shapes
    )


def needed_by(task: str, heads: frozenset[str]) -> frozenset[str]:
    """Keys of every file of `task` with these heads."""
    blocks = {"tok_embeddings.weight", "layers.0.attention.wqkv.weight"}
    return heads | CONDITION[task] | blocks
