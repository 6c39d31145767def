"""What every visual tokenizer and every quantizer offers to the rest of the library.

A tokenizer turns pictures or clips into a grid of codes (t, h, w) and back. A quantizer is its
bottleneck: it turns encoder outputs into one of `codebook_size` codes. Quantizers work with
channels LAST, so one and the same module serves pictures, clips and 1-D token sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from mmgen.errors import UserError


@dataclass
class Codes:
    """What a tokenizer makes of pictures: indices, latents, or both.

    Args:
        indices: (B, t, h, w) long, or None for a continuous tokenizer.
        latents: (B, t, h, w, C) float, or None.
        deviations: (B, t, h, w, C) float, standard deviation of what each latent was a draw or the
            mean of, in the same scale; None where latents are no random variables.
    """

    indices: Tensor | None
    latents: Tensor | None = None
    deviations: Tensor | None = None

    @property
    def tokens(self) -> Tensor:
        """What a transformer draws: the indices, or the latents of a continuous tokenizer."""
        tokens = self.latents if self.indices is None else self.indices
        assert tokens is not None
        return tokens


@dataclass
class Quantized:
    """The outcome of one pass through a quantizer.

    Args:
        quantized: (..., C) float, the codes' embeddings, with the quantizer's gradient rule.
        indices: (...,) long; None for a continuous bottleneck.
        losses: scalars, already weighted, under "codebook", "commitment" and "entropy"; empty
            where the quantizer has none.
    """

    quantized: Tensor
    indices: Tensor | None
    losses: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class VisualTokenizer(Protocol):
    """Pictures or clips to codes and back; discrete (`codebook_size`) or continuous (None)."""

    @property
    def codebook_size(self) -> int | None:
        """Number of codes, None for a continuous tokenizer."""
        ...

    @property
    def channels(self) -> int:
        """Width of a code's embedding or of a latent."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of configuration and weights; token caches carry it."""
        ...

    def encode(self, pixels: Tensor) -> Codes:
        """Encode (B, 3, H, W) or (B, 3, T, H, W) float in [-1, 1]."""
        ...

    def decode(self, codes: Codes) -> Tensor:
        """Return pixels in the layout and range of what was encoded."""
        ...

    def embed(self, indices: Tensor) -> Tensor:
        """Return the embeddings (..., C) of codes (...,) long."""
        ...

    def grid_for(self, size: tuple[int, ...]) -> tuple[int, int, int]:
        """Return the grid (t, h, w) of a picture (H, W) or a clip (T, H, W)."""
        ...


@runtime_checkable
class Quantizer(Protocol):
    """A bottleneck, channels last. Law: `embed` of a code belongs to that code alone.

    The continuous one (KL) has `codebook_size` None and refuses `assign` and `embed`.

    Every implementation is a `torch.nn.Module`; the members below are what callers need.
    """

    channels: int
    training: bool

    @property
    def codebook_size(self) -> int | None:
        """Number of codes, None for a continuous bottleneck."""
        ...

    def __call__(self, z: Tensor) -> Quantized:
        """Quantize (..., C) float; the same as `forward`."""
        ...

    def assign(self, z: Tensor) -> Tensor:
        """Return only the indices (...,) long of (..., C) float: no losses, no gradient."""
        ...

    def embed(self, indices: Tensor) -> Tensor:
        """Return the embeddings (..., C) of codes (...,) long."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Yield what is trained by gradient (nothing for FSQ and LFQ)."""
        ...


def number_of_codes(tokenizer: VisualTokenizer) -> int:
    """Return the codebook size of a discrete tokenizer.

    Raises:
        UserError: the tokenizer is continuous.
    """
    if tokenizer.codebook_size is None:
        raise UserError("This tokenizer has latents and no codes; choose a discrete tokenizer.")
    return tokenizer.codebook_size
