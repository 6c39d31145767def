"""What features say of pictures: concept score, KID, copying, style. Arrays in, numbers out.

Features come from `mmgen.evaluation.features`; D is 1280 there, but any width works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mmgen.errors import DataError

Array = NDArray[np.floating[Any]]

RIDGE = 10.0
DRAWS, DRAW_SIZE = 50, 200  # of KID

_CHUNK = 512  # queries at a time, to bound memory


@dataclass(frozen=True)
class TopScores:
    """Share of pictures whose concept is ranked first, and among the first five."""

    top1: float
    top5: float
    count: int


@dataclass(frozen=True)
class Spread:
    """5 % quantile, median and 95 % quantile."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class ConceptGallery:
    """Real pictures as prototypes of concepts, one set of them for each style asked for.

    Args:
        styles: S names. `concepts`: C names.
        means: (S, D) mean feature of each style.
        vectors: (S, C, D) float32 of unit length: for queries of style s, each concept's mean
            over the other styles, so that a picture never meets itself; 0 if there is no other.
    """

    styles: tuple[str, ...]
    concepts: tuple[str, ...]
    means: Array
    vectors: Array

    @classmethod
    def build(cls, features: Array, concepts: Sequence[str], styles: Sequence[str]) -> Self:
        """Make the gallery of real pictures.

        Args:
            features: (N, D), one picture for each pair of concept and style at most.
            concepts: N names. `styles`: N names.

        Raises:
            DataError: a pair of concept and style occurs twice, or there are no pictures.
        """
        if not len(features) == len(concepts) == len(styles) or not len(features):
            raise DataError("A gallery needs pictures, each with a concept and a style.")
        if len(set(zip(concepts, styles))) < len(features):
            raise DataError("A gallery takes one picture of each concept in each style.")
        names, kinds = tuple(sorted(set(concepts))), tuple(sorted(set(styles)))
        row = np.array([kinds.index(style) for style in styles])
        place = {name: i for i, name in enumerate(names)}
        column = np.array([place[concept] for concept in concepts])
        wide = np.asarray(features, np.float64)
        means = np.stack([wide[row == s].mean(0) for s in range(len(kinds))])
        units = np.zeros((len(kinds), len(names), wide.shape[1]))
        units[row, column] = normalized(wide - means[row])
        # The normalised mean of the other styles is the normalised sum: missing ones are 0.
        others = normalized(units.sum(0) - units)
        return cls(kinds, names, means, others.astype(np.float32))

    def cosines(self, features: Array, style: str) -> Array:
        """Cosine (N, C) of pictures asked for in `style` to every concept."""
        s = self._style(style)
        table: Array = normalized(np.asarray(features) - self.means[s]) @ self.vectors[s].T
        return table

    def ranks(
        self, features: Array, concepts: Sequence[str], styles: Sequence[str | None]
    ) -> NDArray[np.int64]:
        """Rank of the right concept for each picture, 0 the best; ties count against it.

        Args:
            features: (N, D).
            concepts: N names that were asked for.
            styles: N styles that were asked for; None: the best rank over all styles.

        Raises:
            DataError: a concept or a style is not in the gallery.
        """
        return self.judge(features, concepts, styles)[0]

    def judge(
        self, features: Array, concepts: Sequence[str], styles: Sequence[str | None]
    ) -> tuple[NDArray[np.int64], Array]:
        """Return `ranks` (N,) and the cosine (N,) to the right concept (of the best rank)."""
        right = self._columns(concepts)
        ranks = np.full(len(right), len(self.concepts))
        cosines = np.full(len(right), -1.0)
        for style in self.styles:
            asked = np.array([i for i, s in enumerate(styles) if s in (style, None)], int)
            for part in (asked[i : i + _CHUNK] for i in range(0, len(asked), _CHUNK)):
                table = self.cosines(features[part], style)
                own = table[np.arange(len(part)), right[part]]
                rank = (~(table < own[:, None])).sum(1) - 1  # what is no number is the last
                better = (rank < ranks[part]) | ((rank == ranks[part]) & (own > cosines[part]))
                ranks[part[better]], cosines[part[better]] = rank[better], own[better]
        for unknown in {style for style in styles if style is not None} - set(self.styles):
            self._style(unknown)
        return ranks, cosines

    def _columns(self, concepts: Sequence[str]) -> NDArray[np.int64]:
        place = {name: i for i, name in enumerate(self.concepts)}
        missing = sorted(set(concepts) - set(place))
        if missing:
            raise DataError(f"The real pictures show no concept '{missing[0]}'.")
        return np.array([place[concept] for concept in concepts], np.int64)

    def _style(self, style: str) -> int:
        if style not in self.styles:
            raise DataError(
                f"The real pictures have no style '{style}', only {', '.join(self.styles)}."
            )
        return self.styles.index(style)


def top_scores(ranks: NDArray[np.int64]) -> TopScores:
    """Scores of ranks (N,); NaN if there are none."""
    if not len(ranks):
        return TopScores(float("nan"), float("nan"), 0)
    return TopScores(float((ranks < 1).mean()), float((ranks < 5).mean()), len(ranks))


def kid(x: Array, y: Array, *, draws: int = DRAWS, size: int = DRAW_SIZE, seed: int = 0) -> float:
    """Kernel distance (arXiv 1801.01401) of two sets of pictures: mean `mmd2` of random parts.

    Args:
        x: (N, D) raw features, `y`: (M, D).
        draws: number of draws.
        size: pictures drawn from either side without replacement; fewer if a side has fewer.
        seed: of the draws.

    Raises:
        DataError: a side has fewer than two pictures.
    """
    size = min(size, len(x), len(y))
    if size < 2:
        raise DataError("KID needs at least two pictures on either side.")
    generator = np.random.default_rng(seed)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    values = [
        mmd2(
            x[generator.choice(len(x), size, replace=False)],
            y[generator.choice(len(y), size, replace=False)],
        )
        for _ in range(draws)
    ]
    return float(np.mean(values))


def mmd2(x: Array, y: Array) -> float:
    """Unbiased squared MMD of (N, D) and (M, D) with the kernel `(x.y / D + 1)^3`."""

    def kernel(a: Array, b: Array) -> Array:
        values: Array = (a @ b.T / a.shape[1] + 1) ** 3
        return values

    n, m = len(x), len(y)
    within_x, within_y = kernel(x, x), kernel(y, y)
    own = (within_x.sum() - np.trace(within_x)) / (n * (n - 1))
    other = (within_y.sum() - np.trace(within_y)) / (m * (m - 1))
    return float(own + other - 2 * kernel(x, y).mean())


def nearest(
    queries: Array, gallery: Array, skip: Sequence[int | None] | None = None
) -> tuple[Array, NDArray[np.int64]]:
    """Cosine (N,) of raw features to the nearest of a gallery, and its index (N,).

    Args:
        queries: (N, D). `gallery`: (M, D), such as the training pictures.
        skip: index of a gallery entry that each query may not choose: itself, say.

    Raises:
        DataError: the gallery is empty.
    """
    if not len(gallery):
        raise DataError("There are no pictures to compare with.")
    targets = normalized(np.asarray(gallery))
    cosines, places = np.zeros(len(queries)), np.zeros(len(queries), np.int64)
    for start in range(0, len(queries), _CHUNK):
        part = slice(start, start + _CHUNK)
        table = normalized(np.asarray(queries[part])) @ targets.T
        for i, own in enumerate(skip[part] if skip is not None else []):
            if own is not None:
                table[i, own] = -np.inf
        places[part] = table.argmax(1)
        cosines[part] = table.max(1)
    return cosines, places


def spread(values: Array) -> Spread:
    """5 %, 50 % and 95 % quantiles of (N,) numbers."""
    low, median, high = np.quantile(values, (0.05, 0.5, 0.95))
    return Spread(float(low), float(median), float(high))


@dataclass(frozen=True)
class StyleReader:
    """Ridge regression from features to styles.

    Args:
        styles: S names. `weights`: (D, S). `bias`: (S,).
    """

    styles: tuple[str, ...]
    weights: Array
    bias: Array

    @classmethod
    def fit(cls, features: Array, styles: Sequence[str], strength: float = RIDGE) -> Self:
        """Learn from pictures (N, D) with their styles; the intercept is not punished."""
        kinds = tuple(sorted(set(styles)))
        targets = np.array([[style == kind for kind in kinds] for style in styles], np.float64)
        x = np.asarray(features, np.float64)
        centre, level = x.mean(0), targets.mean(0)
        x, targets = x - centre, targets - level
        gram = x.T @ x + strength * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x.T @ targets)
        return cls(kinds, weights, level - centre @ weights)

    def read(self, features: Array) -> list[str]:
        """The likeliest style of each picture (N, D)."""
        places = (np.asarray(features, np.float64) @ self.weights + self.bias).argmax(1)
        return [self.styles[place] for place in places]


def normalized(vectors: Array) -> Array:
    """Scale vectors (..., D) to length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Array = vectors / np.where(lengths > 0, lengths, 1.0)
    return scaled
