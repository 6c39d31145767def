"""Stills of weights that may draw clips too: figures of pictures are of these alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmgen.errors import UserError, suggestion
from mmgen.lengths import learned_stills

if TYPE_CHECKING:
    from mmgen.models.schedule import Grid
    from mmgen.models.unified import Unit
    from mmgen.pipeline import Pipeline


def still_grid(pipeline: Pipeline) -> Grid:
    """The grid (1, h, w) of a picture.

    Raises:
        UserError: the weights were trained on clips alone.
    """
    if not learned_stills(pipeline):
        raise UserError(
            f"The weights of '{pipeline.info.name}' were trained on clips alone, and pictures are "
            "measured here; name weights that draw stills."
        )
    return (1, *pipeline.transformer.config.grid[1:])


def still_units(pipeline: Pipeline) -> dict[str, Unit]:
    """The units that draw pictures, by name; see `still_grid`."""
    grid = still_grid(pipeline)
    return {unit.name: unit for unit in pipeline.transformer.config.units if unit.draws(grid)}


def still_unit(pipeline: Pipeline, name: str) -> Unit:
    """The unit of that name.

    Raises:
        UserError: the weights draw no stills with it.
    """
    units = still_units(pipeline)
    if name in units:
        return units[name]
    if any(unit.name == name for unit in pipeline.transformer.config.units):
        known = ", ".join(units)
        raise UserError(f"Unit '{name}' was trained on clips alone; choose one of {known}.")
    raise UserError(f"The weights have no unit '{name}'{suggestion(name, units)}")
