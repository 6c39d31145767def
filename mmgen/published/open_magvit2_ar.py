"""Open-MAGVIT2's class-conditional transformers (arXiv 2409.04410), as `FactorizedModel`.

LlamaGen's network over codes of 18 bits in sub-tokens of 6 and 12. A file is a Lightning checkpoint
that holds its tokenizer too, by live weights and not by averages. Official code:
TencentARC/SEED-Voken, Apache-2.0. Spec: ett.md D2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.conditional import Tap
from mmgen.models.factorized import FactorizedConfig, FactorizedModel
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published import open_magvit2
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
from mmgen.published.ibq_ar import (
    CLASSES,
    GENERATOR,
    IGNORED,
    TOKEN,
    TOKENIZER,
    share_holds,
    share_of,
)
from mmgen.published.keymap import count, shape
from mmgen.published.options import official, refuse_contradictions
from mmgen.published.systems import Converted, Part, Shapes

SUB_TOKENS = ("pre_emb", "post_emb")
RULES = (
    *block_rules("spatial_blocks"),
    *block_rules("factorized_blocks", "head.backbone.blocks"),
    *(
        (rf"{name}\.weight", f"code_embedding.tables.{i}.weight")
        for i, name in enumerate(SUB_TOKENS)
    ),
    (r"class_emb\.embedding_table\.weight", "condition.table.weight"),
    (r"norm\.weight", "head.norm.weight"),
    (r"head\.([01])\.weight", r"head.outs.\1.weight"),
)
NEEDED = frozenset({CLASSES, *(f"{name}.weight" for name in SUB_TOKENS), "head.1.weight"})

PRESETS: dict[str, dict[str, Any]] = {
    name: {
        "spatial_n_layer": outer,
        "factorized_n_layer": inner,
        "dim": width,
        "n_head": heads,
        "vocab_size": 2**18,
        "factorized_bits": (6, 12),
    }
    for name, outer, inner, width, heads in (
        ("AR-B", 24, 2, 1024, 16),
        ("AR-L", 36, 3, 1280, 20),
        ("AR-XL", 48, 4, 1536, 24),
    )
}
# Guidance and temperature of the published evaluation by width, for each sub-token.
EVALUATION = {
    1024: ((1.9, 2.0), (1.0, 1.0)),
    1280: ((1.9, 1.9), (1.1, 1.0)),
    1536: ((1.75, 1.85), (1.1, 1.0)),
}


@dataclass(frozen=True)
class Options:
    """Official arguments; what the tensors tell need not be given."""

    vocab_size: int
    spatial_n_layer: int
    factorized_n_layer: int
    dim: int
    n_head: int
    class_num: int
    factorized_bits: tuple[int, int] = field(default=(6, 12))
    block_size: int = 256
    norm_eps: float = 1e-5
    rope_base: float = 10000.0
    token_factorization: bool = True


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """Open-MAGVIT2's transformer; see `Part.convert`."""
    tensors = share_of(tensors, GENERATOR)
    given = read(tensors, options, where)
    backbone = backbone_config(tensors, given.n_head, given.norm_eps, where, "spatial_blocks")
    condition = table_condition(len(tensors[CLASSES]), given.class_num)
    config = FactorizedConfig(
        backbone=backbone,
        condition=condition,
        codebook_size=given.vocab_size,
        grid=square(given.block_size, where),
        units=(TOKEN,),
        taps=(Tap("x", given.spatial_n_layer),),
        positions="yx",
        rope_base=given.rope_base,
        silent_condition=True,
        bits=given.factorized_bits,
        inner_depth=given.factorized_n_layer,
    )
    network = build(config, halves(fuse(tensors, where), backbone), RULES, where, FactorizedModel)
    scales, temperatures = EVALUATION.get(given.dim, ((1.9, 1.9), (1.0, 1.0)))
    sampling = SamplingDefaults("token", guidance_scale=scales, temperature=temperatures)
    told = size_by(options, where)
    size = image_size(given.block_size)
    usual = guidable(sampling, condition)
    return Converted("transformer", network, size, usual, size_by=told)


def read(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Options:
    """Official options over what the tensors tell.

    Raises:
        ConfigError: an option that is unknown, that the tensors contradict, or that is not built.
    """
    if not options.get("token_factorization", True):
        raise ConfigError(f"{where} without sub-tokens (token_factorization) is not built.")
    sizes = [shape(tensors, f"{name}.weight", 2, where)[0] for name in SUB_TOKENS]
    rows, width = shape(tensors, CLASSES, 2, where)
    facts: dict[str, Any] = {
        "vocab_size": sizes[0] * sizes[1],
        "spatial_n_layer": count(tensors, r"spatial_blocks\.(\d+)\..+"),
        "factorized_n_layer": count(tensors, r"factorized_blocks\.(\d+)\..+"),
        "dim": width,
        "class_num": classes_of(rows, options, "class_num"),
        "factorized_bits": [size.bit_length() - 1 for size in sizes],
    }
    refuse_contradictions(options, facts, where)
    defaults = {"n_head": heads_of(PRESETS, "dim", width, options, where)}
    return official(Options, {**defaults, **options, **facts}, where, IGNORED)


def convert_tokenizer(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """The tokenizer in a generator's file, by its live weights; see `Part.convert`."""
    own = share_of(tensors, TOKENIZER)
    return open_magvit2.convert_tokenizer(own, {"use_ema": False, **options}, where)


def recognise_tokenizer(shapes: Shapes) -> bool:
    """Whether a generator's file holds Open-MAGVIT2's tokenizer."""
    own = share_of(shapes, TOKENIZER)
    return share_holds(shapes, TOKENIZER) and open_magvit2.recognise_tokenizer(own)


_part = partial(Part, system="open-magvit2", licence="Apache-2.0", source="TencentARC/SEED-Voken")
PARTS = (
    _part(
        name="class-conditional generator",
        recognise=partial(share_holds, prefix=GENERATOR, needed=NEEDED),
        convert=convert,
        needed=frozenset(GENERATOR + key for key in NEEDED),
        component="transformer",
    ),
    _part(
        name="LFQ tokenizer of a generator",
        recognise=recognise_tokenizer,
        convert=convert_tokenizer,
        component="vision",
        embedded=True,
    ),
)
