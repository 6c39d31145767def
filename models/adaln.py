"""What a condition tells the rows of a sequence through adaLN: gates, scales and shifts.

Blocks take theirs in `models/backbone.py`; here is the norm behind the last block, and the two
together as rows carry them. They are computed once for a picture, not once a step. IBQ's generators
(arXiv 2412.02692) and DiT (arXiv 2212.09748) are conditioned so. Spec: ett.md A4. Rows of one
sequence may be told different things: text nothing of time, latents how noisy they are (xAR).

Shapes: B batch, R rows, W width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.models.backbone import Backbone, BackboneConfig, Modulation, make_norm


class Told(NamedTuple):
    """What rows are told.

    Args:
        blocks: to the blocks of a backbone.
        last: (B, 1, 2, W), scale and shift of the norm behind them; None where it takes none.
    """

    blocks: Modulation
    last: Tensor | None = None


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


def join(parts: list[tuple[Told, int]], batch: int) -> Told:
    """What rows are told that are laid end to end.

    Args:
        parts: what each part is told, and its number of rows.
        batch: B.
    """
    first = parts[0][0]
    if all(told is first for told, _ in parts):
        return first
    tables: list[tuple[Tensor, ...]] = []
    rows, total = [], 0
    starts: dict[int, int] = {}  # of the conditions of a table that parts may share
    for told, count in parts:
        blocks, row = told.blocks
        if id(blocks) not in starts:
            starts[id(blocks)] = total
            tables.append(blocks)
            total += len(blocks[0])
        rows.append((row + starts[id(blocks)]).expand(batch, count))
    joined = tuple(torch.cat(same) for same in zip(*tables))
    return Told(Modulation(joined, torch.cat(rows, dim=1)))


def tell(condition: Tensor, backbone: Backbone, last: AdaptiveNorm) -> Told:
    """What conditions (B, W) tell the rows of their sequences."""
    row = torch.arange(len(condition), device=condition.device)[:, None]
    return Told(Modulation(backbone.modulations(condition), row), last.tell(condition))
