"""The yardstick against slow, direct oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.errors import DataError
from mmgen.evaluation.yardstick import (
    ConceptGallery,
    StyleReader,
    kid,
    mmd2,
    nearest,
    spread,
    top_scores,
)

STYLES = ("flat", "ink", "noto")


def real(seed: int, concepts: int = 6, width: int = 5, missing: int = 2):  # type: ignore[no-untyped-def]
    """Features, concepts and styles of a small set in which some pictures are missing."""
    generator = np.random.default_rng(seed)
    pairs = [(f"c{c}", style) for c in range(concepts) for style in STYLES]
    kept = sorted(generator.permutation(len(pairs))[missing:].tolist())
    pairs = [pairs[i] for i in kept]
    features = generator.normal(size=(len(pairs), width)) + 0.5
    return features, [c for c, _ in pairs], [s for _, s in pairs]


def direct_mmd2(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(np.dot(a, b)) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    own = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    between = sum(kernel(a, b) for a in x for b in y) / (n * m)
    return own + other - 2 * between


def direct_rank(features, concepts, styles, query, concept, style) -> int:  # type: ignore[no-untyped-def]
    """Rank by the words of the definition, one concept at a time."""
    unit = lambda v: v / np.linalg.norm(v)  # noqa: E731
    mean = {s: np.mean([f for f, t in zip(features, styles) if t == s], axis=0) for s in STYLES}
    scores = {}
    for name in set(concepts):
        views = [
            unit(f - mean[s])
            for f, c, s in zip(features, concepts, styles)
            if c == name and s != style
        ]
        scores[name] = float(unit(np.mean(views, 0)) @ unit(query - mean[style])) if views else 0.0
    order = sorted(scores, key=lambda name: -scores[name])
    return order.index(concept)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(2, 7))
def test_mmd2_is_the_direct_formula(seed: int, n: int, m: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(n, 4)), generator.normal(size=(m, 4)) + 1
    assert mmd2(x, y) == pytest.approx(direct_mmd2(x, y), rel=1e-9, abs=1e-9)


def test_features_that_are_no_numbers_rank_last() -> None:
    features, concepts, styles = real(0)
    gallery = ConceptGallery.build(features, concepts, styles)
    broken = np.full((2, features.shape[1]), np.nan)
    ranks = gallery.ranks(broken, concepts[:2], [styles[0], None])
    assert ranks.tolist() == [len(gallery.concepts) - 1] * 2


def test_kid_is_the_mean_of_draws_without_replacement() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(9, 4)), generator.normal(size=(7, 4)) + 1
    draws = np.random.default_rng(5)
    expected = [
        direct_mmd2(x[draws.choice(9, 4, replace=False)], y[draws.choice(7, 4, replace=False)])
        for _ in range(3)
    ]
    assert kid(x, y, draws=3, size=4, seed=5) == pytest.approx(np.mean(expected))


def test_kid_takes_fewer_pictures_where_a_side_has_fewer() -> None:
    x = np.random.default_rng(1).normal(size=(4, 3))
    y = np.random.default_rng(2).normal(size=(4, 3))
    assert kid(x, y, draws=3) == pytest.approx(direct_mmd2(x, y))
    with pytest.raises(DataError, match="two pictures"):
        kid(x[:1], y)


def test_kid_of_equal_distributions_is_about_zero_and_of_others_is_not() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 600, 16))
    assert abs(kid(x, y)) < 0.02
    assert kid(x, y + 1) > 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_ranks_are_those_of_a_sort_by_the_definition(seed: int) -> None:
    features, concepts, styles = real(seed)
    gallery = ConceptGallery.build(features, concepts, styles)
    queries = np.random.default_rng(seed + 1).normal(size=(4, 5)) + 0.5
    asked, wanted = ["c1", "c2", "c3", "c3"], ["ink", "noto", "flat", "ink"]
    asked = [name if name in concepts else concepts[0] for name in asked]
    expected = [
        direct_rank(features, concepts, styles, query, concept, style)
        for query, concept, style in zip(queries, asked, wanted)
    ]
    assert gallery.ranks(queries, asked, wanted).tolist() == expected
    table = gallery.cosines(queries, "ink")
    right = [gallery.concepts.index(concept) for concept in asked]
    by_argsort = [np.argsort(-row).tolist().index(place) for row, place in zip(table, right)]
    assert gallery.ranks(queries, asked, ["ink"] * 4).tolist() == by_argsort


def test_without_a_style_the_best_one_counts() -> None:
    features, concepts, styles = real(3, missing=0)
    gallery = ConceptGallery.build(features, concepts, styles)
    queries = np.random.default_rng(0).normal(size=(6, 5))
    asked = [f"c{i}" for i in range(6)]
    each = [gallery.judge(queries, asked, [style] * 6) for style in STYLES]
    ranks, cosines = gallery.judge(queries, asked, [None] * 6)
    assert ranks.tolist() == np.min([r for r, _ in each], axis=0).tolist()
    best = [max(c[i] for r, c in each if r[i] == ranks[i]) for i in range(6)]
    assert cosines == pytest.approx(best)


def test_a_picture_without_any_feature_is_ranked_last() -> None:
    features, concepts, styles = real(3, missing=0)
    gallery = ConceptGallery.build(features, concepts, styles)
    blank = gallery.means[gallery.styles.index("ink")][None]  # nothing is left after centring
    assert gallery.ranks(blank, ["c2"], ["ink"]).tolist() == [5]


def test_the_gallery_refuses_what_it_cannot_answer() -> None:
    features, concepts, styles = real(3)
    gallery = ConceptGallery.build(features, concepts, styles)
    with pytest.raises(DataError, match="no concept 'c9'"):
        gallery.ranks(features[:1], ["c9"], ["ink"])
    with pytest.raises(DataError, match="no style 'oil'"):
        gallery.ranks(features[:1], ["c1"], ["oil"])
    with pytest.raises(DataError, match="one picture"):
        ConceptGallery.build(features[[0, 0]], [concepts[0]] * 2, [styles[0]] * 2)


def test_top_scores_count_the_first_and_the_first_five() -> None:
    scores = top_scores(np.array([0, 1, 4, 5]))
    assert (scores.top1, scores.top5, scores.count) == (0.25, 0.75, 4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_nearest_is_a_search_one_by_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    queries, gallery = generator.normal(size=(5, 4)), generator.normal(size=(8, 4))
    cosines, places = nearest(queries, gallery)
    for query, cosine, place in zip(queries, cosines, places):
        all_of_them = [
            float(query @ g / np.linalg.norm(query) / np.linalg.norm(g)) for g in gallery
        ]
        assert place == int(np.argmax(all_of_them))
        assert cosine == pytest.approx(max(all_of_them))


def test_nearest_can_leave_out_the_picture_itself() -> None:
    gallery = np.random.default_rng(0).normal(size=(6, 4))
    cosines, places = nearest(gallery, gallery, skip=[0, 1, 2, None, 4, 5])
    assert places[3] == 3 and cosines[3] == pytest.approx(1)
    assert all(place != i for i, place in enumerate(places) if i != 3)
    assert (np.delete(cosines, 3) < 1).all()


def test_spread_is_of_sorted_numbers() -> None:
    found = spread(np.arange(101.0)[::-1])
    assert (found.low, found.median, found.high) == (5, 50, 95)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_ridge_is_least_squares_with_augmented_rows(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(12, 4)) + 3
    styles = [STYLES[i] for i in [0, 1, 2, *generator.integers(3, size=9)]]
    reader = StyleReader.fit(x, styles, strength=10)
    targets = np.array([[style == kind for kind in STYLES] for style in styles], float)
    # Rows that punish the weights but not the intercept, which is the last column.
    augmented = np.vstack(
        [
            np.hstack([x, np.ones((12, 1))]),
            np.hstack([np.sqrt(10) * np.eye(4), np.zeros((4, 1))]),
        ]
    )
    solution, *_ = np.linalg.lstsq(augmented, np.vstack([targets, np.zeros((4, 3))]), rcond=None)
    assert np.allclose(reader.weights, solution[:4])
    assert np.allclose(reader.bias, solution[4])
    scores = x @ solution[:4] + solution[4]
    assert reader.read(x) == [STYLES[i] for i in scores.argmax(1)]
