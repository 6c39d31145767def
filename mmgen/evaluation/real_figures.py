"""The yardstick held to real pictures alone: how they find one another, and how far sets lie apart.

These figures are known (`expected`), so they check the yardstick before it judges generated ones.
Names of figures are paths, such as `concept/noto/top1`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from mmgen.evaluation.judge import Judge
from mmgen.evaluation.real import RealSet
from mmgen.evaluation.sets import HELD_OUT, TESTS
from mmgen.evaluation.yardstick import Array, StyleReader, kid, nearest, normalized, top_scores
from mmgen.progress import Progress

CUTS = 5  # into halves

Figures = Iterator[tuple[str, float]]


def real_figures(judge: Judge, progress: Progress | None = None) -> dict[str, float]:
    """All figures of real pictures as they are, by name.

    Args:
        judge: of the whole set; its seed is that of the cuts and draws of KID.
        progress: called with parts done and parts in all.
    """
    real, seed = judge.real, judge.seed
    styles = sorted({item.style for item in real.items})
    parts = (
        _retrieval(real, styles),
        _concepts(judge, styles),
        _halves(real, styles, seed),
        _apart(real, styles, seed),
        _copying(judge),
        _styles(real),
    )
    found = dict[str, float]()
    for number, part in enumerate(parts):
        found.update(part)
        if progress is not None:
            progress(number + 1, len(parts))
    return found


def _of(real: RealSet, *, style: str | None = None, split: str | None = None) -> list[int]:
    """Indices of pictures, in the order of the set."""
    return [
        i
        for i, item in enumerate(real.items)
        if style in (None, item.style) and split in (None, item.split)
    ]


def _retrieval(real: RealSet, styles: Sequence[str]) -> Figures:
    """Does a picture find the same concept in another style, by centred features?"""
    places = {style: _of(real, style=style) for style in styles}
    centred = {s: normalized(_centred(real.features[places[s]])) for s in styles}
    keys = {s: [real.items[i].concept.key for i in places[s]] for s in styles}
    for query in styles:
        for gallery in styles:
            if query != gallery:
                column = {key: n for n, key in enumerate(keys[gallery])}
                asked = [n for n, key in enumerate(keys[query]) if key in column]
                right = np.array([column[keys[query][n]] for n in asked])
                table = centred[query][asked] @ centred[gallery].T
                ranks = (table >= table[np.arange(len(asked)), right][:, None]).sum(1) - 1
                yield from _tops(f"retrieval/{query}>{gallery}", ranks)


def _concepts(judge: Judge, styles: Sequence[str]) -> Figures:
    """The concept score of real pictures: of each style, and of each held-out split."""
    items = judge.real.items
    ranks = judge.gallery.ranks(
        judge.real.features, [i.concept.key for i in items], [i.style for i in items]
    )
    for style in styles:
        yield from _tops(f"concept/{style}", ranks[_of(judge.real, style=style)])
    for split in HELD_OUT:
        yield from _tops(f"concept/{split}", ranks[_of(judge.real, split=split)])


def _halves(real: RealSet, styles: Sequence[str], seed: int) -> Figures:
    """KID of disjoint halves, which show what 0 looks like: means of several cuts."""
    sets = {**{style: _of(real, style=style) for style in styles}, "everything": _of(real)}
    cuts = dict[str, list[float]]()
    for number, (name, places) in enumerate(sets.items()):
        cuts[name] = []
        for cut in range(CUTS):
            order = np.random.default_rng((seed, number, cut)).permutation(places)
            half = len(order) // 2
            parts = real.features[order[:half]], real.features[order[half:]]
            cuts[name].append(kid(*parts, seed=seed + cut))
        yield f"kid/halves/{name}", float(np.mean(cuts[name]))
    single = [cuts[style] for style in styles]
    yield "kid/halves/of a style, mean", float(np.mean(single))
    yield "kid/halves/of a style, largest", float(np.max(single))


def _apart(real: RealSet, styles: Sequence[str], seed: int) -> Figures:
    """KID of the training pictures against each test split, and of each two styles."""
    features, train = real.features, _of(real, split="train")
    for split in TESTS:
        yield (
            f"kid/train,{split}",
            kid(features[train], features[_of(real, split=split)], seed=seed),
        )
    for a, b in combinations(styles, 2):
        pair = features[_of(real, style=a)], features[_of(real, style=b)]
        yield f"kid/{a},{b}", kid(*pair, seed=seed)


def _copying(judge: Judge) -> Figures:
    """Cosine of held-out pictures to the nearest training picture."""
    for split in TESTS:
        queries = judge.real.features[_of(judge.real, split=split)]
        cosines, _ = nearest(queries, judge.train_features)
        for name, share in (("low", 0.05), ("median", 0.5), ("high", 0.95)):
            yield f"copying/{split}/{name}", float(np.quantile(cosines, share))


def _styles(real: RealSet) -> Figures:
    """Share of test pictures whose style is read right, by ridge regression and by nearest mean."""
    train = _of(real, split="train")
    tests = [i for split in TESTS for i in _of(real, split=split)]
    styles = np.array([item.style for item in real.items])
    reader = StyleReader.fit(real.features[train], styles[train].tolist())
    right = np.array(reader.read(real.features[tests])) == styles[tests]
    yield "style/all", float(right.mean())
    for style in sorted(set(styles[tests])):
        yield f"style/{style}", float(right[styles[tests] == style].mean())
    means = np.stack(
        [real.features[train][styles[train] == style].mean(0) for style in reader.styles]
    )
    table = np.square(real.features[tests][:, None] - means).sum(2)
    read = np.array(reader.styles)[table.argmin(1)]
    yield "style/by nearest mean", float((read == styles[tests]).mean())


def _centred(features: Array) -> Array:
    wide = np.asarray(features, np.float64)
    centred: Array = wide - wide.mean(0)
    return centred


def _tops(name: str, ranks: Any) -> Figures:
    scores = top_scores(ranks)
    yield f"{name}/top1", scores.top1
    yield f"{name}/top5", scores.top5
