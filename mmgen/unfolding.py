"""Clips whose frames are shown as soon as they are finished."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmgen.sample.engine import Step
from mmgen.sample.pictures import to_pil

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.pipeline import Pipeline


@torch.inference_mode()
def unfold(pipe: Pipeline, steps: Iterator[Step]) -> Iterator[list[list[Image.Image]]]:
    """The new frames of each clip, whenever some are finished; all together are the whole clips.

    A causal tokenizer paints them from the codes so far and keeps no more than it looks back at;
    with other tokenizers the whole clips come at the end.

    Args:
        pipe: what draws.
        steps: of its `stream`.
    """
    if not hasattr(pipe.vision, "decode_stream"):
        from mmgen.sample.engine import last_step

        yield pipe.render_clips(last_step(steps).codes)
        return
    for pixels in pipe.vision.decode_stream(_finished(steps)):  # (B, 3, T, H, W)
        yield [to_pil(clip.transpose(0, 1)) for clip in pixels]


def _finished(steps: Iterator[Step]) -> Iterator[Tensor]:
    """Codes (B, t, h, w) of latent frames that became whole, in order."""
    shown = 0
    for step in steps:
        if step.frames > shown:
            yield step.codes[:, shown : step.frames]
            shown = step.frames
