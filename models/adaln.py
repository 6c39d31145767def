"""What a condition tells every row of a sequence through adaLN: gates, scales and shifts.

Blocks take theirs in `models/backbone.py`; here is the norm behind the last block, and the two
together as rows carry them. They are computed once for a picture, not once a step. IBQ's generators
(arXiv 2412.02692) and DiT (arXiv 2212.09748) are conditioned so. Spec: ett.md A4.

Shapes: B batch, R rows, W width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.models.backbone import Backbone, BackboneConfig, Modulation, make_norm


class Told(NamedTuple):
    """What all rows of each sequence are told.

    Args:
        blocks: to the blocks of a backbone.
        last: (B, 1, 2, W), scale and shift of the norm behind them.
    """

    blocks: Modulation
    last: Tensor


class AdaptiveNorm(nn.Module):
    """The norm behind the last block; a condition scales and shifts what comes out of it."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.norm = make_norm(config)
        self.modulation = nn.Linear(config.width, 2 * config.width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def tell(self, condition: Tensor) -> Tensor:
        """(B, W) to scale and shift (B, 1, 2, W)."""
        two: Tensor = self.modulation(F.silu(condition))
        return two.view(len(two), 1, 2, -1)

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        """(B, R, W) to (B, R, W); `last` as in `Told`."""
        scale, shift = last.unbind(2)
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


def tell(condition: Tensor, backbone: Backbone, last: AdaptiveNorm) -> Told:
    """What conditions (B, W) tell the rows of their sequences."""
    row = torch.arange(len(condition), device=condition.device)[:, None]
    return Told(Modulation(backbone.modulations(condition), row), last.tell(condition))
