"""The spelled orders: each cuts a `(t, h, w)` grid into blocks, from its arguments.

A builder takes the words after the first colon and the grid; `mmgen.models.schedule` is the way in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.locality import near_and_apart

Grid = tuple[int, int, int]

#: Every spelling, for messages and for the command line.
ORDERS = (
    "raster",
    "row:k",
    "frame:k",
    "cell:k",
    "whole",
    "block:AxBxC",
    "run:k",
    "neighbor",
    "subsample:k",
    "random:seed:n",
    "locality:seed:n",
    "kept:mask:seed:n",
    "interlace:s1,s2,...",
    "scale:s1,s2,...",
)


class Cut(NamedTuple):
    """Slots in decoding order: canonical spelling, (N, 3) places, (N,) sites, sizes of blocks."""

    order: str
    coords: Tensor
    site: Tensor
    sizes: tuple[int, ...]


def check_grid(grid: Grid) -> None:
    """Raise ConfigError unless the grid is three whole numbers from 1 up."""
    if len(grid) != 3 or any(not isinstance(size, int) or size < 1 for size in grid):
        raise ConfigError(f"The grid must be three whole numbers from 1 up, not {size_text(grid)}.")


def size_text(grid: tuple[int, ...]) -> str:
    """Write a grid as in `1x8x8`."""
    return "x".join(str(size) for size in grid)


def scale_arguments(arguments: list[str]) -> tuple[list[int], bool]:
    """Read the sizes of a `scale` order and whether it averages areas.

    Raises:
        ConfigError: malformed sizes or another way of resizing.
    """
    sizes = arguments[0].split(",") if arguments else []
    if len(arguments) > 2 or arguments[1:] not in ([], ["nearest"], ["area"]):
        order = ":".join(["scale", *arguments])
        raise ConfigError(f"Order '{order}' may end with ':nearest' or ':area' only.")
    count = max(1, len(sizes))
    levels = _numbers("scale", sizes, "scale:s1,s2,...", count=count, said=arguments[:1])
    return levels, arguments[1:] == ["area"]


def _raster(arguments: list[str], grid: Grid) -> Cut:
    _numbers("raster", arguments, "raster", count=0)
    return _cuboids("raster", (1, 1, 1), grid)


def _whole(arguments: list[str], grid: Grid) -> Cut:
    _numbers("whole", arguments, "whole", count=0)
    return _cuboids("whole", grid, grid)


def _row(arguments: list[str], grid: Grid) -> Cut:
    (k,) = _numbers("row", arguments or ["1"], "row:k")
    return _cuboids(f"row:{k}", (1, k, grid[2]), grid)


def _frame(arguments: list[str], grid: Grid) -> Cut:
    (k,) = _numbers("frame", arguments or ["1"], "frame:k")
    return _cuboids(f"frame:{k}", (k, grid[1], grid[2]), grid)


def _cell(arguments: list[str], grid: Grid) -> Cut:
    (k,) = _numbers("cell", arguments, "cell:k")
    return _cuboids(f"cell:{k}", (1, k, k), grid)


def _block(arguments: list[str], grid: Grid) -> Cut:
    sizes = arguments[0].split("x") if len(arguments) == 1 else []
    a, b, c = _numbers("block", sizes, "block:AxBxC", count=3, said=arguments)
    return _cuboids(f"block:{a}x{b}x{c}", (a, b, c), grid)


def _run(arguments: list[str], grid: Grid) -> Cut:
    (k,) = _numbers("run", arguments, "run:k")
    n = math.prod(grid)
    _must_divide(f"run:{k}", k, n, f"the {n} sites", grid)
    return _from_sites(f"run:{k}", grid, torch.arange(n), (k,) * (n // k))


def _neighbor(arguments: list[str], grid: Grid) -> Cut:
    _numbers("neighbor", arguments, "neighbor", count=0)
    distance = _coords(torch.arange(math.prod(grid)), grid).sum(1).long()
    sizes = torch.bincount(distance).tolist()
    return _from_sites("neighbor", grid, torch.argsort(distance, stable=True), sizes)


def _subsample(arguments: list[str], grid: Grid) -> Cut:
    _, h, w = grid
    if len(arguments) == 1 and "x" in arguments[0]:
        down, across = _numbers(
            "subsample", arguments[0].split("x"), "subsample:BxC", count=2, said=arguments
        )
    else:
        (down,) = (across,) = _numbers("subsample", arguments, "subsample:k")
    order = f"subsample:{down}" if down == across else f"subsample:{down}x{across}"
    if down > h or across > w:
        most = f"k can be 1 to {min(h, w)}" if down == across else f"the most is {h}x{w}"
        raise ConfigError(f"Order '{order}' leaves blocks empty on grid {size_text(grid)}; {most}.")
    _, y, x = _coords(torch.arange(math.prod(grid)), grid).long().unbind(1)
    remainder = (y % down) * across + x % across
    sizes = torch.bincount(remainder).tolist()
    return _from_sites(order, grid, torch.argsort(remainder, stable=True), sizes)


def _random(arguments: list[str], grid: Grid) -> Cut:
    order, shuffled, sizes = _seeded("random", arguments, grid)
    return _from_sites(order, grid, shuffled, sizes)


def _locality(arguments: list[str], grid: Grid) -> Cut:
    order, shuffled, sizes = _seeded("locality", arguments, grid)
    return _from_sites(order, grid, near_and_apart(shuffled, sizes, grid), sizes)


def _seeded(name: str, arguments: list[str], grid: Grid) -> tuple[str, Tensor, list[int]]:
    """Spelling, shuffled sites and sizes of an order of a seed and a number of blocks."""
    seed, blocks = _numbers(name, arguments, f"{name}:seed:n", count=2, lowest=(0, 1))
    n, order = math.prod(grid), f"{name}:{seed}:{blocks}"
    if blocks > n:
        raise ConfigError(
            f"Order '{order}' asks for more blocks than the {n} sites of grid {size_text(grid)}; "
            f"n can be 1 to {n}."
        )
    return order, _shuffle(seed, n), _cosine_sizes(n, blocks)


def kept_order(kept: Tensor, seed: int, blocks: int | None = None) -> str:
    """Spell the order that has some sites first, as one block, and the others in random order.

    Args:
        kept: (t, h, w) bool; they are what an edit keeps.
        seed: of the order of the others.
        blocks: that these are cut into; None: about the root of their number.
    """
    bits = "".join("1" if bit else "0" for bit in kept.flatten().tolist())
    digits = -(-len(bits) // 4)
    mask = f"{int(bits.ljust(4 * digits, '0'), 2):0{digits}x}"
    others = bits.count("0")
    return f"kept:{mask}:{seed}:{blocks or max(1, round(others**0.5))}"


def _kept(arguments: list[str], grid: Grid) -> Cut:
    spelling, n = "kept:mask:seed:n", math.prod(grid)
    order, digits = ":".join(["kept", *arguments]), -(-n // 4)
    if not arguments or not re.fullmatch(f"[0-9a-f]{{{digits}}}", arguments[0]):
        raise ConfigError(
            f"Order '{order}' is not of the form '{spelling}' with a mask of {digits} hexadecimal "
            f"digits, a bit for each of the {n} sites of grid {size_text(grid)}."
        )
    seed, blocks = _numbers("kept", arguments[1:], spelling, count=2, lowest=(0, 1), said=arguments)
    bits = f"{int(arguments[0], 16):0{4 * digits}b}"
    kept = torch.tensor([bit == "1" for bit in bits[:n]])
    first, others = kept.nonzero().squeeze(1), (~kept).nonzero().squeeze(1)
    if not len(first) or blocks > len(others) or "1" in bits[n:]:
        raise ConfigError(
            f"Order '{order}' keeps {len(first)} of the {n} sites of grid {size_text(grid)} and "
            f"cuts the others into {blocks} blocks; keep one or more, and leave one for each block."
        )
    shuffled = others[_shuffle(seed, len(others))]
    sizes = [len(first), *_cosine_sizes(len(others), blocks)]
    return _from_sites(
        f"kept:{arguments[0]}:{seed}:{blocks}", grid, torch.cat([first, shuffled]), sizes
    )


def _scale(arguments: list[str], grid: Grid) -> Cut:
    sizes, area = scale_arguments(arguments)
    t, h, _ = grid
    order = f"scale:{','.join(map(str, sizes))}" + (":area" if area else "")
    _check_levels(order, sizes, grid)
    coords = torch.cat([_coords(torch.arange(t * s * s), (t, s, s)) for s in sizes])
    counts = [t * s * s for s in sizes]
    spacing = torch.repeat_interleave(h / torch.tensor(sizes), torch.tensor(counts))
    # The centre of cell i of s cells over h sites lies at (i + 1/2) * h/s - 1/2.
    coords[:, 1:] = (coords[:, 1:] + 0.5) * spacing[:, None] - 0.5
    site = torch.full((sum(counts),), -1)
    site[-counts[-1] :] = torch.arange(counts[-1])
    return Cut(order, coords, site, tuple(counts))


def _interlace(arguments: list[str], grid: Grid) -> Cut:
    words = arguments[0].split(",") if len(arguments) == 1 else []
    count = max(1, len(words))
    sizes = _numbers("interlace", words, "interlace:s1,s2,...", count=count, said=arguments)
    order = f"interlace:{','.join(map(str, sizes))}"
    _check_levels(order, sizes, grid)
    side = grid[1]
    level = torch.full((side, side), len(sizes) - 1)
    for number, size in reversed(list(enumerate(sizes))):
        picked = torch.arange(size) * side // size  # as resizing by nearest neighbour does
        level[picked[:, None], picked] = number
    level = level.expand(grid).flatten()
    counts = torch.bincount(level).tolist()
    return _from_sites(order, grid, torch.argsort(level, stable=True), counts)


# ---- helpers ---------------------------------------------------------------------------------


def _check_levels(order: str, sizes: list[int], grid: Grid) -> None:
    if grid[1] != grid[2]:
        raise ConfigError(f"Order '{order}' needs a square grid, not {size_text(grid)}.")
    side, name = grid[1], order.partition(":")[0]
    if sizes[-1] != side or any(a >= b for a, b in pairwise(sizes)):
        raise ConfigError(
            f"The sizes of order '{order}' must rise and end with the grid's {side}, "
            f"as in '{name}:{','.join(map(str, _halvings(side)))}'."
        )


def _cuboids(order: str, block: Grid, grid: Grid) -> Cut:
    """Cut the grid into cuboids, raster inside and among them."""
    for size, whole, axis in zip(block, grid, ("frames", "rows", "columns")):
        _must_divide(order, size, whole, f"the {whole} {axis}", grid)
    (a, b, c), (t, h, w) = block, grid
    site = torch.arange(t * h * w).view(t // a, a, h // b, b, w // c, c)
    site = site.permute(0, 2, 4, 1, 3, 5).reshape(-1)
    return _from_sites(order, grid, site, (a * b * c,) * (t * h * w // (a * b * c)))


def _from_sites(order: str, grid: Grid, site: Tensor, sizes: list[int] | tuple[int, ...]) -> Cut:
    return Cut(order, _coords(site, grid), site, tuple(sizes))


def _coords(site: Tensor, grid: Grid) -> Tensor:
    _, h, w = grid
    place = (site // (h * w), site // w % h, site % w)
    return torch.stack(place, dim=1).float()  # (N, 3)


def _shuffle(seed: int, n: int) -> Tensor:
    draws = np.random.PCG64(seed).random_raw(n)
    return torch.from_numpy(np.argsort(draws, kind="stable").astype(np.int64))


def _cosine_sizes(n: int, blocks: int) -> list[int]:
    ends = [0]
    for i in range(1, blocks + 1):
        wanted = round(n * (1 - math.cos(math.pi / 2 * i / blocks)))
        # At least one slot for this block, and one left for each later block.
        ends.append(max(ends[-1] + 1, min(wanted, n - (blocks - i))))
    return [b - a for a, b in pairwise(ends)]


def _numbers(
    name: str,
    words: list[str],
    spelling: str,
    *,
    count: int = 1,
    lowest: tuple[int, ...] | None = None,
    said: list[str] | None = None,
) -> list[int]:
    """Read `count` whole numbers, each at least 1 (or `lowest`); `said` is what the user wrote."""
    lowest = lowest or (1,) * count
    whole = [word for word in words if re.fullmatch(r"[0-9]{1,18}", word)]
    numbers = [int(word) for word in whole]
    if not len(words) == len(whole) == count or any(a < b for a, b in zip(numbers, lowest)):
        order = ":".join([name, *(words if said is None else said)])
        if count == 0:
            raise ConfigError(f"Order '{order}' takes no argument; write '{spelling}'.")
        rule = "whole numbers" if 0 in lowest else "whole numbers from 1 up"
        raise ConfigError(f"Order '{order}' is not of the form '{spelling}' with {rule}.")
    return numbers


def _must_divide(order: str, size: int, whole: int, what: str, grid: Grid) -> None:
    if whole % size:
        fits = ", ".join(str(k) for k in range(1, whole + 1) if whole % k == 0)
        raise ConfigError(
            f"Order '{order}': blocks of {size} do not divide {what} of grid {size_text(grid)}; "
            f"sizes that divide are {fits}."
        )


def _halvings(size: int) -> list[int]:
    sizes = [size]
    while sizes[0] % 2 == 0:
        sizes.insert(0, sizes[0] // 2)
    return sizes


#: First word of an order -> how to build it from its arguments and the grid.
BUILDERS: dict[str, Callable[[list[str], Grid], Cut]] = {
    "raster": _raster,
    "row": _row,
    "frame": _frame,
    "cell": _cell,
    "whole": _whole,
    "block": _block,
    "run": _run,
    "neighbor": _neighbor,
    "subsample": _subsample,
    "random": _random,
    "locality": _locality,
    "kept": _kept,
    "interlace": _interlace,
    "scale": _scale,
}
