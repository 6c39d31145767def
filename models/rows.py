"""Rows: what the network is fed, whatever it stands for, and the mask that follows from them.

A sequence of texts and pictures is a list of `Rows` laid end to end. Block numbers grow along it;
together with the lane they say who sees whom (`models/plan.py`), and `valid` hides padding.
Training lays out a whole sequence at once; decoding feeds the same rows piece by piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmgen.models.adaln import Told, join
from mmgen.models.cache import KVCache
from mmgen.models.plan import visible


@dataclass
class Rows:
    """Embedded rows.

    Args:
        x: (B, R, W) embeddings.
        coords: (B or 1, R, 3) float positions (t, y, x).
        block: (R,) long, grows along the sequence.
        lane: (R,) long, 0 context, 1 query.
        valid: (B, R) bool, False for padding.
        blind: (B, R, R) bool, True where row r must not see row k of these rows although their
            blocks would let it; None: nowhere.
        told: what adaLN tells the rows; None: nothing.
    """

    x: Tensor
    coords: Tensor
    block: Tensor
    lane: Tensor
    valid: Tensor
    blind: Tensor | None = None
    told: Told | None = None

    def __len__(self) -> int:
        """R."""
        return len(self.block)


class Embedded(NamedTuple):
    """Rows of a condition, before they have a place in a sequence.

    Args:
        x: (B, T, W).
        valid: (B, T) bool.
        block: (T,) long from 0; None: each row is a block of its own (causal).
        blind: as in `Rows`.
    """

    x: Tensor
    valid: Tensor
    block: Tensor | None = None
    blind: Tensor | None = None

    def beside(self, twin: Embedded) -> Embedded:
        """One batch of these rows and those of their null twins."""
        blind = None if self.blind is None or twin.blind is None else (self.blind, twin.blind)
        return Embedded(
            torch.cat([self.x, twin.x]),
            torch.cat([self.valid, twin.valid]),
            self.block,
            None if blind is None else torch.cat(blind),
        )


@dataclass
class Cursor:
    """Where the next segment begins.

    Args:
        position: (B,) float, of each sequence.
        block: number of its first block.
        told: what adaLN tells the rows that follow.
        condition: (B, ...) what adaLN tells latents of besides their time: a label, or the words
            before them; None: nothing.
    """

    position: Tensor
    block: int = 0
    told: Told | None = None
    condition: Tensor | None = None


def concatenate(parts: list[Rows]) -> Rows:
    """Lay rows end to end; a single part stays what it is."""
    if len(parts) == 1:
        return parts[0]
    return Rows(
        x=torch.cat([part.x for part in parts], dim=1),
        coords=torch.cat([part.coords for part in parts], dim=1),
        block=torch.cat([part.block for part in parts]),
        lane=torch.cat([part.lane for part in parts]),
        valid=torch.cat([part.valid for part in parts], dim=1),
        blind=_join_blind(parts),
        told=_join_told(parts),
    )


def _join_told(parts: list[Rows]) -> Told | None:
    each = [(part.told, len(part)) for part in parts if part.told is not None]
    return join(each, len(parts[0].x)) if each else None


def _join_blind(parts: list[Rows]) -> Tensor | None:
    """Rows are blind among their own kind only."""
    if all(part.blind is None for part in parts):
        return None
    total = sum(map(len, parts))
    joined = parts[0].valid.new_zeros(len(parts[0].x), total, total)
    start = 0
    for part in parts:
        end = start + len(part)
        if part.blind is not None:
            joined[:, start:end, start:end] = part.blind
        start = end
    return joined


def row_mask(rows: Rows, cache: KVCache | None = None) -> Tensor | None:
    """Who sees whom among the cached rows and the rows being fed.

    Returns:
        (B or 1, R, K) bool with the cached rows first; None where every row sees everything.
    """
    length = cache.length if cache else 0
    block, lane, valid = rows.block, rows.lane, rows.valid
    if cache:
        block = torch.cat([cache.block[:length], block])
        lane = torch.cat([lane.new_zeros(length), lane])
        valid = torch.cat([cache.valid[:, :length], valid], dim=1)
    seen = visible(rows.block, rows.lane, block, lane).unsqueeze(0)  # (1, R, K)
    if rows.blind is not None:
        seen = seen & ~torch.nn.functional.pad(rows.blind, (length, 0))
    if not bool(valid.all()):
        # A padded row sees itself, so that no row's softmax is empty; nobody sees a padded row.
        itself = torch.eye(len(rows), dtype=torch.bool, device=block.device)
        itself = torch.nn.functional.pad(itself, (length, 0))
        seen = (seen & valid.unsqueeze(1)) | itself
    return None if bool(seen.all()) else seen
