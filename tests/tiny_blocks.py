"""Tiny block-wise transformers: words before a hybrid start, or frames to go on from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmgen.models.backbone import BackboneConfig
from mmgen.models.conditional import ANY, ConditionalConfig, ConditionalModel, Tap
from mmgen.models.units import Unit
from mmgen.models.words import NothingConfig, WordConfig

GRID = (2, 2, 2)
CODES = 125
BLOCK = 2
BACKBONE = BackboneConfig(
    width=16, depth=2, heads=2, mlp="gelu", norm="layer", bias=True, qk_norm=False
)


def _model(condition: Any, start: Any, longest: int) -> ConditionalModel:
    torch.manual_seed(0)
    config = ConditionalConfig(
        backbone=BACKBONE,
        condition=condition,
        codebook_size=CODES,
        grid=GRID,
        units=(Unit("block", f"run:{BLOCK}", "shift", start=start),),
        taps=(Tap(ANY, 2),),
        positions="order",
        longest=longest,
    )
    return ConditionalModel(config).eval()


def hybrid(longest: int = 20, **condition: Any) -> ConditionalModel:
    """Three words of nine, then blocks of two."""
    sizes: dict[str, Any] = {"words": 9, "count": 3, "starts": 3, **condition}
    return _model(WordConfig(**sizes), "hybrid", longest)


def plain(longest: int = 20) -> ConditionalModel:
    """No condition; the first block is always given."""
    return _model(NothingConfig(), "given", longest)


def codes_of() -> Tensor:
    """(2, 8)."""
    return torch.randint(CODES, (2, 8), generator=torch.Generator().manual_seed(1))
