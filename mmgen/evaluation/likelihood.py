"""How likely captions are behind pictures, and where the true one ranks among others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmgen.evaluation.asking import PROMPT, pick
from mmgen.evaluation.features import Progress
from mmgen.evaluation.held_out import encode
from mmgen.evaluation.real import RealSet
from mmgen.evaluation.yardstick import spread, top_scores
from mmgen.models.schedule import grid_of, to_slots
from mmgen.models.unified import plan_for

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline

CAPTIONS = 32  # that the true one is ranked among, itself included
_BATCH = 32


@torch.inference_mode()
def caption_likelihoods(pipeline: Pipeline, codes: Tensor, captions: Sequence[str]) -> Tensor:
    """Log-likelihood in nats of each caption, its end included, behind one picture: (N,).

    Args:
        pipeline: weights that read and write.
        codes: (t, h, w) of the picture, or latents (t, h, w, C).
        captions: N of them; their words count only as far as the weights read captions.
    """
    text, model = pipeline.two_way()
    unit = model.config.first_unit(grid_of(codes[None]))  # what captioning reads pictures as
    plan = plan_for(unit, grid_of(codes[None]))
    slots = to_slots(plan.schedule, codes[None])
    found = []
    for start in range(0, len(captions), _BATCH):
        part = list(captions[start : start + _BATCH])
        ids, valid = (
            t.to(codes.device) for t in text.encode(part, model.config.max_text, end=True)
        )
        logits = model.caption_logits(
            slots.expand(len(part), *slots.shape[1:]), plan, unit.name, ids, valid
        )  # (B, T - 1, V)
        nats = -F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        found.append((nats * valid[:, 1:]).sum(1))
    return torch.cat(found).cpu()


def caption_ranks(
    pipeline: Pipeline,
    real: RealSet,
    split: str,
    *,
    pictures: int,
    seed: int,
    captions: int = CAPTIONS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """How often the true caption is the likeliest among those of other concepts.

    All captions of a picture name the style that it has, so that its style gives nothing away.

    Args:
        pipeline: weights that read and write.
        real: the real pictures. `split`: which of them.
        pictures: most of them, drawn with the seed, as the other captions are.
        seed: of the draws.
        captions: that the true one is ranked among, itself included.
        progress: called with pictures done and pictures in all.

    Returns:
        `pictures`, `captions`, `top1`, `top5`, `rank` (5 %, median and 95 %; 1 is the best).
    """
    generator = np.random.default_rng((seed, captions))
    places = pick(real.places(split), pictures, generator)
    phrases = {item.concept.key: item.concept.phrase for item in real.items}
    keys, ranks = sorted(phrases), []
    codes = encode(pipeline, real.pictures[places])
    for number, place in enumerate(places):
        item = real.items[place]
        others = pick([k for k in keys if k != item.concept.key], captions - 1, generator)
        words = [phrases[key] for key in (item.concept.key, *others)]
        asked = [PROMPT.format(phrase=phrase, style=item.style) for phrase in words]
        likelihoods = caption_likelihoods(pipeline, codes[number], asked)
        ranks.append(int((likelihoods[1:] >= likelihoods[0]).sum()))
        if progress is not None:
            progress(number + 1, len(places))
    scores = top_scores(np.array(ranks))
    return {
        "pictures": len(places),
        "captions": min(captions, len(keys)),
        "top1": scores.top1,
        "top5": scores.top5,
        "rank": asdict(spread(np.array(ranks) + 1.0)),
    }
