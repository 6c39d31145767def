"""NBP: next block prediction for video (specs/nbp.md, arXiv 2502.07737).

Official files are `*_nbp16*.ckpt`: a transformer, and in the same file its tokenizer
(`nbp_tokenizer.py`). The vocabulary is turned round, so that the codes of the video come first: our
id is `(official id - shift) mod V`, where `shift` is the official id of code 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.conditional import ANY, ConditionalConfig, ConditionalModel, Tap
from mmgen.models.conditions import NothingConfig, WordConfig
from mmgen.models.units import Unit
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published import keymap
from mmgen.published.options import official
from mmgen.published.systems import Converted, Part, shapes_of

Shapes = Mapping[str, tuple[int, ...]]

GRID = (5, 16, 16)  # 17 frames of 128 x 128, which all published models draw
CODES = 64000
WORDS = 32000  # LLaMA-2's
HEADS = {(24, 1536): 16, (24, 2048): 32, (32, 3072): 32}  # by (layers, width)
_TRAINING = ("semi_ar", "transformer_dropout", "p_drop_cond", "pkeep")


@dataclass(frozen=True)
class TransformerOptions:
    """Official options; None where the tensors or the published sizes tell.

    `latent_grid` (t, h, w) is ours: no official file says what grid it was trained on.
    """

    unconditional: bool | None = None
    hybrid: bool | None = None
    starts_with_bov: bool | None = None
    bov_token: Literal[0] = 0
    cond_stage_key: Literal["text", "label"] | None = None
    class_cond_dim: int | None = None
    text_vocab_size: int = WORDS
    text_pad_id: int = 2
    cond_token_num: int | None = None
    first_stage_vocab_size: int = CODES
    token_number_per_step: int | None = None
    block_size: int | None = None
    n_layer: int | None = None
    n_head: int | None = None
    n_embd: int | None = None
    latent_grid: tuple[int, int, int] = GRID


def _preset(layers: int, heads: int, width: int, ucf: bool) -> dict[str, Any]:
    sizes = {"n_layer": layers, "n_head": heads, "n_embd": width, "block_size": 5120}
    start = {"unconditional": not ucf, "hybrid": ucf, "starts_with_bov": ucf}
    condition = {"cond_stage_key": "text", "cond_token_num": 8} if ucf else {"cond_token_num": 0}
    return {**sizes, **start, **condition, "token_number_per_step": 16}


PRESETS: dict[str, dict[str, Any]] = {
    f"NBP-{data}-{name}": _preset(*sizes, ucf=data == "ucf")
    for data in ("ucf", "k600")
    for name, sizes in {
        "base": (24, 16, 1536),
        "xl": (24, 32, 2048),
        "3b": (32, 32, 3072),
    }.items()
}

RULES: tuple[tuple[str, keymap.Target], ...] = (
    (r"tok_emb\.weight", "code_embedding.weight"),
    (r"pos_emb", "places.weight"),
    (r"uncond_embedding", "condition.null_rows"),
    (r"blocks\.(\d+)\.ln1\.(\w+)", r"backbone.blocks.\1.attention_norm.\2"),
    (r"blocks\.(\d+)\.ln2\.(\w+)", r"backbone.blocks.\1.mlp_norm.\2"),
    (r"blocks\.(\d+)\.attn\.(query|key|value)\.(\w+)", r"backbone.blocks.\1.\2.\3"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"backbone.blocks.\1.attention.out.\2"),
    (r"blocks\.(\d+)\.mlp\.0\.(\w+)", r"backbone.blocks.\1.mlp.inner.\2"),
    (r"blocks\.(\d+)\.mlp\.2\.(\w+)", r"backbone.blocks.\1.mlp.out.\2"),
    (r"ln_f\.(\w+)", rf"head.norms.{ANY}.\1"),
    (r"head\.weight", f"head.outs.{ANY}.weight"),
)


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """Read a transformer."""
    own = _transformer_tensors(tensors)
    read = complete(official(TransformerOptions, options, where, _TRAINING), shapes_of(own), where)
    config = network_config(read)
    network = ConditionalModel(config)
    keymap.load(network, _ours(keymap.rename(own, RULES, where), config), where)
    sampling = SamplingDefaults(guidance_scale=1.0, top_k=16000, top_p=0.9)
    return Converted("transformer", network.eval(), sampling=sampling)


def complete(options: TransformerOptions, shapes: Shapes, where: str) -> TransformerOptions:
    """Fill in what the shapes tell.

    Raises:
        ConfigError: the number of heads or the length of a block is known to nobody.
    """
    vocabulary, width = shapes.get("tok_emb.weight", (0, 0))
    rows = shapes.get("uncond_embedding", (0,))[0]
    layers = sum(key.startswith("blocks.") and key.endswith(".ln1.weight") for key in shapes)
    plain = rows == 0 if options.unconditional is None else options.unconditional
    key = options.cond_stage_key or ("label" if rows == 1 else "text")
    hybrid = not plain if options.hybrid is None else options.hybrid
    words = 0 if plain else _words(options, key, vocabulary)
    block = options.token_number_per_step
    if block is None and hybrid:
        block = vocabulary - options.first_stage_vocab_size - words
    heads = options.n_head or HEADS.get((layers, width))
    if heads is None or (block is None and options.first_stage_vocab_size != CODES):
        name = "n_head" if heads is None else "token_number_per_step"
        raise ConfigError(f"No tensor of {where} tells {name}; say {name}=... .")
    return replace(
        options,
        unconditional=plain,
        hybrid=hybrid,
        starts_with_bov=hybrid,
        cond_stage_key=key,
        class_cond_dim=words,
        cond_token_num=rows,
        token_number_per_step=block or 16,
        block_size=shapes.get("pos_emb", (1, 1))[1],
        n_layer=layers,
        n_head=heads,
        n_embd=width,
    )


def network_config(options: TransformerOptions) -> ConditionalConfig:
    """Our configuration of complete official options."""
    layers, width, block = options.n_layer, options.n_embd, options.token_number_per_step
    assert layers and width and block and options.n_head and options.block_size
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
        grid=options.latent_grid,
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
    text = options.cond_stage_key == "text"
    # The mask compares shifted ids with `pad + 1` and so meets another word than the pad.
    met = options.text_pad_id + 1 - (block if options.hybrid else 0)
    met_word = met if text and met >= 0 else None
    return WordConfig(
        words=options.class_cond_dim or 0,
        count=options.cond_token_num or 0,
        starts=block if options.hybrid else 1,
        begin=bool(options.hybrid),
        late_word=met_word if options.hybrid else None,
        unseen_word=None if options.hybrid else met_word,
    )


def _words(options: TransformerOptions, key: str, vocabulary: int) -> int:
    if key == "text":
        return options.text_vocab_size
    specials = 1 if options.hybrid is False else options.token_number_per_step
    if options.class_cond_dim is None and specials is None:
        raise ConfigError("No tensor tells the number of classes; say class_cond_dim=... .")
    return options.class_cond_dim or vocabulary - options.first_stage_vocab_size - (specials or 0)


def _transformer_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The transformer's part of a Lightning file, by key without prefixes."""
    own = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return {
        key.removeprefix("transformer."): tensor
        for key, tensor in own.items()
        # An unconditional file has a null condition of no rows.
        if key.startswith("transformer.") and "mask" not in key and tensor.numel()
    }


def _ours(renamed: dict[str, Tensor], config: ConditionalConfig) -> dict[str, Tensor]:
    """Join queries, keys and values, turn the vocabulary, drop the batch axis of positions."""
    for i in range(config.backbone.depth):
        block = f"backbone.blocks.{i}"
        for leaf in ("weight", "bias"):
            names = [f"{block}.{name}.{leaf}" for name in ("query", "key", "value")]
            if all(name in renamed for name in names):
                joined = torch.cat([renamed.pop(name) for name in names])
                renamed[f"{block}.attention.qkv.{leaf}"] = joined
    for name in ("code_embedding.weight", f"head.outs.{ANY}.weight"):
        if name in renamed:
            renamed[name] = renamed[name].roll(-shift_of(config), 0)
    if "places.weight" in renamed:
        renamed["places.weight"] = renamed["places.weight"].flatten(0, -2)
    return renamed


def recognise(shapes: Shapes) -> bool:
    """Whether the keys are those of NBP's transformer."""
    keys = {key.removeprefix("module.") for key in shapes}
    return {"transformer.tok_emb.weight", "transformer.uncond_embedding"} <= keys


def recorded(extras: Mapping[str, Any]) -> Mapping[str, Any]:
    """Official options in Lightning's hyper-parameters, with or without their namespace `args`."""
    found = extras.get("hyper_parameters") or {}
    inner = found.get("args") if isinstance(found.get("args"), Mapping) else {}
    known = [field.name for field in fields(TransformerOptions)]
    merged = {**inner, **found}
    return {name: merged[name] for name in known if merged.get(name) is not None}


PARTS = (
    Part(
        system="nbp",
        name="video transformer",
        licence="MIT",
        source="RenShuhuai-Andy/NBP",
        recognise=recognise,
        convert=convert,
        component="transformer",
        recorded=recorded,
    ),
)
