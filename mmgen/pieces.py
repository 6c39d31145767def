"""Whether the pieces of a pipeline were made for each other: what they must agree on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

PIXELS = "pixels a side"


@dataclass(frozen=True)
class Fact:
    """What a piece and the transformer must agree on.

    Args:
        piece: "vision" or "text".
        what: is counted.
        have: how many there are.
        needed: how many the transformer was trained on.
    """

    piece: str
    what: str
    have: int
    needed: int

    def __str__(self) -> str:
        """How they differ."""
        return f"{self.have} {self.what}, but the transformer was trained on {self.needed}"


def text_facts(text: Any, transformer: Any) -> list[Fact]:
    """What a text component and a transformer must agree on."""
    from mmgen.models.conditions import FeatureConfig
    from mmgen.models.unified import UnifiedConfig

    config = transformer.config
    if isinstance(config, UnifiedConfig):
        return [Fact("text", "ids of text", text.vocab_size, config.text_vocab)]
    condition = getattr(config, "condition", None)
    if text is not None and isinstance(condition, FeatureConfig):
        return [Fact("text", "channels of text features", text.channels, condition.channels)]
    return []


def facts(vision: Any, transformer: Any, image_size: int) -> list[Fact]:
    """What a visual tokenizer and a transformer must agree on.

    Args:
        vision: the tokenizer.
        transformer: what draws its codes or latents.
        image_size: pixels a side that they draw together.
    """
    config = transformer.config
    if config.units[0].continuous:
        found = [
            Fact("vision", "codes (0: latents)", vision.codebook_size or 0, 0),
            Fact("vision", "channels of a latent", vision.channels, config.channels),
        ]
    else:
        codes = vision.codebook_size or 0
        what = "codes" if codes else "codes (0: latents)"
        found = [Fact("vision", what, codes, config.codebook_size)]
    stride, (_, *sides) = stride_of(vision), config.grid
    if stride and not is_clip(transformer):  # a clip's tokens need not be places
        found += [Fact("vision", PIXELS, image_size, side * stride) for side in sides]
    elif isinstance(tokens := getattr(vision.config, "tokens", None), int):
        found.append(Fact("vision", "tokens of a clip", tokens, math.prod(config.grid)))
    return found


def stride_of(vision: Any) -> int | None:
    """Pixels a side of a token; None where tokens are no places."""
    stride = getattr(vision.config, "stride", None)
    return stride if isinstance(stride, int) else None


def is_clip(transformer: Any) -> bool:
    """Whether a transformer draws more than one frame of codes."""
    return bool(transformer.config.grid[0] > 1)
