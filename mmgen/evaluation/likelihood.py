"""Where the true caption of a picture ranks by likelihood among others."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mmgen.evaluation.asking import PROMPT, pick
from mmgen.evaluation.held_out import encode
from mmgen.evaluation.real import RealSet
from mmgen.evaluation.yardstick import spread, top_scores
from mmgen.progress import Progress
from mmgen.scoring import score_codes

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline

CAPTIONS = 32  # that the true one is ranked among, itself included


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
        shown = codes[number].expand(len(asked), *codes[number].shape)
        right, *wrong = (score.total for score in score_codes(pipeline, shown, asked))
        ranks.append(sum(not total < right for total in wrong))  # what is no number is the last
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
