"""What follows from a data set for a recipe: steps and batch, prompts, the length of a text."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmgen.data.pictures import BadSample
from mmgen.data.sources import Source
from mmgen.train.recipe import TrainConfig

PROMPTS = 4
READ_CAPTIONS = 1000  # captions that are looked at to see how long they are


def schedule_for(
    source: Source,
    out: str,
    most_in_batch: int,
    passes: int,
    steps: tuple[int, int],
    learning_rate: float,
) -> TrainConfig:
    """Steps for so many passes over the data, within limits: minutes for 40 pictures on a CPU.

    The batch is a power of two and at most half of the pictures, so that bad ones may go.
    """
    batch = min(most_in_batch, 1 << max(0, (len(source) // 2).bit_length() - 1))
    count = min(steps[1], max(steps[0], round(passes * len(source) / batch)))
    values: dict[str, Any] = {
        "steps": count,
        "out": out,
        "batch_size": batch,
        "learning_rate": learning_rate,
        "min_learning_rate": round(learning_rate / 40, 8),
        "warmup_steps": min(100, count // 10),
        "ema_decay": round(1 - 10 / count, 4),
        "log_every": max(1, count // 50),
        "eval_every": count // 5,
        "preview_every": count // 5,
        "save_every": count // 10,
    }
    return TrainConfig(**values)


def prompts_of(source: Source) -> tuple[str, ...]:
    """Some captions of usable pictures, each once, always the same ones."""
    # Not evenly spaced: sorted names repeat, and all would be circles.
    order = np.random.default_rng(0).permutation(len(source))[: 8 * PROMPTS]
    found: list[str] = []
    for index in order.tolist():
        try:
            captions = source.read(index).captions
        except BadSample:
            continue
        heaviest = max(captions, key=lambda caption: caption.weight)
        text = " ".join(heaviest.text[:400].split())[:100].strip()
        if text and text not in found:
            found.append(text)
        if len(found) == PROMPTS:
            break
    return tuple(found)


def text_length(source: Source) -> int:
    """Ids of text that hold nearly every caption: about three bytes are one."""
    lengths = []
    for index in _spread(len(source), READ_CAPTIONS):
        try:
            lengths += [len(caption.text.encode()) for caption in source.captions(index)]
        except BadSample:
            continue
    usual = sorted(lengths)[len(lengths) * 95 // 100] if lengths else 0
    return min(64, max(16, -(-(usual // 3 + 2) // 8) * 8))


def _spread(count: int, most: int) -> list[int]:
    """At most `most` evenly spaced numbers below `count`."""
    return sorted({i * count // most for i in range(most)}) if count > most else list(range(count))
