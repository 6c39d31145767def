"""Held-out losses of a pipeline's transformer, and the fidelity of its visual tokenizer."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmgen.data.fit import as_float
from mmgen.evaluation.asking import PROMPT
from mmgen.evaluation.features import Pictures
from mmgen.evaluation.real import RealSet
from mmgen.evaluation.stills import still_units
from mmgen.models.schedule import grid_of, to_slots
from mmgen.models.unified import plan_for
from mmgen.tokenizers_vis.metrics import psnr, ssim
from mmgen.tokenizers_vis.protocol import number_of_codes
from mmgen.tokenizers_vis.usage import CodebookUsage
from mmgen.train.flow_losses import held_out_flow_loss

if TYPE_CHECKING:
    from mmgen.models.unified import Unit
    from mmgen.pipeline import Pipeline

SHUFFLES = 4  # orders that the loss of a unit of fresh orders is averaged over
_BATCH = 32


@torch.inference_mode()
def held_out_losses(pipeline: Pipeline, real: RealSet) -> dict[str, Any]:
    """Cross-entropy on `val` in nats a token: each unit's, and that of the captions.

    Of units that draw latents it is the squared error of the velocity.

    Args:
        pipeline: what is measured.
        real: the real pictures.

    Returns:
        `pictures`, `uniform` (what knowing nothing costs: ln K, or the square of the velocity),
        `units` by name, `caption`.
    """
    places = real.places("val")
    prompts = [
        PROMPT.format(phrase=item.concept.phrase, style=item.style)
        for item in (real.items[i] for i in places)
    ]
    codes = encode(pipeline, real.pictures[places])
    config = pipeline.two_way()[1].config
    units = still_units(pipeline).values()
    losses = {unit.name: unit_loss(pipeline, unit, codes, prompts) for unit in units}
    return {
        "pictures": len(places),
        "uniform": knowing_nothing(codes, config.codebook_size),
        "units": losses,
        "caption": _caption_loss(pipeline, codes, prompts),
    }


@torch.inference_mode()
def fidelity(
    vision: Any,
    batches: Iterable[Tensor],
    device: torch.device,
    watch: Callable[[Tensor, Tensor], None] | None = None,
) -> dict[str, Any]:
    """PSNR (dB) and SSIM of reconstructed pictures, and how the codes are used.

    Args:
        vision: the visual tokenizer.
        batches: of pictures (B, 3, H, W) in [-1, 1], at least one.
        device: where the tokenizer is.
        watch: is shown each batch and its reconstruction, both on the CPU.

    Returns:
        `pictures`, `psnr`, `ssim`, `codes_used` (share of K) and `perplexity`; the last two are
        None for continuous latents.
    """
    usage = None
    if vision.codebook_size is not None:
        usage = CodebookUsage(number_of_codes(vision), window=sys.maxsize)
    scores = []
    for pixels in batches:
        codes = vision.encode(pixels.to(device))
        if usage is not None:
            usage.update(codes.indices)
        again = vision.decode(codes).clamp(-1, 1).cpu()
        scores.append(torch.stack([psnr(again, pixels), ssim(again, pixels)], dim=1))
        if watch is not None:
            watch(pixels, again)
    found = torch.cat(scores)
    mean = found.mean(0)
    return {
        "pictures": len(found),
        "psnr": float(mean[0]),
        "ssim": float(mean[1]),
        "codes_used": None if usage is None else usage.used,
        "perplexity": None if usage is None else usage.perplexity,
    }


@torch.inference_mode()
def unit_loss(pipeline: Pipeline, unit: Unit, codes: Tensor, prompts: list[str]) -> float:
    """Loss of one unit on codes (N, t, h, w) or latents (N, t, h, w, C) behind N prompts.

    Nats a token, or the squared error of the velocity.
    """
    _, model = pipeline.two_way()
    seeds = range(SHUFFLES if unit.fresh else 1)
    total = 0.0
    for seed in seeds:
        plan, first = plan_for(unit, grid_of(codes), seed=seed), 0
        for part, ids, valid in _captioned(pipeline, codes, prompts, end=False):
            slots = to_slots(plan.schedule, part)
            if model.latents is not None:
                loss = held_out_flow_loss(model, ids, valid, slots, plan, unit.name, first)
            else:
                loss = model.text_to_image_loss(ids, valid, slots, plan, unit.name)
            total, first = total + float(loss) * len(part), first + len(part)
    return total / (len(codes) * len(seeds))


def knowing_nothing(codes: Tensor, codebook_size: int) -> float:
    """What `unit_loss` of a guess is: ln K, or the mean square of the velocity."""
    return math.log(codebook_size) if codebook_size else 1 + float(codes.square().mean())


def _caption_loss(pipeline: Pipeline, codes: Tensor, prompts: list[str]) -> float:
    _, model = pipeline.two_way()
    unit = model.config.first_unit(grid_of(codes))
    plan = plan_for(unit, grid_of(codes))
    total, tokens = 0.0, 0
    for part, ids, valid in _captioned(pipeline, codes, prompts, end=True):
        slots = to_slots(plan.schedule, part)
        loss = model.image_to_text_loss(slots, plan, unit.name, ids, valid)
        count = int(valid[:, 1:].sum())
        total, tokens = total + float(loss) * count, tokens + count
    return total / tokens


def _captioned(
    pipeline: Pipeline, codes: Tensor, prompts: list[str], *, end: bool
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Batches of codes, caption ids and their validity."""
    text, model = pipeline.two_way()
    batches = []
    for start in range(0, len(codes), _BATCH):
        ids, valid = text.encode(prompts[start : start + _BATCH], model.config.max_text, end=end)
        device = codes.device
        batches.append((codes[start : start + _BATCH], ids.to(device), valid.to(device)))
    return batches


@torch.inference_mode()
def encode(pipeline: Pipeline, pictures: Pictures) -> Tensor:
    """Codes (N, t, h, w), or latents (N, t, h, w, C), of pictures (N, H, W, 3)."""
    parts = []
    for pixels in float_batches(pictures):
        codes = pipeline.vision.encode(pixels.to(pipeline.device))
        parts.append(codes.latents if codes.indices is None else codes.indices)
    return torch.cat(parts)


def float_batches(pictures: Pictures) -> list[Tensor]:
    """Pictures (N, H, W, 3) uint8 as batches of (B, 3, H, W) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return [as_float(part) for part in torch.split(pixels, _BATCH)]
