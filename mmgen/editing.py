"""Editing: the codes that an edit keeps are given as one block, the others are drawn after them.

Order `kept:mask:seed:n` decides what is kept first, and with prediction `self` whatever is drawn
sees all of it: what is left of a hole, what is right of it and what is below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mmgen.captioning import codes_seen
from mmgen.drawing import draw_codes
from mmgen.errors import ConfigError, UserError
from mmgen.lengths import learned_stills
from mmgen.recipes import recipes_of

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.calling import EditSettings
    from mmgen.masks import Canvas
    from mmgen.pipeline import Pipeline
    from mmgen.pipeline_output import PipelineOutput


def edit(
    pipe: Pipeline,
    canvas: Canvas,
    prompt: str | list[str],
    steps: int | None,
    progress: Callable[[int, int], None] | None,
    settings: EditSettings,
) -> PipelineOutput:
    """Draw the masked part of a canvas anew; see `Pipeline.edit`."""
    from mmgen.models.schedule import to_slots
    from mmgen.models.spellings import kept_order
    from mmgen.pipeline_output import PipelineOutput

    unit = free_unit(pipe)
    kept = _kept(pipe, canvas, steps)  # (1, h, w)
    order = kept_order(kept, 0, steps)
    request = pipe.request(prompt, unit=unit, order=order, num_frames=1, **settings)
    codes = codes_seen(pipe, [canvas.seen.crop(canvas.square)])
    given = to_slots(request.plan.schedule, codes)[0, : int(kept.sum())]
    drawn = draw_codes(pipe, replace(request, given=given), progress)
    images = [canvas.with_new(image) for image in pipe.render(drawn)]
    recipes = [{**recipe, "edit": canvas.told} for recipe in recipes_of(pipe, request)]
    return PipelineOutput(images, drawn, request.seeds, recipes)


def free_unit(pipe: Pipeline) -> str:
    """Name of the unit that decides tokens in any order, all of what is decided in view.

    Raises:
        UserError: the weights only draw, or have no such unit.
    """
    config = pipe.two_way()[1].config
    still = (1, *config.grid[1:])
    for unit in config.units if learned_stills(pipe) else ():
        if unit.order == "random" and unit.prediction == "self" and unit.draws(still):
            return str(unit.name)
    raise UserError(
        f"The weights of '{pipe.info.name}' decode in fixed orders only; editing needs a unit that "
        "was trained on order 'random'."
    )


def _kept(pipe: Pipeline, canvas: Canvas, steps: int | None) -> Tensor:
    """The cells (1, h, w) that keep their codes.

    Raises:
        UserError: there are none, or fewer others than steps.
    """
    import torch

    _, h, w = pipe.grid
    anew = torch.from_numpy(canvas.cells((h, w)))
    if anew.all():
        side = pipe.info.image_size
        raise UserError(
            f"Nothing would be kept: no cell of the {w}x{h} grid (each {side // w}x{side // h} of "
            f"{side}x{side} pixels) is free of the mask; leave more, or draw a whole new picture "
            "with `mmgen sample`."
        )
    most = int(anew.sum())
    if steps is not None and not 1 <= steps <= most:
        raise ConfigError(f"steps is {steps}, but {most} tokens are drawn anew; give 1 to {most}.")
    return ~anew[None]
