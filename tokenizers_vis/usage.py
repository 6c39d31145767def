"""How much of a codebook is in use, over a window of the last batches.

A tokenizer whose use falls has collapsed: the reconstruction may still look fine while most
codes mean nothing. The count is exact and can be resumed.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from mmgen.errors import CheckpointError


class CodebookUsage:
    """Counts of the codes in the last `window` batches of indices.

    Args:
        codebook_size: number of codes K.
        window: number of batches.
        threshold: `warning` speaks up below this share of the codes that could be in use.
    """

    def __init__(self, codebook_size: int, window: int, threshold: float = 0.25) -> None:
        self.codebook_size, self.window, self.threshold = codebook_size, window, threshold
        self.counts = torch.zeros(codebook_size, dtype=torch.long)
        # One entry a batch: the codes that occurred in it and how often, which stays small for
        # a large codebook.
        self._batches: deque[tuple[Tensor, Tensor]] = deque()

    def update(self, indices: Tensor) -> None:
        """Add one batch of indices (any shape, long); the oldest batch leaves a full window."""
        codes, counts = torch.unique(indices.detach().cpu(), return_counts=True)
        self.counts[codes] += counts
        self._batches.append((codes, counts))
        if len(self._batches) > self.window:
            codes, counts = self._batches.popleft()
            self.counts[codes] -= counts

    @property
    def full(self) -> bool:
        """True once the window holds `window` batches."""
        return len(self._batches) == self.window

    @property
    def used(self) -> float:
        """Share of the K codes that occur in the window."""
        return int((self.counts > 0).sum()) / self.codebook_size

    @property
    def perplexity(self) -> float:
        """exp of the entropy of the code frequencies: K if all are equally frequent."""
        total = int(self.counts.sum())
        if not total:
            return 0.0
        p = self.counts[self.counts > 0].double() / total
        return float((-(p * p.log()).sum()).exp())

    @property
    def dead(self) -> Tensor:
        """Codes (n,) long that do not occur in the window, ascending."""
        return (self.counts == 0).nonzero()[:, 0]

    def warning(self) -> str | None:
        """Return one sentence if a full window uses too few codes, else None.

        A window of fewer tokens than codes is judged by its number of tokens.
        """
        possible = min(self.codebook_size, int(self.counts.sum()))
        used = int((self.counts > 0).sum())
        if not self.full or used >= self.threshold * possible:
            return None
        return (
            f"Only {used} of {self.codebook_size} codes were used in the last {self.window} "
            f"batches (perplexity {self.perplexity:.0f}): turn on revival of unused codes or the "
            "entropy loss, lower the learning rate, or take a smaller codebook."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the window as plain tensors."""
        return {
            "codebook_size": self.codebook_size,
            "codes": [codes.clone() for codes, _ in self._batches],
            "counts": [counts.clone() for _, counts in self._batches],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; a longer window is cut to the newest batches.

        Raises:
            CheckpointError: the state belongs to a codebook of another size.
        """
        if state["codebook_size"] != self.codebook_size:
            raise CheckpointError(
                f"The saved codebook use is of {state['codebook_size']} codes, but the codebook "
                f"has {self.codebook_size}; resume with the configuration of the run."
            )
        self._batches = deque(zip(state["codes"], state["counts"]))
        while len(self._batches) > self.window:
            self._batches.popleft()
        self.counts = torch.zeros(self.codebook_size, dtype=torch.long)
        for codes, counts in self._batches:
            self.counts[codes] += counts
