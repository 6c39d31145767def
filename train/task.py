"""The interface between the training loop and what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from PIL import Image


class Task(Protocol):
    """What is trained. Networks stay the task's own: the loop moves them and steps their weights.

    Attributes:
        metrics: scalars to log besides the losses; emptied before every step.
        renewed: rows of the main network's parameters, by name, that `after_step` wrote anew;
            emptied before every step.
    """

    metrics: dict[str, float]
    renewed: dict[str, Tensor]

    def networks(self) -> dict[str, nn.Module]:
        """Trained networks by name; the first is the main one (EMA, previews, export)."""

    def batches(self, epoch: int, start_batch: int) -> Iterator[Any]:
        """Batches of one epoch from `start_batch` on, determined by (seed, epoch, start_batch).

        The loop moves tensors in dicts, lists, tuples or objects with `.to` to the device.
        """

    def losses(self, batch: Any, step: int, phase: str) -> dict[str, Tensor]:
        """Scalars whose sum is minimised for the network `phase`; an empty dict skips it.

        What must be equal in all processes and accumulated batches of a step (a schedule) is
        drawn from `step`; the global generators differ between batches.
        """

    def after_step(self, step: int) -> list[str]:
        """Work after the optimisers (dead codes, counters); returns warnings to print."""

    def state(self) -> dict[str, Tensor]:
        """Tensors besides the networks that an exact resume needs."""

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` returned."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Scores on held-out data, with the averaged weights (main process only)."""

    def preview(self, model: nn.Module) -> Image.Image | None:
        """A picture of what the model can do now, with the averaged weights."""

    def remarks(self) -> list[str]:
        """What to tell the user at the end, such as pictures that could not be used."""

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the final product, with the averaged weights, into an empty folder."""
