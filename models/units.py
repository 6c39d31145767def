"""Units: the schedules that weights were trained on, by the names that users call them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from mmgen.config import later
from mmgen.errors import ConfigError, suggestion
from mmgen.models.plan import Input, Plan, compile_plan
from mmgen.models.schedule import Grid, Schedule, after_frames, make_schedule

#: Orders that need no seed in a unit: it draws one afresh each time, with about the root of the
#: number of sites as its number of blocks.
FRESH = ("random", "locality")


@dataclass(frozen=True)
class Unit:
    """A schedule that the weights were trained on.

    Args:
        name: what users call it: token, block, neighbor, any.
        order: order of `models/schedule.py`; `random` or `locality` alone means a fresh one each
            time.
        prediction: shift, neighbors or self.
        weight: how often training draws it.
        start: how shift decides its first block: learned, hybrid or given (`compile_plan`).
        continuous: a block is asked for by noise, not by mask tokens: it holds latents.
        directions: of heads that `neighbors` has whatever the grid is, such as "yx"
            (`compile_plan`).
        of: what it draws, where weights draw both stills and clips.
    """

    name: str
    order: str
    prediction: str
    weight: float = 1.0
    start: Literal["learned", "hybrid", "given"] = later("learned")
    continuous: bool = later(False)
    directions: str = later("")
    of: Literal["both", "stills", "clips"] = later("both")

    def __post_init__(self) -> None:
        """Refuse directions that are no axes, or that nothing reads."""
        if set(self.directions) - set("tyx") or (
            self.directions and self.prediction != "neighbors"
        ):
            raise ConfigError(
                f"directions of unit '{self.name}' must be letters of tyx, for prediction "
                f"'neighbors' alone, not '{self.directions}'."
            )

    def draws(self, grid: Grid) -> bool:
        """Whether it was trained on stills, or on clips, like those of a grid."""
        return self.of == "both" or (self.of == "clips") == (grid[0] > 1)

    @property
    def fresh(self) -> bool:
        """Whether every draw of the unit is of another order."""
        return self.order in FRESH

    def follows(self, order: str) -> bool:
        """Whether weights that learned this unit's fresh orders can follow another one.

        Those of `random` follow every order of the grid's own sites, those of `locality` every
        `locality:seed:n`. The coarse levels of `scale` are told by parameters of their own, which
        only units of such orders train.
        """
        kind = order.partition(":")[0]
        return (self.order == "random" and kind != "scale") or (self.fresh and kind == self.order)


def find_unit(units: tuple[Unit, ...], name: str) -> Unit:
    """The unit of that name.

    Raises:
        ConfigError: the weights were not trained on it.
    """
    for unit in units:
        if unit.name == name:
            return unit
    raise ConfigError(f"This model has no unit '{name}'{suggestion(name, [u.name for u in units])}")


def plan_for(unit: Unit, grid: Grid, seed: int = 0, frames: int = 0) -> Plan:
    """Compile a unit's schedule; one of fresh orders draws its own from `seed`.

    Args:
        unit: the schedule.
        grid: (t, h, w).
        seed: of a permutation.
        frames: of the grid, at its beginning, that are decided already: the first
            `frames * h * w` slots are theirs.

    Raises:
        ConfigError: the order or the prediction does not fit, is for continuous latents only and
            the unit is not, or has no step that ends with the frames that are decided.
    """
    order = unit.order
    if unit.fresh:
        sites = grid[0] * grid[1] * grid[2]
        order = f"{order}:{seed}:{min(sites, max(2, round(sites**0.5)))}"
    schedule = make_schedule(order, grid)
    if frames and unit.prediction != "shift":  # whose blocks are equal, and frames the first ones
        schedule = after_frames(schedule, frames)
    plan = compile_plan(
        schedule,
        unit.prediction,
        start=unit.start,
        continuous=unit.continuous,
        directions=unit.directions,
    )
    if (plan.input == Input.NOISE).any():
        check_levels(unit, schedule)
    _check_frames(plan, frames)
    return plan


def check_levels(unit: Unit, schedule: Schedule) -> None:
    """Refuse coarse levels for a unit of codes.

    Raises:
        ConfigError: the unit is not continuous, and the schedule has coarse levels.
    """
    if unit.continuous or not (schedule.site < 0).any():
        return
    twin = schedule.order.replace("scale", "interlace").removesuffix(":area")
    raise ConfigError(
        f"Order '{schedule.order}' draws coarse levels of continuous latents, and this model draws "
        f"codes, which have none; take '{twin}', which decides the same places from coarse to "
        "fine, each once."
    )


def _check_frames(plan: Plan, frames: int) -> None:
    t, h, w = plan.schedule.grid
    given = frames * h * w
    first = set(plan.schedule.site[:given].tolist())
    if frames and (first != set(range(given)) or given not in accumulate(plan.sizes)):
        raise ConfigError(
            f"Order '{plan.schedule.order}' over {t} latent frames has no step that ends with the "
            f"first {frames}; give another number of frames, or choose another unit."
        )
