"""Held-out losses, each in its own terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmgen.evaluation.held_out import knowing_nothing, unit_loss

if TYPE_CHECKING:
    from mmgen.models.units import Unit
    from mmgen.pipeline import Pipeline

NATS, VELOCITY = "nats a code", "squared velocity"  # never compared with each other


def held_out(
    pipeline: Pipeline, unit: Unit, codes: Tensor, prompts: Sequence[str]
) -> dict[str, Any]:
    """Held-out loss of a unit, what it is in, and what knowing nothing costs.

    Args:
        pipeline: what is measured. `unit`: of its weights.
        codes: (N, t, h, w), or latents (N, t, h, w, C). `prompts`: N of them.
    """
    size = pipeline.two_way()[1].config.codebook_size
    return {
        "value": unit_loss(pipeline, unit, codes, list(prompts)),
        "in": NATS if size else VELOCITY,
        "uniform": knowing_nothing(codes, size),
        "of": len(codes),
    }
