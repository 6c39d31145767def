"""The arguments of a pipeline's call, checked and completed: what is drawn, and how."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from mmgen.errors import ConfigError, suggestion
from mmgen.request import Frames, Request, choose_schedule, random_seed, settings_of, subjects_of

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.models.schedule import Grid
    from mmgen.pipeline import Pipeline
    from mmgen.sample.flow import Solver
    from mmgen.sample.guidance import Ramp


class EditSettings(TypedDict, total=False):
    """The arguments of `Pipeline.edit` that say how the prompt is drawn."""

    negative_prompt: str | None
    num_images_per_prompt: int
    guidance_scale: float | Sequence[float] | None
    guidance_interval: tuple[float, float] | None
    guidance_ramp: Ramp | None
    seed: int | list[int] | None
    temperature: float | Sequence[float] | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    num_inference_steps: int | Sequence[int] | None
    solver: Solver | None
    reproducible: bool


class CallSettings(EditSettings, total=False):
    """The arguments of `Pipeline.__call__` that say what is drawn and how, besides the prompt."""

    class_labels: int | Sequence[int] | Tensor | None
    frames: Tensor | Sequence[Frames] | None
    num_frames: int | None
    unit: str | None
    order: str | None


def check_names(function: str, given: Collection[str], settings: type = CallSettings) -> None:
    """Refuse names that no setting has, as Python does, but for the function that was called.

    Args:
        function: what the user called, such as "Pipeline.stream".
        given: names of its further arguments.
        settings: the typed dictionary of those that it takes.

    Raises:
        TypeError: there is no such setting.
    """
    known = settings.__annotations__
    for name in given:
        if name not in known:
            raise TypeError(
                f"{function}() got an unexpected keyword argument '{name}'{suggestion(name, known)}"
            )


def request_of(
    pipe: Pipeline,
    prompt: str | list[str] | None = None,
    *,
    class_labels: int | Sequence[int] | Tensor | None = None,
    frames: Tensor | Sequence[Frames] | None = None,
    num_frames: int | None = None,
    negative_prompt: str | None = None,
    num_images_per_prompt: int = 1,
    seed: int | list[int] | None = None,
    unit: str | None = None,
    order: str | None = None,
    num_inference_steps: int | Sequence[int] | None = None,
    solver: Solver | None = None,
    reproducible: bool = False,
    **drawing: Any,
) -> Request:
    """Check the arguments of a call and fill in the defaults.

    Args:
        pipe: that is called.
        prompt, class_labels, frames, num_frames, negative_prompt, num_images_per_prompt, seed,
            unit, order, num_inference_steps, solver, reproducible: as in `Pipeline.__call__`.
        drawing: guidance and filters of a call; see `settings_of`.

    Raises:
        UserError: as in a call.
    """
    from mmgen.deciders import flow_of, sub_tokens_of
    from mmgen.lengths import call_grid, frames_of, trained_frames, windows
    from mmgen.noise import picture_seeds
    from mmgen.prefixes import check_subjects, latent_frames
    from mmgen.rolling import later_plans

    subjects = subjects_of(prompt, class_labels, num_images_per_prompt, frames)
    count = sub_tokens_of(pipe)
    each = settings_of(pipe.info.sampling, count, **drawing)
    settings, sub_tokens = each[0], each if count > 1 else ()
    if negative_prompt and not settings.guidance.enabled:
        raise ConfigError(
            "A negative prompt does nothing at guidance scale 1; raise the guidance scale."
        )
    config = pipe.transformer.config
    if frames is not None and num_frames is None:  # clips are gone on from, not stills
        num_frames = max(pipe.usual_frames, pipe.trained_frames)
    grid = call_grid(pipe, num_frames)
    usual = pipe.info.sampling.unit
    if order is None and unit is None and usual is not None and config.unit(usual).draws(grid):
        unit = usual  # an order is free to choose its unit
    given = latent_frames(pipe, subjects, grid)
    parts = list(windows(grid[0], config.grid[0], given))
    first, later = parts[0], parts[1:]
    window: Grid = (first.frames, *grid[1:])
    chosen, plan = choose_schedule(config, window, unit, order, first.given, later)
    frames_asked = None if trained_frames(pipe) == 1 else frames_of(pipe.vision, grid[0])
    flow = flow_of(pipe, plan, solver, num_inference_steps, drawing)
    seeds = picture_seeds(random_seed() if seed is None else seed, len(subjects)).tolist()
    negative = negative_prompt or ""
    request = Request(
        subjects,
        negative,
        seeds,
        chosen,
        plan,
        grid,
        frames_asked,
        settings,
        reproducible,
        sub_tokens,
        flow,
        later=later_plans(chosen, plan, later, flow),
    )
    check_subjects(pipe, request)
    return request
