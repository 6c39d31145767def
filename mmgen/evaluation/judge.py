"""The yardstick applied to a set of pictures, generated and real ones alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmgen.data.emoji import Item
from mmgen.evaluation.asking import Drawn
from mmgen.evaluation.features import Features
from mmgen.evaluation.real import RealSet
from mmgen.evaluation.yardstick import (
    DRAW_SIZE,
    Array,
    ConceptGallery,
    Spread,
    StyleReader,
    TopScores,
    kid,
    nearest,
    spread,
    top_scores,
)


@dataclass(frozen=True)
class SetFigures:
    """Figures of one set of pictures.

    Args:
        concept: whether the concept asked for is recognised, over all concepts.
        by_style: the same for each style asked for ("any": the prompt names none).
        style: share whose style, read from the features, is the one asked for; None: none named.
        kid: against training pictures of the styles asked for; None: too few pictures.
        kid_size: pictures in each draw of it.
        copying: cosine to the nearest training picture.
        same_concept: share whose nearest training picture shows the concept asked for.
    """

    concept: TopScores
    by_style: dict[str, TopScores]
    style: float | None
    kid: float | None
    kid_size: int
    copying: Spread
    same_concept: float


class Judge:
    """Compares pictures with the real ones.

    KID and style are judged by training pictures that the set does not ask for, so that real
    pictures of the same items can be judged in the same way.

    Args:
        real: the whole set.
        seed: of the draws of KID.
    """

    def __init__(self, real: RealSet, seed: int = 0) -> None:
        self.real, self.seed = real, seed
        concepts = [item.concept.key for item in real.items]
        self.gallery = ConceptGallery.build(
            real.features, concepts, [item.style for item in real.items]
        )
        self.train = real.places("train")
        self.train_features = real.features[self.train]
        self._place = {item.id: i for i, item in enumerate(real.items)}
        self._train_place = {real.items[i].id: n for n, i in enumerate(self.train)}

    def generated(self, drawn: Drawn) -> SetFigures:
        """Figures of generated pictures."""
        items, styles = [ask.item for ask in drawn.asks], [ask.style for ask in drawn.asks]
        return self._figures(drawn.features, items, styles)

    def real_of(self, drawn: Drawn) -> SetFigures:
        """Figures of the real pictures of the same items.

        No real picture meets itself: copying leaves it out, and its concept is always scored by
        its own style, since the galleries of the other styles hold it.
        """
        items, styles = [ask.item for ask in drawn.asks], [ask.style for ask in drawn.asks]
        features = self.real.features[[self._place[item.id] for item in items]]
        skip = [self._train_place.get(item.id) for item in items]
        own = [item.style for item in items]
        return self._figures(features, items, styles, own, skip)

    def ranks(self, drawn: Drawn) -> tuple[NDArray[np.int64], Array]:
        """Rank of the concept asked for (0 the best), and the cosine to it, of each picture."""
        concepts = [ask.item.concept.key for ask in drawn.asks]
        return self.gallery.judge(drawn.features, concepts, [ask.style for ask in drawn.asks])

    def nearest(self, features: Features) -> tuple[Array, list[int]]:
        """Cosine to the nearest training picture, and its index among the real pictures."""
        cosines, places = nearest(features, self.train_features)
        return cosines, [self.train[place] for place in places.tolist()]

    def _figures(
        self,
        features: Features,
        items: Sequence[Item],
        styles: Sequence[str | None],
        scored: Sequence[str | None] | None = None,
        skip: list[int | None] | None = None,
    ) -> SetFigures:
        concepts = [item.concept.key for item in items]
        ranks = self.gallery.ranks(features, concepts, scored or styles)
        words = np.array([style or "any" for style in styles])
        cosines, places = nearest(features, self.train_features, skip)
        shown = [self.real.items[self.train[place]].concept.key for place in places.tolist()]
        asked = {item.id for item in items}
        others = [i for i in self.train if self.real.items[i].id not in asked]
        distance, size = self._kid(features, {item.style for item in items}, others)
        return SetFigures(
            concept=top_scores(ranks),
            by_style={word: top_scores(ranks[words == word]) for word in sorted(set(words))},
            style=self._style(features, styles, others),
            kid=distance,
            kid_size=size,
            copying=spread(cosines),
            same_concept=float(np.mean([a == b.concept.key for a, b in zip(shown, items)])),
        )

    def _kid(
        self, features: Features, styles: set[str], others: list[int]
    ) -> tuple[float | None, int]:
        reference = [i for i in others if self.real.items[i].style in styles]
        size = min(DRAW_SIZE, len(features), len(reference))
        if size < 2:
            return None, size
        return kid(features, self.real.features[reference], seed=self.seed), size

    def _style(
        self, features: Features, styles: Sequence[str | None], others: list[int]
    ) -> float | None:
        named = [i for i, style in enumerate(styles) if style is not None]
        if not named or not others:
            return None
        reader = StyleReader.fit(
            self.real.features[others], [self.real.items[i].style for i in others]
        )
        read = reader.read(features[named])
        return float(np.mean([read[n] == styles[i] for n, i in enumerate(named)]))
