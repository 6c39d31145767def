"""IBQ's class-conditional transformers (arXiv 2412.02692), as `ConditionalModel`.

LlamaGen's network, whose class also speaks through adaLN. A file is a Lightning checkpoint that
holds its tokenizer too. Official code: TencentARC/SEED-Voken, Apache-2.0. Spec: ett.md A4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from mmgen.models.conditional import ConditionalConfig, Tap
from mmgen.models.units import Unit
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published import ibq
from mmgen.published.gpt_blocks import (
    backbone_config,
    block_rules,
    build,
    fuse,
    halves,
    heads_of,
    square,
)
from mmgen.published.gpt_classes import classes_of, guidable, table_condition
from mmgen.published.gpt_sizes import image_size, size_by
from mmgen.published.keymap import count, shape
from mmgen.published.options import official, refuse_contradictions
from mmgen.published.systems import Converted, Part, Shapes

T = TypeVar("T")
GENERATOR, TOKENIZER = "transformer.", "first_stage_model."  # what stands before their keys
CLASSES = "class_emb.embedding_table.weight"
NEEDED = frozenset({CLASSES, "tok_emb.weight", "head_nm.rmsnorm.weight"})
TOKEN = Unit("token", "raster", "shift")
RULES = (
    *block_rules("blocks"),
    (r"blocks\.(\d+)\.ada_lin\.1\.(weight|bias)", r"backbone.blocks.\1.modulation.\2"),
    (r"class_emb\.embedding_table\.weight", "condition.table.weight"),
    (r"embedding_projection\.fc1\.(weight|bias)", r"code_embedding.inner.\1"),
    (r"embedding_projection\.fc2\.(weight|bias)", r"code_embedding.out.\1"),
    (r"head_nm\.rmsnorm\.weight", "last_norm.norm.weight"),
    (r"head_nm\.ada_lin\.1\.(weight|bias)", r"last_norm.modulation.\1"),
    (r"head\.weight", "head.outs.x.weight"),
)
TABLE = (r"tok_emb\.weight", "code_embedding.weight")
CODEBOOK = (r"tok_emb\.weight", "code_embedding.codebook.weight")

SIZES = {"IBQ-B": (16, 1024), "IBQ-L": (20, 1280), "IBQ-XL": (24, 1536), "IBQ-XXL": (30, 1920)}
PRESETS: dict[str, dict[str, Any]] = {
    name: {"n_layer": depth, "n_head": depth, "n_embd": width, "vocab_size": 16384}
    for name, (depth, width) in SIZES.items()
}
# Guidance and temperature of the published evaluation, by width.
EVALUATION = {1024: (2.25, 1.1), 1280: (2.0, 1.0), 1536: (2.35, 1.15), 1920: (2.85, 1.2)}
# Of training, or told by the sizes of the tensors.
IGNORED = frozenset(
    {
        *("class", "cond_dim", "multiple_of", "ffn_dim_multiplier", "initializer_range"),
        *("embd_pdrop", "resid_pdrop", "attn_pdrop", "ffn_dropout_p", "drop_path_rate"),
        *("token_dropout_p", "attn_dropout_p", "resid_dropout_p", "class_dropout_prob"),
    }
)


@dataclass(frozen=True)
class Options:
    """Official arguments; what the tensors tell need not be given."""

    vocab_size: int
    n_layer: int
    n_embd: int
    n_head: int
    class_num: int
    block_size: int = 256
    norm_eps: float = 1e-5
    rope_base: float = 10000.0
    use_pretrained_codebook: bool = False
    n_codebook_embd: int | None = None


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """IBQ's transformer; see `Part.convert`."""
    tensors = share_of(tensors, GENERATOR)
    given = read(tensors, options, where)
    backbone = backbone_config(tensors, given.n_head, given.norm_eps, where, "blocks")
    condition = table_condition(len(tensors[CLASSES]), given.class_num)
    config = ConditionalConfig(
        backbone=replace(backbone, adaln=True, adaln_norm_weights=True),
        condition=condition,
        codebook_size=given.vocab_size,
        grid=square(given.block_size, where),
        units=(TOKEN,),
        taps=(Tap("x", given.n_layer),),
        positions="yx",
        rope_base=given.rope_base,
        silent_condition=True,
        code_channels=given.n_codebook_embd if given.use_pretrained_codebook else None,
    )
    rules = (*RULES, CODEBOOK if given.use_pretrained_codebook else TABLE)
    network = build(config, halves(fuse(tensors, where), backbone), rules, where)
    scale, temperature = EVALUATION.get(given.n_embd, (2.0, 1.0))
    sampling = SamplingDefaults("token", guidance_scale=scale, temperature=temperature)
    told = size_by(options, where)
    size = image_size(given.block_size)
    usual = guidable(sampling, condition)
    return Converted("transformer", network, size, usual, size_by=told)


def read(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Options:
    """Official options over what the tensors tell.

    Raises:
        ConfigError: an option that is unknown, or that the tensors contradict.
    """
    codes, channels = shape(tensors, "tok_emb.weight", 2, where)
    rows, width = shape(tensors, CLASSES, 2, where)
    facts: dict[str, Any] = {
        "vocab_size": codes,
        "n_layer": count(tensors, r"blocks\.(\d+)\..+"),
        "n_embd": width,
        "class_num": classes_of(rows, options, "class_num"),
        "use_pretrained_codebook": "embedding_projection.fc1.weight" in tensors,
    }
    if facts["use_pretrained_codebook"]:
        facts["n_codebook_embd"] = channels
    refuse_contradictions(options, facts, where)
    defaults = {"n_head": heads_of(PRESETS, "n_embd", width, options, where)}
    return official(Options, {**defaults, **options, **facts}, where, IGNORED)


# -- also Open-MAGVIT2's -------------------------------------------------------------------------


def share_of(whole: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Tensors or shapes of one of the networks in a generator's file, without their prefix."""
    return {key.removeprefix(prefix): t for key, t in whole.items() if key.startswith(prefix)}


def share_holds(shapes: Shapes, prefix: str, needed: frozenset[str] = frozenset()) -> bool:
    """Whether a generator's file has these keys behind a prefix, and nothing but two networks."""
    known = all(key.startswith((GENERATOR, TOKENIZER)) for key in shapes)
    return known and {prefix + key for key in needed} <= set(shapes)


def convert_tokenizer(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """The tokenizer in a generator's file; see `Part.convert`."""
    return ibq.convert_tokenizer(share_of(tensors, TOKENIZER), options, where)


def recognise_tokenizer(shapes: Shapes) -> bool:
    """Whether a generator's file holds IBQ's tokenizer."""
    own = share_of(shapes, TOKENIZER)
    return share_holds(shapes, TOKENIZER) and ibq.recognise_tokenizer(own)


_part = partial(Part, system="ibq", licence="Apache-2.0", source="TencentARC/SEED-Voken")
PARTS = (
    _part(
        name="class-conditional generator",
        recognise=partial(share_holds, prefix=GENERATOR, needed=NEEDED),
        convert=convert,
        needed=frozenset(GENERATOR + key for key in NEEDED),
        component="transformer",
    ),
    _part(
        name="IBQ tokenizer of a generator",
        recognise=recognise_tokenizer,
        convert=convert_tokenizer,
        component="vision",
        embedded=True,
    ),
)
