"""What the decode engine asks of a network, whatever its condition, its heads and its tokens.

A decoding is: rows of the prefix, then the rows of a plan step by step; hidden states of the rows
that were fed; what the heads say about the slots of the step. Text models, class-conditional ones
and those of continuous tokens all answer these calls, so `mmgen/sample/engine.py` is one loop.

Shapes: G sequences (conditional first, then unconditional), R rows, n slots of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from mmgen.models.plan import Plan
from mmgen.models.rows import Cursor, Rows


@dataclass
class Prefix:
    """What stands before the picture.

    Args:
        rows: G sequences; the last row predicts where a plan reads `PREFIX`.
        cursor: where the picture begins.
        guided: the second half of the batch is the unconditional branch of the first.
    """

    rows: Rows
    cursor: Cursor
    guided: bool


class Decodable(Protocol):
    """A network that can be decoded step by step."""

    def tables(self) -> Any:
        """What is computed once for a generation, such as the vectors of all codes."""

    def image_rows(
        self, plan: Plan, chosen: Tensor, codes: Tensor, unit: str, cursor: Cursor, tables: Any
    ) -> Rows:
        """Some rows of a plan.

        Args:
            plan: the schedule, compiled.
            chosen: (r,) long, which rows.
            codes: (G, N) long or (G, N, C) float in slot order; only the slots of `chosen` rows
                are looked at.
            unit: what the picture's marker says; networks without markers pass over it.
            cursor: where the picture begins.
            tables: of `tables()`, or what the decider gives.
        """

    def run(self, rows: Rows, cache: Any = None) -> Any:
        """Hidden states of the rows of `image_rows`; lane-0 rows are kept in the cache, if given.

        Kept rows must come first among the rows that are fed.
        """

    def queries(self, hidden: Any, heads: tuple[str, ...], reads: Tensor) -> Tensor:
        """What the heads say about each slot, averaged, before anything that costs much.

        Args:
            hidden: of `run`.
            heads: names, one for each line of `reads`.
            reads: (heads, n) places among the rows just fed, or `NONE`.

        Returns:
            (G, n, ...); guidance is applied to it, so what follows must be affine.
        """

    def logits(self, queries: Tensor, tables: Any) -> Tensor:
        """(B, n, ...) to (B, n, K) float32."""

    def new_cache(self, batch: int, capacity: int) -> Any:
        """An empty cache of `capacity` rows, or one for each stack."""
