"""LlamaGen's transformers, class- and text-conditional (specs/nar.md 2), as `ConditionalModel`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from mmgen.models.conditional import Tap
from mmgen.models.units import Unit
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.published.gpt_blocks import build, fuse, halves
from mmgen.published.gpt_classes import guidable, null_notes
from mmgen.published.gpt_images import (
    HEAD,
    RULES,
    SIZES,
    TASKS,
    Options,
    image_config,
    is_transformer,
    needed_by,
    read,
    without_stale,
)
from mmgen.published.gpt_sizes import STALE, image_size, size_by
from mmgen.published.systems import Converted, Part

PRESETS: dict[str, dict[str, Any]] = {
    **{name: {**size, "model_type": "c2i"} for name, size in SIZES.items() if name != "GPT-M"},
    "GPT-XL t2i": {**SIZES["GPT-XL"], "model_type": "t2i"},
}

# Guidance of the published evaluation by width: at 384 pixels, and where it differs at 256.
GUIDANCE = {768: 2.25, 1024: 2.0, 1280: 1.75, 1536: 1.75, 3200: 1.65}
GUIDANCE_256 = {768: 2.0, 1024: 1.75}
UNPUBLISHED = 1.5


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """LlamaGen's transformer; see `Part.convert`."""
    given = read(Options, tensors, options, where)
    told = size_by(options, where, given.model_type, STALE in tensors)
    tensors = without_stale(tensors)
    unit = Unit("token", "raster", "shift")
    config = image_config(given, tensors, where, unit, taps=(Tap("x", given.n_layer),))
    network = build(config, halves(fuse(tensors, where), config.backbone), RULES, where)
    sampling = guidable(sampling_defaults(given), config.condition)
    size = image_size(given.block_size)
    notes = null_notes(config.condition)
    if given.model_type != "t2i" and given.dim not in GUIDANCE:
        notes += (f"guidance {UNPUBLISHED}, since none is published for width {given.dim}",)
    return Converted("transformer", network, size, sampling, notes, size_by=told)


def sampling_defaults(given: Options) -> SamplingDefaults:
    """Guidance and filters of the published evaluation (specs/nar.md 2.8 and 8.2)."""
    if given.model_type == "t2i":
        return SamplingDefaults("token", guidance_scale=7.5, top_k=1000)
    small = GUIDANCE_256 if given.block_size <= 256 else {}
    scale = {**GUIDANCE, **small}.get(given.dim, UNPUBLISHED)
    return SamplingDefaults("token", guidance_scale=scale)


PARTS = tuple(
    Part(
        system="llamagen",
        name=name,
        licence="MIT",
        source="FoundationVision/LlamaGen",
        recognise=partial(is_transformer, task=task, heads=HEAD),
        convert=convert,
        component="transformer",
        needed=needed_by(task, HEAD),
    )
    for task, name in TASKS.items()
)
