"""Clips whose frames are shown as soon as they are finished."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from mmgen.pipeline import Pipeline
    from mmgen.sample.engine import Step

Clips = list[list["Image.Image"]]


def unfold(pipe: Pipeline, steps: Iterator[Step]) -> Iterator[Clips]:
    """The new frames of each clip, whenever some are finished; all together are the whole clips.

    Args:
        pipe: what draws.
        steps: of its `stream`.
    """
    finished = FinishedFrames(pipe)
    for step in steps:
        if new := finished.of(step):
            yield new


class FinishedFrames:
    """The frames of clips that are being drawn, as soon as nothing can change them.

    A causal tokenizer paints them from the codes so far, each once, and keeps no more than it looks
    back at; with other tokenizers the whole clips come at the end.

    Args:
        pipe: what draws.
    """

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe
        self._fed: deque[Tensor] = deque()
        self._shown = 0  # latent frames
        decode = getattr(pipe.vision, "decode_stream", None)
        self._stream: Iterator[Tensor] | None = decode and decode(iter(self._fed.popleft, None))

    def of(self, step: Step) -> Clips:
        """The frames that a step finished, a list for each clip; empty if there are none."""
        import torch

        from mmgen.sample.pictures import to_pil

        if step.frames <= self._shown or (self._stream is None and not step.done.all()):
            return []
        shown, self._shown = self._shown, step.frames
        if self._stream is None:
            return self._pipe.render_clips(step.codes)
        self._fed.append(step.codes[:, shown : step.frames])
        with torch.inference_mode():
            pixels = next(self._stream)  # (B, 3, T, H, W)
        return [to_pil(clip.transpose(0, 1)) for clip in pixels]
