"""Metrics that others use: Frechet distance, precision and recall, Inception Score.

Arrays in, numbers out, whatever network the features are of. FID is the Frechet distance of
Inception's pooled features, sFID that of a spatial map, rFID that of reconstructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmgen.errors import DataError

Array = NDArray[np.floating[Any]]

NEIGHBOURS = 3  # k of precision and recall
SPLITS = 10  # parts that the Inception Score is the mean of
_CHUNK = 1024  # rows of a table of distances at a time, to bound memory


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and covariance (D, D) of features."""

    mean: Array
    covariance: Array

    @classmethod
    def of(cls, features: Array) -> Self:
        """Fit (N, D) features; the covariance divides by N - 1.

        Raises:
            DataError: there are fewer than two.
        """
        if len(features) < 2:
            raise DataError("A Frechet distance needs at least two pictures on either side.")
        wide = np.asarray(features, np.float64)
        return cls(wide.mean(0), np.atleast_2d(np.cov(wide, rowvar=False)))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance (arXiv 1706.08500) of two normal distributions.

    Raises:
        DataError: they have different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise DataError(
            f"The features have {len(a.mean)} and {len(b.mean)} numbers; a Frechet distance "
            "needs two sets that the same network looked at."
        )
    # tr sqrt(A B) is the sum of the singular values of sqrt(A) sqrt(B): no complex numbers, and
    # singular covariances need no eps.
    product = _root(a.covariance) @ _root(b.covariance)
    shared = np.linalg.svd(product, compute_uv=False).sum()
    apart = np.square(a.mean - b.mean).sum()
    return float(apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared)


def precision_recall(real: Array, made: Array, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Improved precision and recall (arXiv 1904.06991).

    A set is a union of balls around its pictures, each as large as the distance to the k-th nearest
    other picture of that set.

    Args:
        real: (N, D) features. `made`: (M, D).
        k: which neighbour.

    Returns:
        Share of made pictures in the real set's balls, and of real ones in the made set's.

    Raises:
        DataError: a side has k pictures or fewer.
    """
    if min(len(real), len(made)) <= k:
        raise DataError(f"Precision and recall need more than {k} pictures on either side.")
    real, made = np.asarray(real, np.float64), np.asarray(made, np.float64)
    return _covered(made, real, _radii(real, k)), _covered(real, made, _radii(made, k))


def inception_score(logits: Array, splits: int = SPLITS) -> tuple[float, float]:
    """Inception Score (arXiv 1606.03498): its mean and standard deviation over parts.

    Args:
        logits: (N, classes).
        splits: consecutive parts of equal size, as far as N divides.

    Raises:
        DataError: there are fewer pictures than parts.
    """
    if len(logits) < splits:
        raise DataError(f"The Inception Score needs {splits} pictures or more.")
    scores = [_score(part) for part in np.array_split(np.asarray(logits, np.float64), splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: Array) -> float:
    log_p = logits - logits.max(1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    p = np.exp(log_p)
    with np.errstate(divide="ignore"):
        log_mean = np.log(p.mean(0))  # a class that never occurs has p = 0 everywhere
    terms = np.where(p > 0, p * (log_p - np.where(np.isfinite(log_mean), log_mean, 0)), 0)
    return float(np.exp(terms.sum(1).mean()))


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    root: Array = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root


def _radii(points: Array, k: int) -> Array:
    """(N,) squared distance of each point to its k-th nearest other one."""
    parts = []
    for start in range(0, len(points), _CHUNK):
        table = _distances(points[start : start + _CHUNK], points)
        rows = np.arange(len(table))
        table[rows, start + rows] = np.inf  # itself, whatever rounding makes of that distance
        parts.append(np.partition(table, k - 1, axis=1)[:, k - 1])
    return np.concatenate(parts)


def _covered(points: Array, centres: Array, radii: Array) -> float:
    """Share of points in any of the balls."""
    inside = [
        (_distances(points[start : start + _CHUNK], centres) <= radii).any(1)
        for start in range(0, len(points), _CHUNK)
    ]
    return float(np.concatenate(inside).mean())


def _distances(a: Array, b: Array) -> Array:
    """(N, M) squared distances."""
    table: Array = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    return np.clip(table, 0, None)
