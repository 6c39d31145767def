"""Decoding of a whole request: in parts that fit memory, one after the other or side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.models.conditional import ConditionalModel
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

    from mmgen.deciders import decider_of
    from mmgen.prefixes import extra_ids, given_codes, prefix_of
    from mmgen.sample.engine import decode

    seeds, unit = torch.tensor(request.seeds), request.unit.name
    with torch.inference_mode():
        prefix, given = prefix_of(pipe, request), given_codes(pipe, request)
    steps = decode(
        pipe.transformer,
        prefix,
        request.plan,
        unit,
        seeds,
        request.settings,
        decider=decider_of(pipe, request, seeds, prefix),
        given=given,
    )
    if not extra_ids(pipe):
        return steps
    clean = cast("ConditionalModel", pipe.transformer).codes_of
    return (replace(step, codes=clean(step.codes)) for step in steps)


def _prefix_rows(config: Any) -> int:
    return int(config.condition.rows if hasattr(config, "condition") else config.max_text + 1)
