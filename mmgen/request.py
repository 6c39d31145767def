"""A checked call of a pipeline: which pictures, in which order, drawn how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmgen.errors import ConfigError

if TYPE_CHECKING:
    from mmgen.models.plan import Plan
    from mmgen.models.schedule import Grid, Schedule
    from mmgen.models.unified import UnifiedConfig, Unit
    from mmgen.sample.engine import DecodeSettings

BATCH = 64  # pictures decoded together; more would save no time and need more memory


@dataclass(frozen=True)
class Request:
    """B prompts and seeds, one schedule, one set of settings."""

    prompts: list[str]
    negative: str
    seeds: list[int]
    unit: Unit
    plan: Plan
    settings: DecodeSettings
    reproducible: bool

    def parts(self) -> list[Request]:
        """What is decoded together: `BATCH` pictures, or one if reproducible."""
        size = 1 if self.reproducible else BATCH
        places = [slice(start, start + size) for start in range(0, len(self.seeds), size)]
        return [
            replace(self, prompts=self.prompts[place], seeds=self.seeds[place]) for place in places
        ]

    def recipe(self, i: int) -> dict[str, Any]:
        """What draws picture i again, besides the weights."""
        draw, guidance = self.settings.draw, self.settings.guidance
        return {
            "prompt": self.prompts[i],
            "negative_prompt": self.negative,
            "seed": self.seeds[i],
            "unit": self.unit.name,
            "order": self.plan.schedule.order,
            "guidance_scale": guidance.scale,
            "guidance_interval": None if guidance.stop is None else [guidance.start, guidance.stop],
            "guidance_ramp": guidance.ramp,
            "temperature": draw.temperature,
            "top_k": draw.top_k,
            "top_p": draw.top_p,
            "min_p": draw.min_p,
            "reproducible": self.reproducible,
        }


def choose_schedule(
    config: UnifiedConfig, grid: Grid, unit: str | None, order: str | None
) -> tuple[Unit, Plan]:
    """Find the trained unit that can follow an order.

    A unit follows its own order, however it is spelled; one that learned fresh permutations
    (`random`) follows every order.

    Args:
        config: with the units of the weights.
        grid: (t, h, w) to be decoded.
        unit: name of a unit; None: the first that can follow the order.
        order: None: the unit's own.

    Raises:
        ConfigError: the unit or the order is unknown, or no unit can follow the order.
    """
    from mmgen.models.schedule import make_schedule
    from mmgen.models.unified import plan_for

    candidates = (config.unit(unit),) if unit else config.units
    if order is None:
        return candidates[0], plan_for(candidates[0], grid)
    free = [each for each in candidates if each.order == "random"]
    if order == "random" and free:
        return free[0], plan_for(free[0], grid)
    wanted = make_schedule(order, grid)  # refuses an unknown order
    for each in candidates:
        plan = plan_for(each, grid)
        if each not in free and _same(plan.schedule, wanted):
            return each, plan
    if not free:
        orders = ", ".join(each.order for each in candidates)
        where = f"unit '{unit}'" if unit else "these weights"
        raise ConfigError(f"Order '{order}' was not trained for {where}; choose one of {orders}.")
    return free[0], plan_for(replace(free[0], order=order), grid)


def _same(one: Schedule, other: Schedule) -> bool:
    return one.sizes == other.sizes and one.site.tolist() == other.site.tolist()
