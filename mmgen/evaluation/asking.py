"""What a pipeline is asked to draw, chosen by rule, and what it draws."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mmgen.data.emoji import Item
from mmgen.evaluation.features import Features, Pictures
from mmgen.progress import Progress

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline

T = TypeVar("T")

PROMPT = "{phrase}, {style} style"
# Wordings that no caption of the training set has, and whether they name the style.
WORDINGS = {
    "twemoji": (("show me {phrase} as twemoji", True), ("please draw {phrase}", False)),
    "noto": (("{phrase}, a noto emoji", True), ("{phrase}, nothing else", False)),
    "blob": (("{phrase} looking like a blob emoji", True), ("i would like {phrase}", False)),
    "flat": (("{phrase}, flat colors", True), ("a small icon of {phrase}", False)),
    "3d": (("a glossy 3d render of {phrase}", True), ("can you paint {phrase}?", False)),
    "ink": (("{phrase}, black and white, ink", True), ("a sticker with {phrase}", False)),
}


@dataclass(frozen=True)
class Ask:
    """One picture to be drawn.

    Args:
        prompt: the text. `seed`: of the picture.
        item: the concept asked for, and the style (or, if the prompt names none, any).
        style: the style that the prompt names; None: no style.
    """

    prompt: str
    seed: int
    item: Item
    style: str | None


@dataclass(frozen=True)
class Drawn:
    """What came of asking.

    Args:
        asks: N of them. `pictures`: (N, H, W, 3) uint8. `features`: (N, 1280).
        seconds: it took to draw them.
    """

    asks: tuple[Ask, ...]
    pictures: Pictures
    features: Features
    seconds: float


def pick(items: Sequence[T], count: int, generator: np.random.Generator) -> list[T]:
    """Draw `count` items without replacement, or take all in a random order if there are fewer."""
    order = generator.permutation(len(items))[:count]
    return [items[i] for i in order.tolist()]


def plain_asks(items: Sequence[Item], seed: int) -> list[Ask]:
    """Ask for each item in the commonest wording; picture i has `seed + i`."""
    return [
        Ask(PROMPT.format(phrase=item.concept.phrase, style=item.style), seed + i, item, item.style)
        for i, item in enumerate(items)
    ]


def fresh_asks(items: Sequence[Item], seed: int) -> list[Ask]:
    """Ask for each item in a wording that training never showed, every second without a style."""
    asks, met = [], dict.fromkeys(WORDINGS, 0)
    for i, item in enumerate(items):
        wording, named = WORDINGS[item.style][met[item.style] % 2]
        met[item.style] += 1
        prompt = wording.format(phrase=item.concept.phrase)
        asks.append(Ask(prompt, seed + i, item, item.style if named else None))
    return asks


def draw(
    pipeline: Pipeline,
    asks: Sequence[Ask],
    *,
    unit: str | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> tuple[Pictures, float]:
    """Draw with the pipeline's own settings.

    Args:
        pipeline: what draws.
        asks: at least one.
        unit: of the pipeline; None: its default.
        batch: pictures drawn at a time.
        progress: called with pictures done and pictures in all.

    Returns:
        Pictures (N, H, W, 3) uint8, and the seconds it took.
    """
    started, pictures = time.perf_counter(), []
    for start in range(0, len(asks), batch):
        part = asks[start : start + batch]
        prompts, seeds = [ask.prompt for ask in part], [ask.seed for ask in part]
        output = pipeline(prompts, seed=seeds, unit=unit, num_frames=1)
        pictures += [np.asarray(image.convert("RGB")) for image in output.images]
        if progress is not None:
            progress(len(pictures), len(asks))
    return np.stack(pictures), time.perf_counter() - started
