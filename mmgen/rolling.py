"""Decoding of clips window by window, as the steps of one clip (`mmgen/lengths.py`).

Window w draws with segment w of the noise, so what a window holds depends on the seed, on its place
in the clip and on the frames before it, and not on how long the clip will be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mmgen.errors import ConfigError
from mmgen.lengths import Window

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.models.plan import Plan
    from mmgen.models.units import Unit
    from mmgen.sample.engine import Step
    from mmgen.sample.flow import FlowSettings

#: Number of a window, its plan, and codes (B, g) of its first slots -> its steps.
DrawWindow = Callable[[int, "Plan", "Tensor | None"], "Iterator[Step]"]


def later_plans(
    unit: Unit, plan: Plan, parts: list[Window], flow: FlowSettings | None
) -> tuple[Plan, ...]:
    """Compile the windows that follow the first one, in its order.

    Args:
        unit: that draws.
        plan: of the first window.
        parts: the windows that follow.
        flow: how latents are integrated; None: codes are drawn.

    Raises:
        ConfigError: the order does not fit them, or the solver's steps do not.
    """
    from mmgen.models.units import plan_for

    follows, (_, h, w) = replace(unit, order=plan.schedule.order), plan.schedule.grid
    kinds = {(part.frames, part.given) for part in parts}
    try:
        plans = {
            (frames, given): plan_for(follows, (frames, h, w), frames=given)
            for frames, given in kinds
        }
        for each in plans.values():
            if flow:
                flow.all_times(each.steps)  # refuses a list for another number of blocks
    except ConfigError as error:
        raise ConfigError(
            f"Unit '{unit.name}' draws no clips that are longer than those of the training: they "
            "are drawn window by window, and a later window cannot be drawn by order "
            f"'{plan.schedule.order}' with these settings; choose another unit, or a shorter clip."
        ) from error
    return tuple(plans[part.frames, part.given] for part in parts)


def roll(
    parts: list[Window],
    plans: list[Plan],
    frames: int,
    codes: Tensor | None,
    draw: DrawWindow,
    flow: FlowSettings | None = None,
) -> Iterator[Step]:
    """The steps of all windows as those of one clip.

    Args:
        parts: the windows, one after the other.
        plans: of each window; its frames that are given are decided by then.
        frames: latent frames of the clip; the last window may reach further and is cut.
        codes: (B, k, h, w) of the first frames, if they are given.
        draw: decodes a window.
        flow: how latents are integrated; None: codes are drawn.
    """
    if parts[0].frames == frames:
        given = None if codes is None else _given(codes, parts[0], plans[0])
        yield from draw(0, plans[0], given)
        return
    steps = [_steps_left(plan, part, flow) for part, plan in zip(parts, plans)]
    behind = 0
    for number, (part, plan) in enumerate(zip(parts, plans)):
        given = None if codes is None else _given(codes, part, plan)
        for step in draw(number, plan, given):
            whole = _whole(step, part, frames, codes)
            yield replace(whole, index=behind + step.index, total=sum(steps))
        codes = whole.codes
        behind += steps[number]


def _given(codes: Tensor, part: Window, plan: Plan) -> Tensor | None:
    """Codes (B, g) of the slots that are decided when a window begins."""
    from mmgen.models.schedule import to_slots

    if not part.given:
        return None
    t, h, w = plan.schedule.grid
    known = codes[:, part.start : part.start + part.given]
    grid = codes.new_zeros(len(codes), t, *codes.shape[2:])
    grid[:, : part.given] = known
    return to_slots(plan.schedule, grid)[:, : part.given * h * w]


def _whole(step: Step, part: Window, frames: int, before: Tensor | None) -> Step:
    """A step of a window as one of the clip."""
    codes = step.codes.new_zeros(len(step.codes), frames, *step.codes.shape[2:])
    done = step.done.new_zeros(frames, *step.done.shape[1:])
    begun = done.clone()
    if before is not None:
        known = min(part.start + part.given, frames)
        codes[:, :known], done[:known], begun[:known] = before[:, :known], True, True
    end = min(part.start + part.frames, frames)
    codes[:, part.start : end] = step.codes[:, : end - part.start]
    done[part.start : end] = step.done[: end - part.start]
    begun[part.start : end] = step.begun[: end - part.start]
    return replace(step, codes=codes, done=done, begun=begun)


def _steps_left(plan: Plan, part: Window, flow: FlowSettings | None) -> int:
    """Steps of a window that are not given; of latents, every step of the solver counts."""
    from itertools import accumulate

    _, h, w = plan.schedule.grid
    first = [0, *accumulate(plan.sizes)].index(part.given * h * w)
    if flow is None:
        return plan.steps - first
    return sum(len(flow.times(step, plan.steps)) for step in range(first, plan.steps))
