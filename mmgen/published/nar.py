"""NAR's transformers for pictures (specs/nar.md 3 and 4) and clips (6.2), as `ConditionalModel`.

Heads are nested in depth: the one that looks right, then the one below, then the one back in time,
each some blocks above the one before. The letter B means below in the image files, and back in the
video files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.conditional import ConditionalConfig, Tap
from mmgen.models.conditions import ClassConfig
from mmgen.models.units import Unit
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published import gpt_images as images
from mmgen.published import keymap
from mmgen.published.gpt_blocks import (
    backbone_config,
    block_rules,
    build,
    fuse,
    halves,
    heads_of,
)
from mmgen.published.options import official, refuse_contradictions
from mmgen.published.systems import Converted, Part, Shapes

NEIGHBOR = Unit("neighbor", "neighbor", "neighbors")
IMAGE_HEADS = frozenset({*images.HEAD, "medusa_norm.weight", "medusa_output.weight"})
IMAGE_RULES = (
    *images.RULES,
    (r"medusa_norm\.weight", "head.norms.y.weight"),
    (r"medusa_output\.weight", "head.outs.y.weight"),
)
DIRECTIONS = {"R": "x", "D": "y", "B": "t"}  # official letter of a clip's head -> our direction
CLIP_HEADS = frozenset(f"{kind}_{each}.weight" for kind in ("norm", "output") for each in "RDB")
CLIP_NEEDED = CLIP_HEADS | {"tok_embeddings.weight", "abs_pe", images.LABEL}
CLIP_RULES = (
    *block_rules(),
    (r"tok_embeddings\.weight", "code_embedding.weight"),
    (r"cls_embedding\.embedding_table\.weight", "condition.table.weight"),
    (r"abs_pe", "places.weight"),
    *((rf"norm_{each}\.weight", f"head.norms.{ours}.weight") for each, ours in DIRECTIONS.items()),
    *((rf"output_{each}\.weight", f"head.outs.{ours}.weight") for each, ours in DIRECTIONS.items()),
)

CLIP_SIZES: dict[str, dict[str, int]] = {
    "llama-abs-S": {"n_layer": 12, "n_head": 6, "dim": 384},
    "llama-abs-B": {"n_layer": 12, "n_head": 12, "dim": 768},
    "llama-abs-L": {"n_layer": 24, "n_head": 16, "dim": 1024},
    "llama-abs-LP": {"n_layer": 30, "n_head": 20, "dim": 1280},
    "llama-abs-XL": {"n_layer": 36, "n_head": 20, "dim": 1280},
    "llama-abs-XXL": {"n_layer": 48, "n_head": 24, "dim": 1536},
    "llama-abs-XXXL": {"n_layer": 48, "n_head": 40, "dim": 2560},
}
PRESETS: dict[str, dict[str, Any]] = {
    **{name: {**size, "model_type": "c2i"} for name, size in images.SIZES.items()},
    "GPT-XL t2i": {**images.SIZES["GPT-XL"], "model_type": "t2i"},
    **{name: {**size, "model_type": "class_cond"} for name, size in CLIP_SIZES.items()},
}


# -- pictures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageOptions(images.Options):
    """Official arguments; `medusa_attention_num` blocks lie between the two heads."""

    medusa_attention_num: int = 1


def convert_images(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """NAR's image transformer; see `Part.convert`."""
    tensors = images.without_stale(tensors)
    extra = options.get("medusa_attention_num", 1)
    given = images.read(ImageOptions, tensors, options, where, extra)
    below = Tap("y", given.n_layer + given.medusa_attention_num)
    taps = (Tap("x", given.n_layer), below)
    config = images.image_config(given, tensors, where, NEIGHBOR, taps)
    network = build(config, halves(fuse(tensors), config.backbone), IMAGE_RULES, where)
    scale = 7.5 if given.model_type == "t2i" else 2.0  # specs/nar.md 3.6 and 4
    sampling = SamplingDefaults("neighbor", guidance_scale=scale)
    notes = images.size_notes(given, options, where)
    return Converted("transformer", network, images.image_size(given), sampling, notes)


# -- clips ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipOptions:
    """Official arguments of the video transformer."""

    dim: int
    n_layer: int
    n_head: int
    vocab_size: int
    num_classes: int
    max_seq_len: int
    latent_shape: tuple[int, int, int]
    model_type: str = "class_cond"
    cls_token_num: int = 1
    n_kv_head: int | None = None
    norm_eps: float = 1e-5
    attn_num_down: int = 1
    attn_num_back: int = 1
    use_fixed_pe: bool = False
    frame_prediction: bool = False


def convert_clips(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """NAR's video transformer; see `Part.convert`."""
    given = read_clip_options(tensors, options, where)
    down = given.n_layer + given.attn_num_down
    config = ConditionalConfig(
        backbone=backbone_config(tensors, given.n_head, given.norm_eps, where),
        condition=ClassConfig(classes=given.num_classes),
        codebook_size=given.vocab_size,
        grid=given.latent_shape,
        units=(NEIGHBOR,),
        taps=(Tap("x", given.n_layer), Tap("y", down), Tap("t", down + given.attn_num_back)),
        positions="learned",
    )
    flat = {key: t.squeeze(0) if key == "abs_pe" else t for key, t in tensors.items()}
    network = build(config, fuse(flat), CLIP_RULES, where)
    sampling = SamplingDefaults("neighbor", guidance_scale=1.25)  # specs/nar.md 6.2
    return Converted("transformer", network, 128, sampling)


def read_clip_options(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> ClipOptions:
    """Official options over what the tensors tell.

    Raises:
        ConfigError: an option that is unknown, that the tensors contradict, or that is not built.
    """
    vocab, dim = tensors["tok_embeddings.weight"].shape
    extra = options.get("attn_num_down", 1) + options.get("attn_num_back", 1)
    facts = {
        "vocab_size": vocab,
        "dim": dim,
        "n_layer": keymap.count(tensors, images.BLOCK_KEY.pattern) - extra,
        "num_classes": len(tensors[images.LABEL]) - 1,
        "max_seq_len": tensors["abs_pe"].shape[1] - 1,
    }
    refuse_contradictions(options, facts, where)
    defaults = {"n_head": heads_of(CLIP_SIZES, "dim", dim, options, where)}
    if facts["max_seq_len"] == 4 * 16 * 16:
        defaults["latent_shape"] = (4, 16, 16)
    given = official(ClipOptions, {**defaults, **options, **facts}, where, images.IGNORED)
    if prod(given.latent_shape) != given.max_seq_len:
        raise ConfigError(
            f"latent_shape {given.latent_shape} does not hold the {given.max_seq_len} tokens of "
            f"{where}; give the (time, rows, columns) that it was trained on."
        )
    if given.frame_prediction or given.use_fixed_pe:
        raise ConfigError(f"Frame prediction and fixed positions of {where} are not built.")
    return given


def is_clips(shapes: Shapes) -> bool:
    """Whether a file holds the video transformer."""
    return shapes.keys() >= CLIP_NEEDED


_part = partial(
    Part, system="nar", licence="MIT", source="ThisisBillhe/NAR", component="transformer"
)
PARTS = (
    *(
        _part(
            name=name,
            recognise=partial(images.is_transformer, task=task, heads=IMAGE_HEADS),
            convert=convert_images,
            needed=images.needed_by(task, IMAGE_HEADS),
        )
        for task, name in images.TASKS.items()
    ),
    _part(
        name="class-conditional clip generator",
        recognise=is_clips,
        convert=convert_clips,
        needed=CLIP_NEEDED,
    ),
)
