"""Units: the schedules that weights were trained on, by the names that users call them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmgen.config import later
from mmgen.errors import ConfigError, suggestion
from mmgen.models.plan import Input, Plan, compile_plan
from mmgen.models.schedule import Grid, make_schedule


@dataclass(frozen=True)
class Unit:
    """A schedule that the weights were trained on.

    Args:
        name: what users call it: token, block, neighbor, any.
        order: order of `models/schedule.py`; `random` alone means a fresh permutation each time.
        prediction: shift, neighbors or self.
        weight: how often training draws it.
        start: how shift decides its first block: learned, hybrid or given (`compile_plan`).
        continuous: a block is asked for by noise, not by mask tokens: it holds latents.
        directions: of heads that `neighbors` has whatever the grid is, such as "yx"
            (`compile_plan`).
    """

    name: str
    order: str
    prediction: str
    weight: float = 1.0
    start: Literal["learned", "hybrid", "given"] = later("learned")
    continuous: bool = later(False)
    directions: str = later("")

    def __post_init__(self) -> None:
        """Refuse directions that are no axes, or that nothing reads."""
        if set(self.directions) - set("tyx") or (
            self.directions and self.prediction != "neighbors"
        ):
            raise ConfigError(
                f"directions of unit '{self.name}' must be letters of tyx, for prediction "
                f"'neighbors' alone, not '{self.directions}'."
            )


def find_unit(units: tuple[Unit, ...], name: str) -> Unit:
    """The unit of that name.

    Raises:
        ConfigError: the weights were not trained on it.
    """
    for unit in units:
        if unit.name == name:
            return unit
    raise ConfigError(f"This model has no unit '{name}'{suggestion(name, [u.name for u in units])}")


def plan_for(unit: Unit, grid: Grid, seed: int = 0) -> Plan:
    """Compile a unit's schedule; a unit of order `random` draws its permutation from `seed`.

    Raises:
        ConfigError: the order or the prediction does not fit, or is for continuous latents only
            and the unit is not.
    """
    order = unit.order
    if order == "random":
        sites = grid[0] * grid[1] * grid[2]
        order = f"random:{seed}:{min(sites, max(2, round(sites**0.5)))}"
    schedule = make_schedule(order, grid)
    plan = compile_plan(
        schedule,
        unit.prediction,
        start=unit.start,
        continuous=unit.continuous,
        directions=unit.directions,
    )
    if (plan.input == Input.NOISE).any() and not unit.continuous:
        raise ConfigError(f"Order '{order}' draws continuous latents; this model draws codes.")
    return plan
