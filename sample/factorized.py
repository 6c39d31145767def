"""Codes drawn by sub-tokens: feed a step once, then a small transformer once for each sub-token.

The inner transformer is not affine, so both branches of guidance go through it, and every sub-token
is guided at its logits, with a scale, a temperature and filters of its own. Open-MAGVIT2: arXiv
2409.04410. Spec: ett.md D2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.factorized import FactorizedModel, join
from mmgen.noise import Purpose
from mmgen.sample.deciding import Decided, Turn
from mmgen.sample.draw import draw
from mmgen.sample.engine import DecodeSettings


@dataclass(frozen=True)
class FactorizedDecider:
    """One code a slot, sub-token by sub-token.

    Args:
        model: in evaluation mode.
        seeds: (B,) int64, the seed of each picture.
        settings: of each sub-token, the lowest bits first.
        segment: which picture of the sequence this is; part of the noise counter.
        trace: called with the sub-token's number and its guided logits (B, n, K_i), for reference
            runs.

    Raises:
        ConfigError: settings for another number of sub-tokens.
    """

    model: FactorizedModel
    seeds: Tensor
    settings: tuple[DecodeSettings, ...]
    segment: int = 0
    trace: Callable[[int, Tensor], None] | None = None

    def __post_init__(self) -> None:
        """Refuse settings for another number of sub-tokens."""
        count = len(self.model.config.bits)
        if len(self.settings) != count:
            raise ConfigError(
                f"There are settings for {len(self.settings)} sub-tokens, but a code has {count}; "
                "give one for each."
            )

    def blank(self, batch: int, slots: int, device: torch.device) -> Tensor:
        """(B, N) long zeros."""
        return torch.zeros(batch, slots, dtype=torch.long, device=device)

    def moves(self, step: int, steps: int) -> int:
        """1."""
        return 1

    def decide(self, turn: Turn) -> Iterator[Decided]:
        """Feed once, then draw the sub-tokens of every slot in turn."""
        x = turn.feed()  # (G, n, W)
        cache = self.model.new_sub_cache(x.shape[0] * x.shape[1])
        drawn: list[Tensor] = []
        for level, own in enumerate(self.settings):
            logits = turn.guided(self.model.sub_logits(level, x, cache), own.guidance)
            drawn.append(self._draw(level, logits, turn.slots))
            embedded = self.model.code_embedding.one(level, drawn[-1])  # (B, n, W)
            x = embedded.repeat(len(x) // len(embedded), 1, 1)
        yield Decided(join(tuple(drawn), self.model.config.bits))

    def _draw(self, level: int, logits: Tensor, slots: Tensor) -> Tensor:
        """Sub-tokens (B, n) of guided logits (B, n, K)."""
        if self.trace:
            self.trace(level, logits)
        return draw(
            logits,
            self.seeds,
            slots,
            self.settings[level].draw,
            purpose=Purpose.TOKEN,
            segment=self.segment,
            level=level,
        )
