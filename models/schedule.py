"""What is decided when: the orders of a `(t, h, w)` grid of visual tokens.

A schedule cuts the grid into blocks that are decided one after the other; all slots of a block are
decided together. It knows nothing of networks: `mmgen.models.plan` turns it into rows.

Words: a *site* is a place of the grid in raster order, `(t*H + y)*W + x`; a *slot* is a place in
decoding order. Shapes: N slots, B batch.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgen.errors import ConfigError, suggestion
from mmgen.models.spellings import BUILDERS, ORDERS, Grid, check_grid, scale_arguments, size_text

__all__ = [
    "ORDERS",
    "UNITS",
    "Grid",
    "Schedule",
    "after_frames",
    "default_prediction",
    "describe",
    "grid_of",
    "grid_so_far",
    "make_schedule",
    "parse_grid",
    "to_grid",
    "to_slots",
    "unit_order",
]


#: The names of `unit=` and the order and prediction that each stands for.
UNITS = {
    "token": ("raster", "shift"),
    "block": ("row:1", "shift"),
    "neighbor": ("neighbor", "neighbors"),
    "frame": ("frame:1", "shift"),
}


@dataclass(frozen=True, eq=False)
class Schedule:
    """The slots of a grid in decoding order, cut into blocks.

    Args:
        order: the canonical spelling (`frame` becomes `frame:1`).
        grid: `(t, h, w)`.
        coords: (N, 3) float32, place `(t, y, x)` of each slot; fractions for coarse levels.
        site: (N,) int64, site of each slot, -1 for the coarse levels of `scale`.
        sizes: slots of each block, in order.
    """

    order: str
    grid: Grid
    coords: Tensor
    site: Tensor
    sizes: tuple[int, ...]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.sizes)

    @property
    def slots(self) -> int:
        """Number of slots, N."""
        return sum(self.sizes)

    @property
    def starts(self) -> tuple[int, ...]:
        """First slot of each block."""
        return (0, *accumulate(self.sizes))[:-1]

    @property
    def block_of_slot(self) -> Tensor:
        """(N,) int64, the block of each slot."""
        return torch.repeat_interleave(torch.arange(self.blocks), torch.tensor(self.sizes))


def make_schedule(order: str, grid: Grid) -> Schedule:
    """Build the schedule that `order` spells (design section 4).

    `random:seed:n` sorts the sites by the raw 64-bit draws of numpy's PCG64 of that seed (a stream
    that numpy keeps stable) and cuts them into n blocks: after block i, `1 - cos(pi/2 * i/n)` of
    the sites are decided, rounded so that no block is empty. `locality:seed:n` has blocks of the
    same sizes, near to what is decided and with sites far from each other (`models/locality.py`).

    `kept:mask:seed:n` decides the sites of a mask first, as one block, and the others as `random`
    would (see `kept_order`): what an edit keeps, and then what it draws anew.

    `interlace:s1,s2,...` decides the sites that `scale` would pick for its levels, each once.

    Args:
        order: one of `ORDERS`, with numbers for the letters.
        grid: `(t, h, w)`; a picture has t = 1.

    Raises:
        ConfigError: an unknown order, a malformed argument, or a size that the grid does not take.
    """
    check_grid(grid)
    name, arguments = _words(order)
    cut = BUILDERS[name](arguments, grid)
    return Schedule(cut.order, grid, cut.coords, cut.site, cut.sizes)


def after_frames(schedule: Schedule, frames: int) -> Schedule:
    """The same order where the first frames are decided already: they are its first block.

    Args:
        schedule: of any order but `scale`.
        frames: at the beginning of the grid, fewer than it has.

    Raises:
        ConfigError: no frame is left to decide, or the order has coarse levels.
    """
    t, h, w = schedule.grid
    if not 0 < frames < t or (schedule.site < 0).any():
        raise ConfigError(
            f"Order '{schedule.order}' cannot go on from {frames} of {t} latent frames; give from "
            f"1 to {t - 1}, with an order that has no coarse levels."
        )
    known = schedule.site < frames * h * w
    slots = torch.cat([known.nonzero()[:, 0], (~known).nonzero()[:, 0]])
    left = torch.bincount(schedule.block_of_slot[~known], minlength=schedule.blocks).tolist()
    sizes = (frames * h * w, *(size for size in left if size))
    return Schedule(
        schedule.order, schedule.grid, schedule.coords[slots], schedule.site[slots], sizes
    )


def describe(schedule: Schedule) -> str:
    """Say in one line what a schedule does: order, grid, slots, blocks and their sizes."""
    low, high = min(schedule.sizes), max(schedule.sizes)
    each = f"{low}" if low == high else f"{low} to {high}"
    blocks = "1 block" if schedule.blocks == 1 else f"{schedule.blocks} blocks"
    grid = size_text(schedule.grid)
    return f"{schedule.order} over {grid}: {schedule.slots} slots, {blocks} of {each}"


def unit_order(unit: str, grid: Grid) -> tuple[str, str]:
    """Return the order and the prediction that a unit's name stands for.

    Args:
        unit: `token`, `block`, `neighbor` or `frame`.
        grid: the grid to be decoded; it is checked, since every unit must fit it.

    Raises:
        ConfigError: an unknown unit or an impossible grid.
    """
    check_grid(grid)
    if unit not in UNITS:
        raise ConfigError(f"Unknown unit '{unit}'{suggestion(unit, UNITS)}")
    return UNITS[unit]


def default_prediction(order: str) -> str:
    """Return the prediction that an order is normally used with: shift, neighbors or self.

    Raises:
        ConfigError: an unknown order.
    """
    name, arguments = _words(order)
    if name == "neighbor":
        return "neighbors"
    single = (name, arguments) in (("cell", ["1"]), ("block", ["1x1x1"]))
    return "shift" if single or name in ("raster", "row", "run", "frame") else "self"


def parse_grid(text: str) -> Grid:
    """Read `HxW` or `TxHxW`.

    Raises:
        ConfigError: anything else.
    """
    sizes = re.fullmatch(r"(?:([0-9]{1,6})x)?([0-9]{1,6})x([0-9]{1,6})", text.strip())
    if sizes is None:
        raise ConfigError(
            f"Cannot read the grid '{text}'; write HxW or TxHxW, such as 8x8 or 4x8x8."
        )
    t, h, w = (int(size or 1) for size in sizes.groups())
    if 0 in (t, h, w):
        raise ConfigError(f"The grid '{text}' holds no tokens; give numbers from 1 up.")
    check_grid((t, h, w))
    return t, h, w


def grid_of(values: Tensor) -> Grid:
    """(t, h, w) of codes (B, t, h, w) or latents (B, t, h, w, C)."""
    t, h, w = values.shape[1:4]
    return t, h, w


def to_slots(schedule: Schedule, values: Tensor) -> Tensor:
    """Put the values of a grid into decoding order.

    Args:
        values: (B, t, h, w) codes or (B, t, h, w, C) latents; `scale` takes float latents only and
            makes its coarse levels from them, by nearest neighbour (xAR) or by area.

    Returns:
        (B, N) or (B, N, C).

    Raises:
        ConfigError: values of another grid, or codes for a `scale` order.
    """
    if tuple(values.shape[1:4]) != schedule.grid:
        got = size_text(tuple(values.shape[1:4]))
        raise ConfigError(
            f"The values' grid is {got}, the schedule's is {size_text(schedule.grid)}."
        )
    if not schedule.order.startswith("scale:"):
        return values.flatten(1, 3)[:, schedule.site.to(values.device)]
    if not values.is_floating_point() or values.ndim != 5:
        raise ConfigError(f"Order '{schedule.order}' needs latents (B, t, h, w, C), not codes.")
    sizes, area = scale_arguments(schedule.order.split(":")[1:])
    flat = values.flatten(0, 1).movedim(-1, 1)  # (B*t, C, h, w)
    mode = "area" if area else "nearest"
    levels = [F.interpolate(flat, size=(size, size), mode=mode) for size in sizes]
    batch, channels = len(values), values.shape[-1]
    levels = [level.movedim(1, -1).reshape(batch, -1, channels) for level in levels]
    return torch.cat(levels, dim=1)


def to_grid(schedule: Schedule, values: Tensor) -> Tensor:
    """Put values in decoding order back on the grid; coarse levels are dropped.

    Args:
        values: (B, N) or (B, N, C).

    Returns:
        (B, t, h, w) or (B, t, h, w, C).
    """
    fine = schedule.site >= 0
    slot_of_site = torch.argsort(schedule.site[fine]) + int((~fine).sum())
    fine_values = values[:, slot_of_site.to(values.device)]
    return fine_values.reshape(len(values), *schedule.grid, *values.shape[2:])


def grid_so_far(schedule: Schedule, values: Tensor, begun: int) -> tuple[Tensor, Tensor]:
    """Put the values of a grid in progress on it; a coarse level is spread over the whole of it.

    Args:
        values: (B, N) or (B, N, C), in decoding order.
        begun: how many of them there are so far, in whole blocks.

    Returns:
        What `to_grid` returns, and (t, h, w) bool: where it shows something.
    """
    coarse = int((schedule.site < 0).sum())
    if not 0 < begun <= coarse:
        known = torch.arange(schedule.slots) < begun
        return to_grid(schedule, values), to_grid(schedule, known[None])[0]
    t, h, w = schedule.grid
    size = schedule.sizes[int(schedule.block_of_slot[begun - 1])]
    side = math.isqrt(size // t)
    level = values[:, begun - size : begun]
    level = level.reshape(len(values), t, side, side, *values.shape[2:])
    place = torch.arange(h, device=values.device) * side // h
    return level[:, :, place[:, None], place], torch.ones(t, h, w, dtype=torch.bool)


def _words(order: str) -> tuple[str, list[str]]:
    name, *arguments = str(order).strip().split(":")
    if name not in BUILDERS:
        near = suggestion(name, BUILDERS)
        known = f"; known are: {', '.join(ORDERS)}"
        raise ConfigError(f"Unknown order '{order}'{near if 'did you mean' in near else known}")
    return name, arguments
