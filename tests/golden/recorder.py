"""A network that remembers what the decode engine asked of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmgen.models.plan import Plan


class Recorder:
    """Answers as `model` does, and keeps what each step was told.

    Args:
        model: what is decoded.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.hidden: list[Any] = []  # of the rows fed in each step
        self.chosen: list[Tensor] = []  # rows of the plan fed in each step
        self.said: list[Tensor] = []  # (G, n, ...) before guidance
        self.scored: list[Tensor] = []  # (B, n, K) guided

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def image_rows(self, plan: Plan, chosen: Tensor, *rest: Any) -> Any:
        self.chosen.append(chosen)
        return self.model.image_rows(plan, chosen, *rest)

    def run(self, *given: Any) -> Any:
        self.hidden.append(self.model.run(*given))
        return self.hidden[-1]

    def queries(self, *given: Any) -> Tensor:
        self.said.append(self.model.queries(*given))
        return self.said[-1]

    def logits(self, *given: Any) -> Tensor:
        self.scored.append(self.model.logits(*given))
        return self.scored[-1]

    def branches(self) -> Tensor:
        """Logits of all slots before guidance, (B, 2, N, K): conditional, unconditional."""
        with torch.inference_mode():
            logits = self.model.logits(torch.cat(self.said, 1), self.model.tables())
        return torch.stack(logits.chunk(2), 1)

    def guided(self) -> Tensor:
        """Logits that were drawn from, (B, N, K) in decoding order."""
        return torch.cat(self.scored, 1)
