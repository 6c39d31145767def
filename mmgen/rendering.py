"""Codes to pictures and clips, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from mmgen.pipeline import Pipeline

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
