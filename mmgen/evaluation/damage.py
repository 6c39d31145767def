"""What damage does to the yardstick's figures: a scale for those of generated pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from mmgen.evaluation.asking import pick
from mmgen.evaluation.features import Extractor, Pictures, features_of
from mmgen.evaluation.judge import Judge
from mmgen.evaluation.yardstick import kid, top_scores
from mmgen.progress import Progress

COUNT = 600  # training pictures that are damaged
NOISE = 25  # of 255


def damage_figures(
    judge: Judge,
    extractor: Extractor,
    *,
    progress: Progress | None = None,
) -> dict[str, float]:
    """KID against the other training pictures, and concept score, of damaged training pictures.

    Args:
        judge: of the real pictures; its seed chooses the pictures and the noise.
        extractor: the feature network.
        progress: called with damages done and damages in all.
    """
    real, seed = judge.real, judge.seed
    generator = np.random.default_rng((seed, COUNT))
    chosen = pick(judge.train, min(COUNT, len(judge.train) // 2), generator)
    others = real.features[sorted(set(judge.train) - set(chosen))]
    concepts = [real.items[i].concept.key for i in chosen]
    styles = [real.items[i].style for i in chosen]
    found = dict[str, float]()
    damages = _damages(generator)
    for number, (name, damage) in enumerate(damages.items()):
        features = features_of(damage(real.pictures[chosen]), extractor)
        scores = top_scores(judge.gallery.ranks(features, concepts, styles))
        found |= _named(name, kid(features, others, seed=seed), scores.top1, scores.top5)
        if progress is not None:
            progress(number + 1, len(damages))
    features = real.features[chosen]
    wrong = [concepts[i] for i in generator.permutation(len(concepts))]
    scores = top_scores(judge.gallery.ranks(features, wrong, styles))
    return found | _named("captions permuted", found["damage/none/kid"], scores.top1, scores.top5)


def _named(name: str, distance: float, top1: float, top5: float) -> dict[str, float]:
    figures = {"kid": distance, "top1": top1, "top5": top5}
    return {f"damage/{name}/{key}": value for key, value in figures.items()}


def _damages(generator: np.random.Generator) -> dict[str, Callable[[Pictures], Pictures]]:
    return {
        "none": lambda pictures: pictures,
        **{f"resolution / {factor}": _coarser(factor) for factor in (2, 4, 8)},
        "noise": lambda pictures: _noisy(pictures, generator),
    }


def _coarser(factor: int) -> Callable[[Pictures], Pictures]:
    """Area means of `factor` x `factor` pixels, and bicubic back."""

    def damage(pictures: Pictures) -> Pictures:
        return np.concatenate([_resized(part, factor) for part in _parts(pictures)])

    return damage


def _resized(pictures: Pictures, factor: int) -> Pictures:
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    small = F.avg_pool2d(pixels, factor)
    large = F.interpolate(small, pixels.shape[-2:], mode="bicubic", align_corners=False)
    again: Pictures = large.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return again


def _noisy(pictures: Pictures, generator: np.random.Generator) -> Pictures:
    noise = generator.normal(0, NOISE, pictures.shape)
    return np.clip(np.rint(pictures + noise), 0, 255).astype(np.uint8)


def _parts(pictures: Pictures, size: int = 64) -> Iterator[Pictures]:
    return (pictures[at : at + size] for at in range(0, len(pictures), size))
