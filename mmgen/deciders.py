"""What gives the tokens of a call their values, by the kind of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.pipeline import Pipeline
    from mmgen.request import Request
    from mmgen.sample.deciding import Decider


def sub_tokens_of(pipe: Pipeline) -> int:
    """How many draws make a code: 1, or the number of its sub-tokens."""
    return len(getattr(pipe.transformer.config, "bits", ("whole",)))


def decider_of(pipe: Pipeline, request: Request, seeds: Tensor) -> Decider | None:
    """The decider of a request; None: one draw from the logits of the codes."""
    from mmgen.models.factorized import FactorizedModel
    from mmgen.sample.factorized import FactorizedDecider

    if isinstance(pipe.transformer, FactorizedModel):
        return FactorizedDecider(pipe.transformer, seeds, request.sub_tokens)
    return None
