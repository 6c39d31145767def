"""What gives the tokens of a call their values, by the kind of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmgen.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.models.decodable import Prefix
    from mmgen.models.plan import Plan
    from mmgen.pipeline import Pipeline
    from mmgen.request import Request
    from mmgen.sample.deciding import Decider
    from mmgen.sample.flow import FlowSettings

FILTERS = ("temperature", "top_k", "top_p", "min_p")


def sub_tokens_of(pipe: Pipeline) -> int:
    """How many draws make a code: 1, or the number of its sub-tokens."""
    return len(getattr(pipe.transformer.config, "bits", ("whole",)))


def flow_of(
    pipe: Pipeline,
    plan: Plan,
    solver: str | None,
    steps: int | Sequence[int] | None,
    drawing: dict[str, Any],
) -> FlowSettings | None:
    """The solver of a call over a pipeline's defaults; None where tokens are drawn from logits.

    Args:
        pipe: whose weights draw.
        plan: the blocks that are drawn.
        solver, steps: of the call.
        drawing: the call's other settings, of which latents take no filters.

    Raises:
        ConfigError: a setting that these weights do not take, or a value outside its range.
    """
    from mmgen.sample.flow import FlowSettings

    usual = pipe.info.sampling
    if not draws_latents(pipe):
        if solver is not None or steps is not None:
            raise ConfigError(
                f"The weights of '{pipe.info.name}' draw codes; leave out the solver and its steps."
            )
        return None
    for name in FILTERS:
        if drawing.get(name) is not None:
            raise ConfigError(f"The weights of '{pipe.info.name}' draw latents; leave out {name}.")
    chosen = usual.steps if steps is None else steps
    counts = chosen if isinstance(chosen, int) else tuple(chosen)
    flow = FlowSettings(usual.solver if solver is None else solver, counts)  # type: ignore[arg-type]
    flow.all_times(plan.steps)  # refuses a list for another number of blocks
    return flow


def draws_latents(pipe: Pipeline) -> bool:
    """Whether the weights of a pipeline draw latents, not codes."""
    return pipe.transformer.config.units[0].continuous


def decider_of(
    pipe: Pipeline, request: Request, seeds: Tensor, prefix: Prefix, segment: int = 0
) -> Decider | None:
    """The decider of a request behind its prefix; None: one draw from the logits of the codes.

    `segment` is the number of the window of a long clip.
    """
    from mmgen.models.factorized import FactorizedModel
    from mmgen.sample.factorized import FactorizedDecider
    from mmgen.sample.flow import FlowDecider

    model: Any = pipe.transformer
    told = prefix.cursor.condition
    if isinstance(model, FactorizedModel):
        return FactorizedDecider(model, seeds, request.sub_tokens)
    if request.flow is not None and told is not None:
        return FlowDecider(model, request.plan, told, seeds, request.flow, segment=segment)
    return None
