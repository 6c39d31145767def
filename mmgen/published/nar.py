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
from mmgen.models.units import Unit
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published import gpt_images as images
from mmgen.published import keymap
from mmgen.published.gpt_blocks import backbone_config, block_rules, build, fuse, halves, heads_of
from mmgen.published.gpt_classes import classes_of, guidable, null_notes, table_condition
from mmgen.published.gpt_sizes import STALE, image_size, size_by
from mmgen.published.options import official, refuse_contradictions, whole
from mmgen.published.systems import Converted, Part, Shapes

# All heads speak of the first code, also where the grid leaves them no neighbour (nar.md 3.6, 6.2).
NEIGHBOR = Unit("neighbor", "neighbor", "neighbors", directions="yx")
CLIP_NEIGHBOR = Unit("neighbor", "neighbor", "neighbors", directions="tyx")
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
    extra = whole(options, "medusa_attention_num", 1, where)
    given = images.read(ImageOptions, tensors, options, where, extra)
    told = size_by(options, where, given.model_type, STALE in tensors)
    tensors = images.without_stale(tensors)
    taps = (Tap("x", given.n_layer), Tap("y", given.n_layer + given.medusa_attention_num))
    config = images.image_config(given, tensors, where, NEIGHBOR, taps)
    network = build(config, halves(fuse(tensors, where), config.backbone), IMAGE_RULES, where)
    scale = 7.5 if given.model_type == "t2i" else 2.0  # specs/nar.md 3.6 and 4
    sampling = guidable(SamplingDefaults("neighbor", guidance_scale=scale), config.condition)
    size = image_size(given.block_size)
    notes = null_notes(config.condition)
    return Converted("transformer", network, size, sampling, notes, size_by=told)


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
    heads, eps = given.n_head, given.norm_eps
    config = ConditionalConfig(
        backbone=backbone_config(tensors, heads, eps, where, kv_heads=given.n_kv_head),
        condition=table_condition(len(tensors[images.LABEL]), given.num_classes),
        codebook_size=given.vocab_size,
        grid=given.latent_shape,
        units=(CLIP_NEIGHBOR,),
        taps=(Tap("x", given.n_layer), Tap("y", down), Tap("t", down + given.attn_num_back)),
        positions="learned",
    )
    flat = {key: t.squeeze(0) if key == "abs_pe" else t for key, t in tensors.items()}
    network = build(config, fuse(flat, where), CLIP_RULES, where)
    sampling = SamplingDefaults("neighbor", guidance_scale=1.25)  # specs/nar.md 6.2
    shape = "x".join(map(str, given.latent_shape))
    guess = () if "latent_shape" in options else (f"latent_shape {shape} assumed",)
    notes = (*guess, *null_notes(config.condition))
    return Converted("transformer", network, 128, guidable(sampling, config.condition), notes)


def read_clip_options(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> ClipOptions:
    """Official options over what the tensors tell.

    Raises:
        ConfigError: an option that is unknown, that the tensors contradict, or that is not built.
    """
    vocab, dim = keymap.shape(tensors, "tok_embeddings.weight", 2, where)
    rows, _ = keymap.shape(tensors, images.LABEL, 2, where)
    extra = sum(whole(options, name, 1, where) for name in ("attn_num_down", "attn_num_back"))
    facts = {
        **{"vocab_size": vocab, "dim": dim, "cls_token_num": 1},
        "n_layer": keymap.count(tensors, images.BLOCK_KEY.pattern) - extra,
        "num_classes": classes_of(rows, options, "num_classes"),
        "max_seq_len": keymap.shape(tensors, "abs_pe", 3, where)[1] - 1,
    }
    refuse_contradictions(options, facts, where)
    defaults: dict[str, Any] = {"n_head": heads_of(CLIP_SIZES, "dim", dim, options, where)}
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
    return {key for key in shapes if not images.BLOCK_KEY.fullmatch(key)} == CLIP_NEEDED


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
