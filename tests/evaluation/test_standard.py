"""FID, precision, recall and the Inception Score against slow or independent oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.errors import DataError
from mmgen.evaluation.standard import (
    Gaussian,
    frechet_distance,
    inception_score,
    precision_recall,
)


def features(seed: int, count: int, width: int = 6) -> np.ndarray:
    """Correlated features with a mean of their own."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(count, width)) @ generator.normal(size=(width, width))
    return mixed + generator.normal(size=width)


def newton_root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a matrix by the iteration of Denman and Beavers."""
    root, inverse = matrix, np.eye(len(matrix))
    for _ in range(60):
        root, inverse = (
            (root + np.linalg.inv(inverse)) / 2,
            (inverse + np.linalg.inv(root)) / 2,
        )
    return root


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_frechet_distance_is_the_formula_with_a_square_root(seed: int, width: int) -> None:
    x, y = features(seed, 40, width), features(seed + 1, 50, width)
    a, b = Gaussian.of(x), Gaussian.of(y)
    np.testing.assert_allclose(a.covariance, (x - x.mean(0)).T @ (x - x.mean(0)) / 39)
    root = newton_root(a.covariance @ b.covariance)  # not symmetric, as in published programs
    traces = np.trace(a.covariance + b.covariance - 2 * root)
    direct = float(((x.mean(0) - y.mean(0)) ** 2).sum() + traces)
    assert frechet_distance(a, b) == pytest.approx(direct, rel=1e-6, abs=1e-6)


def test_frechet_distance_agrees_with_scipy() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = Gaussian.of(features(1, 60)), Gaussian.of(features(2, 70))
    root = linalg.sqrtm(a.covariance @ b.covariance).real
    direct = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(direct, rel=1e-8)


def test_frechet_distance_of_known_cases() -> None:
    x = features(3, 30)
    assert frechet_distance(Gaussian.of(x), Gaussian.of(x)) == pytest.approx(0, abs=1e-8)
    # Moved by 2 along each of 6 axes, nothing else.
    assert frechet_distance(Gaussian.of(x), Gaussian.of(x + 2)) == pytest.approx(24)
    one, four = Gaussian(np.zeros(3), np.eye(3)), Gaussian(np.zeros(3), 4 * np.eye(3))
    assert frechet_distance(one, four) == pytest.approx(3)  # (2 - 1)^2 an axis
    # Fewer pictures than numbers: covariances are singular, the distance is none the less right.
    few = Gaussian.of(features(4, 3))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_refuses_what_has_none() -> None:
    with pytest.raises(DataError, match="at least two"):
        Gaussian.of(features(0, 1))
    with pytest.raises(DataError, match="6 and 5 numbers"):
        frechet_distance(Gaussian.of(features(0, 9)), Gaussian.of(features(0, 9, 5)))


def direct_share(points: np.ndarray, centres: np.ndarray, k: int) -> float:
    """Share of points in the k-nearest-neighbour balls, one pair at a time."""
    inside = []
    for point in points:
        found = False
        for i, centre in enumerate(centres):
            gaps = [np.linalg.norm(centre - other) for j, other in enumerate(centres) if j != i]
            found |= bool(np.linalg.norm(point - centre) <= sorted(gaps)[k - 1])
        inside.append(found)
    return float(np.mean(inside))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 20), st.integers(5, 20))
def test_precision_and_recall_are_the_direct_ones(seed: int, n: int, m: int) -> None:
    real, made = features(seed, n, 3), features(seed, m, 3) + 0.5
    precision, recall = precision_recall(real, made)
    assert precision == direct_share(made, real, 3)
    assert recall == direct_share(real, made, 3)


def test_precision_and_recall_tell_quality_from_variety(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmgen.evaluation.standard._CHUNK", 7)  # several chunks
    generator = np.random.default_rng(0)
    real = generator.normal(size=(200, 2))
    collapsed = real[:1] + 1e-3 * generator.normal(size=(50, 2))
    precision, recall = precision_recall(real, collapsed)
    assert precision == 1 and recall < 0.05
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    with pytest.raises(DataError, match="more than 3"):
        precision_recall(real, real[:3])


def test_inception_score_is_the_direct_formula() -> None:
    logits = np.random.default_rng(1).normal(size=(20, 5)) * 3
    scores = []
    for part in (logits[:10], logits[10:]):
        p = np.exp(part) / np.exp(part).sum(1, keepdims=True)
        mean = p.mean(0)
        divergence = [sum(a * np.log(a / b) for a, b in zip(row, mean)) for row in p]
        scores.append(np.exp(np.mean(divergence)))
    mean, deviation = inception_score(logits, splits=2)
    assert mean == pytest.approx(np.mean(scores)) and deviation == pytest.approx(np.std(scores))


def test_inception_score_at_its_ends() -> None:
    sure = np.full((40, 4), -1e4)
    sure[np.arange(40), np.arange(40) % 4] = 1e4  # certain of each of four classes in turn
    assert inception_score(sure)[0] == pytest.approx(4)
    assert inception_score(np.zeros((40, 4)))[0] == pytest.approx(1)
    with pytest.raises(DataError, match="10 pictures"):
        inception_score(sure[:9])
