"""A checked call of a pipeline: which pictures, in which order, drawn how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mmgen.errors import ConfigError, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.lengths import Window
    from mmgen.models.plan import Plan
    from mmgen.models.schedule import Grid, Schedule
    from mmgen.models.units import Unit
    from mmgen.pipeline_folder import SamplingDefaults
    from mmgen.sample.engine import DecodeSettings
    from mmgen.sample.flow import FlowSettings
    from mmgen.sample.guidance import Ramp

BATCH = 64  # pictures decoded together; more would save no time and need more memory
MOST_GUIDANCE = 1000  # far above any use; with larger scales logits overflow


@dataclass(frozen=True, eq=False)
class Frames:
    """The beginning of a clip, to go on from.

    Args:
        name: what recipes and files call it.
        pixels: (3, T, H, W) float in [-1, 1].
        prompt: what the clip shows, for weights that read it; "": whatever follows.
    """

    name: str
    pixels: Tensor
    prompt: str = ""


Subject = str | int | Frames  # what a picture shows: a prompt, the number of a class, a beginning


class Trained(Protocol):
    """The part of a transformer's configuration that tells its schedules."""

    @property
    def units(self) -> tuple[Unit, ...]:
        """The schedules it was trained on; the first is the default."""

    def unit(self, name: str) -> Unit:
        """The unit of that name."""


@dataclass(frozen=True)
class Request:
    """B subjects and seeds, one schedule, one set of settings.

    Where codes are drawn in sub-tokens, `sub_tokens` has the settings of each, and `settings` are
    those of the first. Where latents are drawn, `flow` says how. `given` (g,) are codes of the
    first g slots of all pictures, which are decided already. `grid` is that of what comes out;
    where it has more frames than the plan, the plan is of the first of several windows, and `later`
    has those of the others.
    `num_frames` is None where the weights draw pictures alone.
    """

    subjects: list[Subject]
    negative: str
    seeds: list[int]
    unit: Unit
    plan: Plan
    grid: Grid
    num_frames: int | None
    settings: DecodeSettings
    reproducible: bool
    sub_tokens: tuple[DecodeSettings, ...] = ()
    flow: FlowSettings | None = None
    given: Tensor | None = None
    later: tuple[Plan, ...] = ()

    @property
    def is_clip(self) -> bool:
        """Whether clips are drawn and not pictures."""
        return self.grid[0] > 1

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional branch."""
        return any(own.guidance.enabled for own in (self.settings, *self.sub_tokens))

    def parts(self, together: int | None = None) -> list[Request]:
        """What is decoded together: `together` pictures (default: `BATCH`), or one if reproducible.

        Args:
            together: at most `BATCH` counts.
        """
        size = 1 if self.reproducible else min(BATCH, together or BATCH)
        places = [slice(start, start + size) for start in range(0, len(self.seeds), size)]
        return [
            replace(self, subjects=self.subjects[place], seeds=self.seeds[place])
            for place in places
        ]

    def recipe(self, i: int) -> dict[str, Any]:
        """What draws picture i again, besides the weights."""
        guidance = self.settings.guidance
        subject = self.subjects[i]
        shown: dict[str, Any] = {"class_label": subject}
        if isinstance(subject, str):
            shown = {"prompt": subject, "negative_prompt": self.negative}
        elif isinstance(subject, Frames):
            shown = {"frames": subject.name, "given": subject.pixels.shape[1]}
            if subject.prompt:
                shown |= {"prompt": subject.prompt, "negative_prompt": self.negative}
        if self.num_frames is not None:
            shown["num_frames"] = self.num_frames
        return {
            **shown,
            "seed": self.seeds[i],
            "unit": self.unit.name,
            "order": self.plan.schedule.order,
            "guidance_scale": [own.guidance.scale for own in self.sub_tokens] or guidance.scale,
            "guidance_interval": None if guidance.stop is None else [guidance.start, guidance.stop],
            "guidance_ramp": guidance.ramp,
            **self._how_it_is_drawn(),
            "reproducible": self.reproducible,
        }

    def _how_it_is_drawn(self) -> dict[str, Any]:
        if self.flow is not None:
            return {"solver": self.flow.solver, "num_inference_steps": self.flow.steps}
        draw = self.settings.draw
        return {
            "temperature": [own.draw.temperature for own in self.sub_tokens] or draw.temperature,
            "top_k": draw.top_k,
            "top_p": draw.top_p,
            "min_p": draw.min_p,
        }


def subjects_of(
    prompt: str | Sequence[str] | None,
    class_labels: int | Sequence[int] | Tensor | None,
    each: int,
    frames: Tensor | Sequence[Frames] | None = None,
) -> list[Subject]:
    """What is to be drawn, every subject `each` times.

    Raises:
        UserError: several kinds of them at once, none of them, or something else.
    """
    if class_labels is not None and (prompt, frames) != (None, None):
        raise UserError(
            "Class labels go with no prompt and no frames; give one, not several of them."
        )
    if each < 1:
        raise ConfigError(f"The number of pictures of each prompt is {each}; give 1 or more.")
    if class_labels is not None:
        found: list[Subject] = list(_labels(class_labels))
    elif frames is not None:
        found = list(_told(_beginnings(frames), prompt))
    else:
        found = list(_prompts(prompt))
    return [subject for subject in found for _ in range(each)]


def _prompts(prompt: str | Sequence[str] | None) -> list[str]:
    if prompt is None:
        raise UserError("There is nothing to draw; give a prompt, or class labels.")
    if not isinstance(prompt, (str, list, tuple)) or any(not isinstance(p, str) for p in prompt):
        raise UserError(f"A prompt is a text, or a list of texts, not {prompt!r}.")
    if not prompt and not isinstance(prompt, str):
        raise UserError("The list of prompts is empty; give at least one text.")
    return [prompt] if isinstance(prompt, str) else list(prompt)


def _beginnings(frames: Tensor | Sequence[Frames]) -> Sequence[Frames]:
    import torch

    if isinstance(frames, torch.Tensor):
        if frames.ndim != 5 or frames.shape[1] != 3:
            raise UserError(
                f"Frames are a tensor (B, 3, T, H, W) in [-1, 1], not of shape "
                f"{tuple(frames.shape)}."
            )
        return [Frames("frames", clip) for clip in frames]
    if not frames or any(not isinstance(each, Frames) for each in frames):
        raise UserError("Give frames as a tensor (B, 3, T, H, W), or a list of Frames.")
    return frames


def _told(beginnings: Sequence[Frames], prompt: str | Sequence[str] | None) -> list[Frames]:
    """Each beginning with its prompt: one for all of them, or one for each."""
    if prompt is None:
        return list(beginnings)
    prompts = _prompts(prompt)
    if len(prompts) != len(beginnings) and 1 not in (len(prompts), len(beginnings)):
        raise UserError(
            f"There are {len(prompts)} prompts for {len(beginnings)} clips to go on from; give one "
            "prompt, or one for each."
        )
    count = max(len(prompts), len(beginnings))
    spread = [list(each) * (count if len(each) == 1 else 1) for each in (beginnings, prompts)]
    return [replace(clip, prompt=text) for clip, text in zip(*spread)]


def _labels(labels: int | Sequence[int] | Tensor) -> list[int]:
    plain: Any = labels.tolist() if hasattr(labels, "tolist") else labels  # of a tensor or an array
    given = list(plain) if isinstance(plain, (list, tuple, range)) else [plain]
    if not given:
        raise UserError("The list of class labels is empty; give at least one.")
    return [_label(each, labels) for each in given]


def _label(label: Any, labels: Any) -> int:
    plain = label.item() if hasattr(label, "item") else label  # of a number of NumPy
    if not isinstance(plain, int) or isinstance(plain, bool):
        raise UserError(f"Class labels are whole numbers, not {labels!r}.")
    return plain


def settings_of(
    usual: SamplingDefaults,
    sub_tokens: int = 1,
    *,
    guidance_scale: float | Sequence[float] | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_ramp: Ramp | None = None,
    temperature: float | Sequence[float] | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> tuple[DecodeSettings, ...]:
    """The settings of a call over a pipeline's defaults, for each sub-token of a code.

    Raises:
        ConfigError: no number, a value outside its range, or a list of another length.
    """
    from mmgen.sample.draw import DrawSettings
    from mmgen.sample.engine import DecodeSettings
    from mmgen.sample.guidance import Guidance

    numbers = {"guidance_scale": guidance_scale, "temperature": temperature, "top_k": top_k}
    for name, value in {**numbers, "top_p": top_p, "min_p": min_p}.items():
        _check_number(name, value)
    draw = DrawSettings(
        top_k=_first(top_k, usual.top_k),
        top_p=_first(top_p, usual.top_p),
        min_p=_first(min_p, usual.min_p),
    )
    start, stop = guidance_interval or (0.0, None)
    ramp = guidance_ramp or usual.guidance_ramp
    warmth = _first(temperature, usual.temperature)
    scales = _spread("guidance_scale", _first(guidance_scale, usual.guidance_scale), sub_tokens)
    if MOST_GUIDANCE < max(scales) < math.inf:  # and infinity, as nan, is refused below
        raise ConfigError(f"guidance_scale must be {MOST_GUIDANCE} at most, not {max(scales)}.")
    return tuple(
        DecodeSettings(replace(draw, temperature=t), Guidance(s, start, stop, ramp=ramp))
        for t, s in zip(_spread("temperature", warmth, sub_tokens), scales)
    )


def _check_number(name: str, value: Any) -> None:
    """Refuse what is neither a number nor a list of some; None is the usual one."""
    for each in value if isinstance(value, (list, tuple)) else [value]:
        if each is not None and (isinstance(each, bool) or not isinstance(each, Real)):
            raise ConfigError(f"{name} must be a number, not {each!r}.")


def _spread(name: str, value: float | Sequence[float], count: int) -> list[float]:
    """One value for each sub-token of a code, given one for all of them or a list."""
    if not isinstance(value, (list, tuple)):
        return [value] * count  # type: ignore[list-item]
    if len(value) != count:
        what = f"{count} sub-tokens" if count > 1 else "no sub-tokens"
        raise ConfigError(
            f"{name} has {len(value)} values, but a code of these weights has {what}; give one "
            f"value{f', or {count}' if count > 1 else ''}."
        )
    return list(value)


def choose_schedule(
    config: Trained,
    grid: Grid,
    unit: str | None,
    order: str | None,
    frames: int = 0,
    later: Sequence[Window] = (),
) -> tuple[Unit, Plan]:
    """Find the trained unit that can follow an order.

    A unit follows its own order, however it is spelled; one that learned fresh orders follows
    others too (`Unit.follows`).

    Args:
        config: with the units of the weights.
        grid: (t, h, w) to be decoded.
        unit: name of a unit; None: the first that fits the grid and can follow the order.
        order: None: the unit's own.
        frames: of the grid that are decided already; see `plan_for`.
        later: windows that follow this one, which a unit that nobody named must fit too.

    Raises:
        ConfigError: the unit or the order is unknown, or no unit can follow the order.
    """
    from mmgen.models.schedule import make_schedule
    from mmgen.models.units import FRESH, check_levels, plan_for

    able = tuple(each for each in config.units if each.draws(grid))
    candidates = able if unit is None else (config.unit(unit),)
    if not set(candidates) <= set(able):
        what, names = "clips" if grid[0] > 1 else "stills", ", ".join(each.name for each in able)
        raise ConfigError(f"Unit '{unit}' was not trained on {what}; choose one of {names}.")
    if unit is None:  # what does not fit the grid is no candidate
        parts = {(grid[0], frames), *((part.frames, part.given) for part in later)}
        fitting = tuple(each for each in able if _fits(each, grid, parts))
        candidates = fitting or able[:1]
    if order is None:
        return candidates[0], plan_for(candidates[0], grid, frames=frames)
    free = [each for each in candidates if each.follows(order)]
    free.sort(
        key=lambda each: each.order != order.partition(":")[0]
    )  # what was trained on it first
    if order in FRESH and free:
        return free[0], plan_for(replace(free[0], order=order), grid, frames=frames)
    wanted = make_schedule(order, grid)  # refuses an unknown order
    for each in candidates:
        if not each.fresh and _same(plan_for(each, grid).schedule, wanted):
            return each, plan_for(each, grid, frames=frames)
    if not free:
        check_levels(candidates[0], wanted)
        orders = ", ".join(each.order for each in candidates)
        where = f"unit '{unit}'" if unit else "these weights"
        raise ConfigError(f"Order '{order}' was not trained for {where}; choose one of {orders}.")
    return free[0], plan_for(replace(free[0], order=order), grid, frames=frames)


def random_seed() -> int:
    """A seed that nobody asked for."""
    import secrets

    return secrets.randbelow(2**31)


def _fits(unit: Unit, grid: Grid, parts: set[tuple[int, int]]) -> bool:
    """Whether a unit's own order can be compiled for parts of so many frames, so many given."""
    from mmgen.models.units import plan_for

    try:
        for frames, given in parts:
            plan_for(unit, (frames, *grid[1:]), frames=given)
    except ConfigError:
        return False
    return True


def _same(one: Schedule, other: Schedule) -> bool:
    return one.sizes == other.sizes and one.site.tolist() == other.site.tolist()


T = TypeVar("T")


def _first(given: T | None, usual: T) -> T:
    return usual if given is None else given
