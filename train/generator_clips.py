"""Clips in a generator's training: frames that are given, previews, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmgen.errors import ConfigError
from mmgen.models.schedule import Grid
from mmgen.models.units import Unit, plan_for

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.pipeline import Pipeline

SHOWN = 9  # frames of a clip in a preview
_GIVEN = 17  # what a key of random numbers is for


def refuse_still_tokenizer(vision: Any, place: str) -> None:
    """Refuse clips where the tokenizer knows stills alone.

    Raises:
        ConfigError: it has no time axis.
    """
    if not hasattr(vision.config, "time_stride"):
        raise ConfigError(
            f"clips need a tokenizer of clips, and {place} is one of stills; name another as "
            "`tokenizer`, or leave clips out."
        )


def given_part(unit: Unit, grid: Grid, seed: int, share: float) -> tuple[int, int]:
    """Where a step's clips begin and how many of their latent frames are given: (0, 0), or drawn.

    Half of those that are given frames begin later, with a frame that does not stand alone: so do
    the windows of a long clip (`mmgen/lengths.py`).

    Args:
        unit: whose blocks must end with the frames that are given.
        grid: of whole clips.
        seed: of the step.
        share: of the seeds that are given frames.
    """
    draw = np.random.default_rng((seed, _GIVEN))
    if draw.random() >= share:
        return 0, 0
    late = bool(draw.random() < 0.5)
    parts = _parts(unit, grid)
    parts = tuple(each for each in parts if (each[0] > 0) == late) or parts
    return parts[int(draw.integers(len(parts)))] if parts else (0, 0)


@lru_cache(maxsize=256)
def _parts(unit: Unit, grid: Grid) -> tuple[tuple[int, int], ...]:
    """All (start, frames) that the unit's order can go on from."""
    t, h, w = grid
    found = []
    for start in range(t - 1):
        for frames in range(1, t - start):
            try:
                plan_for(unit, (t - start, h, w), frames=frames)
            except ConfigError:
                continue
            found.append((start, frames))
    return tuple(found)


def clip_preview(pipe: Pipeline, prompts: Sequence[str]) -> Image.Image:
    """A clip of each prompt and unit as a strip of its frames, below one another."""
    from mmgen.sample.pictures import grid

    strips, labels = [], []
    clips = pipe.transformer.config.grid
    for unit in pipe.transformer.config.units:
        if not unit.draws(clips):
            continue
        frames = pipe(list(prompts), unit=unit.name, seed=0, num_frames=pipe.trained_frames).frames
        strips += [_strip(clip) for clip in frames]
        labels += [f"{prompt} ({unit.name})" for prompt in prompts]
    return grid(strips, columns=1, labels=labels)


def below(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """Two sheets as one."""
    from PIL import Image

    size = max(upper.width, lower.width), upper.height + lower.height
    sheet = Image.new("RGB", size, "white")
    sheet.paste(upper, (0, 0))
    sheet.paste(lower, (0, upper.height))
    return sheet


def _strip(clip: Sequence[Image.Image]) -> Image.Image:
    """Some frames of a clip side by side, the first and the last among them."""
    from PIL import Image

    places = torch.linspace(0, len(clip) - 1, min(SHOWN, len(clip))).round().long().tolist()
    width, height = clip[0].size
    strip = Image.new("RGB", (width * len(places), height))
    for i, place in enumerate(places):
        strip.paste(clip[place], (i * width, 0))
    return strip
