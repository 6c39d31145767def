"""Captions: the one form of text that models see, and the weighted templates of the emoji set.

A picture has several captions, each with a weight. Training draws one of them at each visit, so
that "a red apple" alone and "a red apple, noto style" are both understood.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from mmgen.words import normalize

GROUP_WORDS = {
    "animals-nature": "nature",
    "food-drink": "food",
    "travel-places": "travel",
    "activities": "fun",
    "objects": "object",
    "people-body": "people",
    "smileys-emotion": "smiley",
    "symbols": "symbol",
}

MOTION_WORDS = {
    "vanish": "changing a great deal",
    "pulse": "growing and shrinking",
    "updown": "moving up and down",
    "sway": "swaying from side to side",
    "wander": "moving about",
    "inside": "moving inside a still outline",
    "wiggle": "moving in place",
}

_ARTICLES = ("a ", "an ", "the ")


@dataclass(frozen=True)
class Caption:
    """One text for a picture and the weight (not normalised, > 0) with which it is drawn."""

    text: str
    weight: float = 1.0


def emoji_captions(
    phrase: str, style: str, group: str, keywords: tuple[str, ...]
) -> tuple[Caption, ...]:
    """Expand every template for one emoji; the weights add up to 1.

    Args:
        phrase: noun phrase with its article, such as "a red apple".
        style: style word, such as "noto".
        group: emoji group, a key of `GROUP_WORDS`.
        keywords: words that go with the concept; may be empty.

    Returns:
        Normalised captions, each text once, heaviest first.
    """
    weights: dict[str, float] = {}
    for template, weight in _templates(phrase, style, group, keywords):
        text = normalize(template)
        weights[text] = weights.get(text, 0.0) + weight
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    return tuple(Caption(text, round(weight, 6)) for text, weight in ordered)


def clip_captions(phrase: str, motion: str | None) -> tuple[Caption, ...]:
    """Captions of an animated emoji, each as likely as the others.

    Args:
        phrase: noun phrase with its article, such as "a red apple".
        motion: a key of `MOTION_WORDS`; None: not known.
    """
    moving = [f"{phrase} {MOTION_WORDS[motion]}"] if motion else []
    texts = [phrase, *moving, f"an animated emoji of {phrase}", f"{phrase}, 3d style, moving"]
    return tuple(Caption(normalize(text)) for text in texts)


def _templates(
    phrase: str, style: str, group: str, keywords: tuple[str, ...]
) -> Iterator[tuple[str, float]]:
    article = "an" if style[0] in "aeiou" else "a"
    bare = _without_article(phrase)
    yield phrase, 0.25
    yield f"{phrase}, {style} style", 0.25
    yield f"{article} {style} style emoji of {phrase}", 0.10
    yield f"{phrase} in {style} style", 0.10
    for kind in ("a drawing", "a picture", "an emoji"):
        yield f"{kind} of {phrase}", 0.10 / 3
    yield f"{phrase} on a white background", 0.025
    yield f"{phrase} on a white background, {style} style", 0.025
    yield bare, 0.025
    yield f"{bare}, {style} style", 0.025
    yield from _with_keywords(phrase, keywords)
    yield f"{phrase}, {GROUP_WORDS[group]}", 0.05


def _with_keywords(phrase: str, keywords: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """Share the keyword weight over the single keywords and the pairs of neighbours."""
    tails = [*keywords, *(f"{a}, {b}" for a, b in pairwise(keywords))]
    if not tails:
        yield phrase, 0.05
    for tail in tails:
        yield f"{phrase}, {tail}", 0.05 / len(tails)


def _without_article(phrase: str) -> str:
    for article in _ARTICLES:
        if phrase.startswith(article):
            return phrase[len(article) :]
    return phrase
