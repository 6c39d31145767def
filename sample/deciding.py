"""How the slots of one step get their values: the part of decoding that depends on the head.

The engine (`sample/engine.py`) walks the steps; a decider is asked once a step. It feeds the rows
of the step through its `Turn`, once for a categorical head, several times for a solver, and answers
with values: a solver with those in progress first.

Shapes: B pictures, G = B or 2B sequences (conditional first, then unconditional), N slots, n slots
of a step, K codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mmgen.models.decodable import Decodable
from mmgen.noise import Purpose
from mmgen.sample.draw import DrawSettings, draw
from mmgen.sample.guidance import Guidance, guide

Noise = Callable[[int, Tensor, int], Tensor]  # (step, slots (n,), K) -> Gumbel noise (B, n, K)
Feed = Callable[[int, Tensor, Any], Tensor]  # (step, values (B, N, ...), tables) -> (G, n, ...)


@dataclass(frozen=True)
class Turn:
    """One step, as a decider sees it.

    Args:
        step: from 0.
        slots: (n,) long, the slots to decide.
        values: (B, N) or (B, N, C), what is decided so far; not to be changed.
        scale: guidance of this step; None where there is no unconditional branch.
        place: where a `Guidance` finds its scale: the arguments of `Guidance.scale_at`.
        tables: of the network's `tables()`.
        feed_rows: feeds the rows of a step, see `feed`.
    """

    step: int
    slots: Tensor
    values: Tensor
    scale: float | None
    place: tuple[int, int, int, int]
    tables: Any
    feed_rows: Feed

    def feed(self, values: Tensor | None = None, tables: Any = None) -> Tensor:
        """Feed the rows of this step; a second time those alone that are no context.

        Args:
            values: (B, N) or (B, N, C) to make the rows from (default: what is decided).
            tables: what else they are made from (default: the network's own).

        Returns:
            What the heads say about the slots, (G, n, ...).
        """
        values = self.values if values is None else values
        return self.feed_rows(self.step, values, self.tables if tables is None else tables)

    def guided(self, said: Tensor, guidance: Guidance | None = None) -> Tensor:
        """Both branches (G, ...) to one (B, ...); the same tensor if there is only one.

        Args:
            said: conditional, then unconditional.
            guidance: instead of the one of the whole decoding.
        """
        if self.scale is None:
            return said
        conditional, unconditional = said.chunk(2)
        scale = guidance.scale_at(*self.place) if guidance else self.scale
        return guide(conditional, unconditional, scale)


class Decided(NamedTuple):
    """Values (B, n) or (B, n, C) of a step's slots, and the logits (B, n, K) if there are."""

    values: Tensor
    logits: Tensor | None = None


class Decider(Protocol):
    """Gives the slots of a step their values."""

    def blank(self, batch: int, slots: int, device: torch.device) -> Tensor:
        """Values (B, N) or (B, N, C) before anything is decided."""

    def moves(self, step: int, steps: int) -> int:
        """How many values `decide` yields in one of `steps` steps, from 0."""

    def decide(self, turn: Turn) -> Iterator[Decided]:
        """Yield the values of the slots of one step, in progress; the last ones are decided."""


@dataclass(frozen=True)
class CategoricalDecider:
    """One token a slot: guide what the heads say, score the codes, draw.

    Guidance comes before the codebook product, which is affine, so half the logits are never
    computed.

    Args:
        model: for its logits.
        seeds: (B,) int64, the seed of each picture.
        settings: temperature and filters.
        noise: Gumbel noise to use instead of the counter-based one, for reference runs.
        segment: which picture of the sequence this is; part of the noise counter.
    """

    model: Decodable
    seeds: Tensor
    settings: DrawSettings
    noise: Noise | None = None
    segment: int = 0

    def blank(self, batch: int, slots: int, device: torch.device) -> Tensor:
        """(B, N) long zeros."""
        return torch.zeros(batch, slots, dtype=torch.long, device=device)

    def moves(self, step: int, steps: int) -> int:
        """1."""
        return 1

    def decide(self, turn: Turn) -> Iterator[Decided]:
        """Feed once, draw once."""
        logits = self.model.logits(turn.guided(turn.feed()), turn.tables)  # (B, n, K)
        noise = self.noise(turn.step, turn.slots, logits.shape[-1]) if self.noise else None
        codes = draw(
            logits,
            self.seeds,
            turn.slots,
            self.settings,
            noise=noise,
            purpose=Purpose.TOKEN,
            segment=self.segment,
        )
        yield Decided(codes, logits)
