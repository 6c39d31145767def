"""What features say of clips: distance from real ones, how much they move, whether they close.

A clip is five of its frames in the features of `mmgen.evaluation.features` (D numbers a frame).
For KID it is their mean joined with the mean absolute difference of successive ones, so that a clip
that stands still, or moves as another thing does, lies apart. Motion is the mean of that
difference; loop closure is the cosine of the last frame to the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmgen.evaluation.features import Extractor, Pictures, features_of
from mmgen.evaluation.yardstick import Array, kid, normalized, spread
from mmgen.progress import Progress

SHOWN = (0, 4, 8, 12, 16)  # frames of clips of 17 that are looked at; others are spread alike
CUTS = 5  # into halves

Clips = NDArray[np.uint8]  # (N, T, H, W, 3)


def look_at(
    clips: Clips,
    extractor: Extractor,
    *,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Array:
    """Features (N, 5, D) of the frames `shown` of clips (N, T, H, W, 3); see `features_of`."""
    frames: Pictures = clips[:, shown(clips.shape[1])]
    found = features_of(
        frames.reshape(-1, *frames.shape[2:]), extractor, cache=cache, progress=progress
    )
    features: Array = found.reshape(*frames.shape[:2], -1)
    return features


def shown(count: int) -> list[int]:
    """Which frames of a clip of so many are looked at: five, from the first to the last."""
    return [round(place * (count - 1) / SHOWN[-1]) for place in SHOWN]


def described(features: Array) -> Array:
    """Frames (N, 5, D) as clips (N, 2 D): the mean, then the mean absolute step."""
    joined: Array = np.concatenate([features.mean(1), steps(features).mean(1)], axis=1)
    return joined


def steps(features: Array) -> Array:
    """Absolute differences (N, 4, D) of successive frames (N, 5, D)."""
    changed: Array = np.abs(np.diff(np.asarray(features, np.float64), axis=1))
    return changed


def motion(features: Array) -> Array:
    """How much each clip moves, (N,): the mean absolute difference of successive features."""
    moved: Array = steps(features).mean((1, 2))
    return moved


def to_first(features: Array) -> Array:
    """Cosine (N, 5) of each frame to the first; the last column says how well a loop closes."""
    units = normalized(np.asarray(features, np.float64))
    cosines: Array = np.einsum("nfd,nd->nf", units, units[:, 0])
    return cosines


def frozen(features: Array) -> Array:
    """Clips that stand still on their first frame."""
    still: Array = np.repeat(features[:, :1], features.shape[1], axis=1)
    return still


def borrowed(features: Array, seed: int = 0) -> Array:
    """First frames followed by the frames of another clip."""
    order = np.random.default_rng(seed).permutation(len(features))
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)  # one cycle: nobody keeps its own
    joined: Array = np.concatenate([features[:, :1], features[others][:, 1:]], axis=1)
    return joined


def clip_figures(features: Array) -> dict[str, float]:
    """What clips (N, 5, D) say by themselves, by name: motion and cosines to the first frame."""
    moved, cosines = spread(motion(features)), np.median(to_first(features), axis=0)
    return {
        "motion/low": moved.low,
        "motion/median": moved.median,
        "motion/high": moved.high,
        **{f"to first/frame {n}": float(c) for n, c in list(zip(SHOWN, cosines))[1:]},
    }


def clip_kid(made: Array, real: Array, seed: int = 0) -> float:
    """KID of clips (N, 5, D) and (M, 5, D)."""
    return kid(described(made), described(real), seed=seed)


def real_clip_figures(features: Array, seed: int = 0) -> dict[str, float]:
    """Figures of real clips (N, 5, D), which are known: a check of this yardstick."""
    return clip_figures(features) | dict(_distances(features, seed))


def _distances(features: Array, seed: int) -> Iterator[tuple[str, float]]:
    """KID of halves, and of one half, damaged, against the other: means of several cuts."""
    found: dict[str, list[float]] = {"halves": [], "frozen": [], "another's motion": []}
    for cut in range(CUTS):
        order = np.random.default_rng((seed, cut)).permutation(len(features))
        one, two = features[order[: len(order) // 2]], features[order[len(order) // 2 :]]
        for name, made in (
            ("halves", one),
            ("frozen", frozen(one)),
            ("another's motion", borrowed(one, cut)),
        ):
            found[name].append(clip_kid(made, two, seed + cut))
    yield "kid/halves, mean", float(np.mean(found["halves"]))
    yield "kid/halves, largest", float(np.max(found["halves"]))
    yield "kid/frozen", float(np.mean(found["frozen"]))
    yield "kid/another's motion", float(np.mean(found["another's motion"]))
