"""Decoding of a whole request: in parts that fit memory, one after the other or side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.models.conditional import ConditionalModel
    from mmgen.models.decodable import Prefix
    from mmgen.models.plan import Plan
    from mmgen.pipeline import Pipeline
    from mmgen.request import Request
    from mmgen.sample.engine import Step

CACHE_BYTES = 2**31  # of keys and values; fewer pictures are decoded together where they need more


def draw_codes(
    pipe: Pipeline,
    request: Request,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Step], None] | None = None,
) -> Tensor:
    """Codes (B, t, h, w), or latents (B, t, h, w, C), of all pictures, part after part."""
    import torch

    parts, codes = parts_of(pipe, request), []
    for number, part in enumerate(parts):
        for step in _steps(pipe, part):
            if progress:
                progress(number * step.total + step.index, len(parts) * step.total)
            if watch:
                watch(step)
        codes.append(step.codes)
    return torch.cat(codes)


def draw_stepwise(pipe: Pipeline, request: Request) -> Iterator[Step]:
    """The steps of all pictures at once."""
    return _side_by_side([_steps(pipe, part) for part in parts_of(pipe, request)])


def parts_of(pipe: Pipeline, request: Request) -> list[Request]:
    """What is decoded together."""
    config: Any = pipe.transformer.config
    stacks = config.stacks if hasattr(config, "stacks") else (config.backbone,)
    width = sum(s.depth * s.kv_head_count * s.head_dim for s in stacks)
    rows = request.plan.rows + _prefix_rows(config)
    branches = 2 if request.guided else 1
    each = 8 * branches * rows * width
    if request.flow:  # and what adaLN makes of a label at every time
        each += 24 * width * len(request.flow.all_times(request.plan.steps))
    return request.parts(max(1, CACHE_BYTES // each))


def _side_by_side(parts: list[Iterator[Step]]) -> Iterator[Step]:
    """The steps of several decodings as those of one."""
    import torch

    for steps in zip(*parts):
        logits = [step.logits for step in steps if step.logits is not None]
        codes = torch.cat([step.codes for step in steps])
        yield replace(steps[0], codes=codes, logits=torch.cat(logits) if logits else None)


def _steps(pipe: Pipeline, request: Request) -> Iterator[Step]:
    import torch

    from mmgen.lengths import windows
    from mmgen.prefixes import codes_of_frames, extra_ids, prefix_of
    from mmgen.rolling import roll

    with torch.inference_mode():
        prefix, codes = prefix_of(pipe, request), codes_of_frames(pipe, request)
    grid, longest = request.grid, pipe.transformer.config.grid[0]
    parts = list(windows(grid[0], longest, 0 if codes is None else codes.shape[1]))

    def draw(number: int, plan: Plan, given: Tensor | None) -> Iterator[Step]:
        return _steps_of_window(pipe, replace(request, plan=plan), prefix, given, number)

    plans = [request.plan, *request.later]
    steps = roll(parts, plans, grid[0], codes, draw, request.flow)
    if not extra_ids(pipe):
        return steps
    clean = cast("ConditionalModel", pipe.transformer).codes_of
    return (replace(step, codes=clean(step.codes)) for step in steps)


def _steps_of_window(
    pipe: Pipeline, request: Request, prefix: Prefix, given: Tensor | None, number: int
) -> Iterator[Step]:
    import torch

    from mmgen.deciders import decider_of
    from mmgen.prefixes import given_codes
    from mmgen.sample.engine import decode

    seeds = torch.tensor(request.seeds)
    return decode(
        pipe.transformer,
        prefix,
        request.plan,
        request.unit.name,
        seeds,
        request.settings,
        segment=number,
        decider=decider_of(pipe, request, seeds, prefix, number),
        given=given_codes(request) if given is None else given,
    )


def _prefix_rows(config: Any) -> int:
    return int(config.condition.rows if hasattr(config, "condition") else config.max_text + 1)
