"""NBP: next block prediction for video (specs/nbp.md, arXiv 2502.07737).

Official files are `*_nbp16*.ckpt`: a transformer, and in the same file its tokenizer
(`nbp_tokenizer.py`). The vocabulary is turned round, so that the codes of the video come first: our
id is `(official id - shift) mod V`, where `shift` is the official id of code 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mmgen.errors import CheckpointError, ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.conditional import ANY, ConditionalConfig, Tap
from mmgen.models.units import Unit
from mmgen.models.words import NothingConfig, WordConfig
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published import keymap
from mmgen.published.gpt_blocks import build
from mmgen.published.nbp_options import (
    ASSUMED,
    GRID,
    PRESETS,
    TRAINING,
    Shapes,
    TransformerOptions,
    complete,
    grid_notes,
    recorded,
)
from mmgen.published.options import assumed, official, refuse_other_ranks
from mmgen.published.renamed import Target
from mmgen.published.systems import Converted, Part, shapes_of
from mmgen.published.ucf101 import WORDS, class_texts

__all__ = ["PARTS", "PRESETS", "convert", "network_config", "shift_of"]

RULES: tuple[tuple[str, Target], ...] = (
    (r"tok_emb\.weight", "code_embedding.weight"),
    (r"pos_emb", "places.weight"),
    (r"uncond_embedding", "condition.null_rows"),
    (r"blocks\.(\d+)\.ln1\.(\w+)", r"backbone.blocks.\1.attention_norm.\2"),
    (r"blocks\.(\d+)\.ln2\.(\w+)", r"backbone.blocks.\1.mlp_norm.\2"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"backbone.blocks.\1.attention.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"backbone.blocks.\1.attention.out.\2"),
    (r"blocks\.(\d+)\.mlp\.0\.(\w+)", r"backbone.blocks.\1.mlp.inner.\2"),
    (r"blocks\.(\d+)\.mlp\.2\.(\w+)", r"backbone.blocks.\1.mlp.out.\2"),
    (r"ln_f\.(\w+)", rf"head.norms.{ANY}.\1"),
    (r"head\.weight", f"head.outs.{ANY}.weight"),
)
NEEDED = frozenset(
    f"transformer.{name}"
    for name in ("tok_emb.weight", "uncond_embedding", "pos_emb", "head.weight")
)
STRIDE = 8  # pixels a side of a code, with both published tokenizers
RANKS = {
    r"(tok_emb|head|.*\.(query|key|value))\.weight|uncond_embedding": 2,
    r".*\.(query|key|value)\.bias": 1,
    r"pos_emb": 3,
}


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """Read a transformer."""
    own = _transformer_tensors(tensors)
    refuse_other_ranks(own, RANKS, where)
    read = complete(official(TransformerOptions, options, where, TRAINING), shapes_of(own), where)
    config = network_config(read)
    network = build(config, _joined(own, config, where), RULES, where)
    sampling = SamplingDefaults(guidance_scale=1.0, top_k=16000, top_p=0.9)
    return Converted(
        "transformer",
        network,
        STRIDE * config.grid[1],
        sampling,
        notes=grid_notes(read),
        assumed=assumed(read, options, ASSUMED),
    )


def network_config(options: TransformerOptions) -> ConditionalConfig:
    """Our configuration of complete official options.

    Raises:
        ConfigError: they are not complete.
    """
    layers, width, block = options.n_layer, options.n_embd, options.token_number_per_step
    if not (layers and width and block and options.n_head and options.block_size):
        raise ConfigError("These options of NBP lack a size, or it is 0; see its PRESETS.")
    start: Literal["hybrid", "given"] = "hybrid" if options.hybrid else "given"
    return ConditionalConfig(
        backbone=BackboneConfig(
            width=width,
            depth=layers,
            heads=options.n_head,
            mlp_width=4 * width,
            mlp="gelu",
            norm="layer",
            bias=True,
            qk_norm=False,
        ),
        condition=_condition(options),
        codebook_size=options.first_stage_vocab_size,
        grid=options.latent_grid or GRID,
        units=(Unit("block", f"run:{block}", "shift", start=start),),
        taps=(Tap(ANY, layers),),
        positions="order",
        longest=options.block_size,
    )


def shift_of(config: ConditionalConfig) -> int:
    """Official id of code 0."""
    return config.condition.extra_ids if config.units[0].start == "hybrid" else _words_of(config)


def _words_of(config: ConditionalConfig) -> int:
    return config.condition.words if isinstance(config.condition, WordConfig) else 0


def _condition(options: TransformerOptions) -> WordConfig | NothingConfig:
    if options.unconditional:
        return NothingConfig()
    block = options.token_number_per_step or 0
    text, count = options.cond_stage_key == "text", options.cond_token_num or 0
    # The mask compares shifted ids with `pad + 1` and so meets another word than the pad.
    met = options.text_pad_id + 1 - (block if options.hybrid else 0)
    met_word = met if text and met >= 0 else None
    return WordConfig(
        words=options.class_cond_dim or 0,
        count=count,
        starts=block if options.hybrid else 1,
        begin=bool(options.hybrid),
        late_word=met_word if options.hybrid else None,
        unseen_word=None if options.hybrid else met_word,
        texts=class_texts(count) if text and options.text_vocab_size == WORDS else {},
    )


def _transformer_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The transformer's part of a Lightning file, by key without prefixes."""
    return {
        key.removeprefix("transformer."): tensor
        for key, tensor in tensors.items()
        # An unconditional file has a null condition of no rows.
        if key.startswith("transformer.") and "mask" not in key and tensor.numel()
    }


def _joined(
    tensors: Mapping[str, Tensor], config: ConditionalConfig, where: str
) -> dict[str, Tensor]:
    """Queries, keys and values as one, the vocabulary turned, positions without a batch axis."""
    joined = dict(tensors)
    keymap.refuse_halves(tensors, ("query", "key", "value"), where)
    for i in range(config.backbone.depth):
        for leaf in ("weight", "bias"):
            names = [f"blocks.{i}.attn.{name}.{leaf}" for name in ("query", "key", "value")]
            if all(name in joined for name in names):
                three = [joined.pop(name) for name in names]
                joined[f"blocks.{i}.attn.qkv.{leaf}"] = _one(three, names[0], where)
    for name in ("tok_emb.weight", "head.weight"):
        if name in joined:
            joined[name] = joined[name].roll(-shift_of(config), 0)
    if "pos_emb" in joined:
        joined["pos_emb"] = joined["pos_emb"].flatten(0, -2)
    return joined


def _one(three: list[Tensor], name: str, where: str) -> Tensor:
    if len({tensor.shape for tensor in three}) > 1:
        raise CheckpointError(f"{where} holds '{name}' of another shape than those beside it.")
    return torch.cat(three)


def recognise(shapes: Shapes) -> bool:
    """Whether the keys are those of NBP's transformer."""
    return shapes.keys() >= NEEDED


PARTS = (
    Part(
        system="nbp",
        name="video transformer",
        licence="MIT",
        source="RenShuhuai-Andy/NBP",
        recognise=recognise,
        convert=convert,
        component="transformer",
        needed=NEEDED,
        recorded=recorded,
    ),
)
