"""Codes to pictures and clips, a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from mmgen.pipeline import Pipeline
    from mmgen.sample.engine import Step

DECODED_PIXELS = 2**18  # of pictures that the visual tokenizer decodes together


def pictures(pipe: Pipeline, codes: Tensor) -> list[Image.Image]:
    """Decode codes (B, t, h, w), or latents (B, t, h, w, C), to pictures."""
    from mmgen.sample.pictures import to_pil

    return [image for pixels in _decoded(pipe, codes) for image in to_pil(_stills(pixels))]


def clips(pipe: Pipeline, codes: Tensor) -> list[list[Image.Image]]:
    """Decode codes (B, t, h, w) to clips, a list of frames each."""
    from mmgen.sample.pictures import to_pil

    each = (clip for pixels in _decoded(pipe, codes) for clip in pixels)  # (3, T, H, W)
    return [to_pil(clip.transpose(0, 1)) for clip in each]


def as_finished(pipe: Pipeline, steps: Iterator[Step]) -> Iterator[list[list[Image.Image]]]:
    """The new frames of each clip, whenever some are finished; all together are the whole clips."""
    finished = FinishedFrames(pipe)
    return (frames for step in steps if (frames := finished.of(step)))


class FinishedFrames:
    """The frames of clips that are being drawn, as soon as nothing can change them.

    A tokenizer that never looks ahead decodes a latent frame when its codes are decided, each of
    them once; of others the frames come at the end.
    """

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe
        self._fed: deque[Tensor] = deque()
        self._latents = 0  # that were decoded
        decode = getattr(pipe.vision, "decode_stream", None)
        self._stream: Iterator[Tensor] | None = decode and decode(iter(self._fed.popleft, None))

    def of(self, step: Step) -> list[list[Image.Image]]:
        """The frames that a step finished, a list for each clip; empty if there are none."""
        import torch

        from mmgen.sample.pictures import to_pil

        if step.frames <= self._latents or (self._stream is None and not step.done.all()):
            return []
        start, self._latents = self._latents, step.frames
        if self._stream is None:
            return clips(self._pipe, step.codes)
        self._fed.append(step.codes[:, start : self._latents])
        with torch.inference_mode():
            pixels = next(self._stream)  # (B, 3, T, H, W)
        return [to_pil(clip.transpose(0, 1)) for clip in pixels]


def _stills(pixels: Tensor) -> Tensor:
    """A tokenizer of clips gives a picture as a clip of one frame."""
    return pixels[:, :, 0] if pixels.ndim == 5 else pixels


def _decoded(pipe: Pipeline, codes: Tensor) -> Iterator[Tensor]:
    """Pixels of a few pictures or clips at a time."""
    import torch

    from mmgen import request
    from mmgen.lengths import frames_of
    from mmgen.tokenizers_vis.protocol import Codes

    frames = frames_of(pipe.vision, codes.shape[1])
    together = min(request.BATCH, DECODED_PIXELS // (pipe.info.image_size**2 * frames))
    with torch.inference_mode():
        for part in torch.split(codes, max(1, together)):
            latent = part.is_floating_point()
            yield pipe.vision.decode(Codes(None, part) if latent else Codes(part))
