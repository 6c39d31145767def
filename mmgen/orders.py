"""Pictures of decoding orders: every cell of the grid coloured and numbered by its step.

Cells that are decided in one step and touch are drawn as one piece. An arrow runs from the token
whose row is read to the token that it predicts (of wide blocks: one arrow for a line of cells); a
dot marks a read from the prefix, a ring a read from a learned token. Frames of a clip and levels of
`scale` stand side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from mmgen.errors import ConfigError
from mmgen.files import replacing
from mmgen.models.plan import PREFIX, Input, Plan, compile_plan
from mmgen.models.schedule import Grid, default_prediction, make_schedule
from mmgen.pen import (
    EMPTY,
    FAINT,
    INK,
    PAPER,
    Pen,
    Point,
    few_colours,
    mix,
    readable,
    save_gif,
    step_colour,
)

PITCH = 48  # pixels from cell to cell
GUTTER = 12  # pixels between cells
APART = 42  # pixels between panels
MARGIN = 20
LINE = 1000  # widest line of panels in pixels
MOST_SITES = 4096
MOST_FRAMES = 96  # of an animation


@dataclass(frozen=True)
class _Panel:
    """A frame or a level: where it lies, how far its cells are apart, and its slots by place."""

    left: float
    top: float
    pitch: float
    title: str
    slots: dict[tuple[int, int], int]  # (row, column) -> slot

    def centre(self, row: int, column: int) -> Point:
        return self.left + (column + 0.5) * self.pitch, self.top + (row + 0.5) * self.pitch


def draw_order(plan: Plan, decided: int | None = None) -> Image.Image:
    """Draw a plan.

    Args:
        plan: the compiled order.
        decided: steps that have been made; the rest of the grid is left empty. None: all.

    Returns:
        An RGB picture.

    Raises:
        ConfigError: more than 4096 cells.
    """
    _check_size(plan.schedule.slots)
    return _Drawing(plan, plan.steps if decided is None else decided).picture()


def animate_order(plan: Plan) -> list[Image.Image]:
    """Draw a plan after each of its steps, and empty; long ones skip steps evenly."""
    every = -(-plan.steps // MOST_FRAMES)
    return [draw_order(plan, n) for n in [*range(0, plan.steps, every), plan.steps]]


def save_order(
    order: str,
    grid: Grid,
    folder: Path,
    *,
    prediction: str | None = None,
    start: str = "learned",
    gif: bool = False,
) -> tuple[Plan, list[Path]]:
    """Draw an order into a folder as `ORDER-GRID.png`, and `.gif` if wanted.

    Args:
        order: a spelling of `make_schedule`.
        grid: `(t, h, w)`.
        folder: where to write; it is made.
        prediction: shift, neighbors or self; None: what the order is normally used with.
        start: of `compile_plan`.
        gif: also write the animation.

    Returns:
        The plan and the files.

    Raises:
        ConfigError: an order, grid or prediction that does not fit.
    """
    prediction = prediction or default_prediction(order)
    _check_size(math.prod(grid))  # before anything is built
    plan = compile_plan(make_schedule(order, grid), prediction, start=start)
    words = [plan.schedule.order, "x".join(map(str, grid[grid[0] == 1 :]))]
    words += [prediction] if prediction != default_prediction(order) else []
    words += [start] if start != "learned" else []
    name = "-".join(words).replace(":", "-").replace(",", "-")
    files = [folder / f"{name}.png"]
    with replacing(files[0]) as path:
        few_colours(draw_order(plan)).save(path, format="PNG", optimize=True)
    if gif:
        files.append(folder / f"{name}.gif")
        with replacing(files[1]) as path:
            save_gif(animate_order(plan), path)
    return plan, files


class _Drawing:
    """One picture in the making; lengths are in pixels of the finished picture."""

    def __init__(self, plan: Plan, decided: int) -> None:
        self.plan, self.decided = plan, decided
        self.step = [step for step, size in enumerate(plan.sizes) for _ in range(size)]
        self.panels = _panels(plan)
        width = max(p.left + max(c + 1 for _, c in p.slots) * p.pitch for p in self.panels)
        self.foot = max(p.top + max(r + 1 for r, _ in p.slots) * p.pitch for p in self.panels)
        self.pen = Pen(max(width + MARGIN, 300), self.foot + 70)

    def picture(self) -> Image.Image:
        for panel in self.panels:
            if panel.title:
                self.pen.write(
                    (panel.left + GUTTER / 2, panel.top - 9), panel.title, 11, FAINT, "lm"
                )
            self.cells(panel)
        self.marks()
        self.legend()
        return self.pen.picture()

    # -- cells ---------------------------------------------------------------------------------

    def cells(self, panel: _Panel) -> None:
        inset = GUTTER / 2
        for (row, column), slot in panel.slots.items():
            x, y = panel.left + column * panel.pitch, panel.top + row * panel.pitch
            box = (x + inset, y + inset, x + panel.pitch - inset, y + panel.pitch - inset)
            self.pen.box(box, self.fill(slot), radius=6)
        self.joints(panel)
        size = min(15.0, panel.pitch * 0.32)
        for (row, column), slot in panel.slots.items():
            if self.step[slot] < self.decided:
                colour = readable(self.fill(slot))
                self.pen.write(panel.centre(row, column), str(self.step[slot] + 1), size, colour)

    def joints(self, panel: _Panel) -> None:
        """Close the gutters between touching cells of one step, with a hairline where they meet."""
        inset, pitch = GUTTER / 2, panel.pitch
        lines: list[tuple[Point, Point, str]] = []
        for (row, column), slot in panel.slots.items():
            x, y = panel.left + column * pitch, panel.top + row * pitch
            right, below, corner = (
                self.same(panel, slot, row + i, column + j) for i, j in ((0, 1), (1, 0), (1, 1))
            )
            fill, end = self.fill(slot), pitch - inset
            pale = mix(fill, PAPER, 0.25)
            if right:
                self.pen.box((x + pitch / 2, y + inset, x + pitch * 1.5, y + end), fill)
                lines.append(((x + pitch, y + inset), (x + pitch, y + end), pale))
            if below:
                self.pen.box((x + inset, y + pitch / 2, x + end, y + pitch * 1.5), fill)
                lines.append(((x + inset, y + pitch), (x + end, y + pitch), pale))
            if right and below and corner:
                self.pen.box((x + pitch / 2, y + pitch / 2, x + pitch * 1.5, y + pitch * 1.5), fill)
                lines.append(((x + pitch, y + end), (x + pitch, y + end + GUTTER), pale))
                lines.append(((x + end, y + pitch), (x + end + GUTTER, y + pitch), pale))
        for start, stop, colour in lines:
            self.pen.line([start, stop], colour, 1.0)

    def same(self, panel: _Panel, slot: int, row: int, column: int) -> bool:
        other = panel.slots.get((row, column))
        return other is not None and self.step[other] == self.step[slot]

    def fill(self, slot: int) -> str:
        step = self.step[slot]
        return step_colour(step, self.plan.steps) if step < self.decided else EMPTY

    # -- reads ---------------------------------------------------------------------------------

    def marks(self) -> None:
        """Arrows, dots and rings: of the newest step, or of all once everything is decided."""
        if self.plan.prediction == "self":
            return
        where = {s: (p, *place) for p in self.panels for place, s in p.slots.items()}
        shown = range(self.decided - 1, self.decided)
        if self.decided == self.plan.steps:
            shown = range(self.plan.steps)
        for reads in self.plan.reads.tolist():
            for slot, row in enumerate(reads):
                if self.step[slot] not in shown:
                    continue
                if row == PREFIX or (row >= 0 and self.plan.input[row] == Input.START):
                    self.spot(where[slot], ring=row != PREFIX)
                elif row >= 0:
                    self.arrow(where[int(self.plan.source[row])], where[slot])

    def spot(self, place: tuple[_Panel, int, int], ring: bool) -> None:
        panel, row, column = place
        x, y = panel.centre(row, column)
        offset = panel.pitch / 2 - GUTTER / 2 - 8
        self.pen.disc((x - offset, y - offset), readable(step_colour(0, self.plan.steps)), ring)

    def arrow(self, source: tuple[_Panel, int, int], target: tuple[_Panel, int, int]) -> None:
        (p, r0, c0), (q, r1, c1) = source, target
        near, half = PITCH / 2 - GUTTER / 2, PITCH / 2
        (x0, y0), (x1, y1) = p.centre(r0, c0), q.centre(r1, c1)
        if p is not q:
            if (r0, c0) == (r1, c1) and y0 == y1:  # the same place of the next frame
                edge = q.left - APART, q.left
                self.pen.arrow([(edge[0] + 4, y0), (edge[1] + 1, y0)])
            elif y0 - r0 * PITCH == y1 - r1 * PITCH and (r1, c1) == (0, 0):  # on to the next frame
                middle = q.left - APART / 2
                self.pen.arrow([(x0 + near, y0), (middle, y0), (middle, y1), (x1 - near, y1)])
        elif c0 == c1 and r1 == r0 + 1:
            self.pen.arrow([(x0, y0 + near), (x1, y1 - near)])
        elif r0 == r1 and c1 == c0 + 1:
            self.pen.arrow([(x0 + near, y0), (x1 - near, y1)])
        elif c0 == c1 and r0 % (r1 - r0) == 0:
            self.across((x0 + 13, y0), (x1 + 13, y1))
        elif r0 == r1 and c0 % (c1 - c0) == 0:
            self.across((x0, y0 + 13), (x1, y1 + 13))
        elif r1 == r0 + 1 and c1 == 0:  # on to the next row
            gutter = y0 + half
            self.pen.arrow([(x0, y0 + near), (x0, gutter), (x1, gutter), (x1, y1 - near)])

    def across(self, source: Point, target: Point) -> None:
        """An arrow over cells, beside their numbers, edged so that it shows on any colour."""
        dx, dy = (9 * (b > a) for a, b in zip(source, target))
        end = (target[0] - dx, target[1] - dy)
        self.pen.disc(source, PAPER, radius=3.2)
        self.pen.arrow([source, end], edge=1)
        self.pen.disc(source, INK, radius=2.1)

    # -- legend --------------------------------------------------------------------------------

    def legend(self) -> None:
        plan, y = self.plan, self.foot + 22
        x = self.panels[0].left + GUTTER / 2
        grid = "x".join(map(str, plan.schedule.grid[plan.schedule.grid[0] == 1 :]))
        x = self.pen.write((x, y), plan.schedule.order, 16, INK, "lm") + 12
        steps = f"{plan.steps} step" + "s" * (plan.steps > 1)
        blocks = f"{plan.schedule.blocks} block" + "s" * (plan.schedule.blocks > 1)
        self.pen.write((x, y + 1), f"{grid}   {blocks}   {steps}", 12, FAINT, "lm")
        self.keys(y + 25)

    def keys(self, y: float) -> None:
        """Say what arrows, dots and rings stand for, as far as the picture has them."""
        x = self.panels[0].left + GUTTER / 2
        if self.plan.prediction == "self":
            self.pen.write((x, y), "self: a block is predicted by its own queries", 11, FAINT, "lm")
            return
        x = self.pen.write((x, y), f"{self.plan.prediction}: predicted by", 11, FAINT, "lm") + 10
        reads = self.plan.reads
        rows = reads[reads >= 0]
        kinds = self.plan.input[rows]
        if bool((reads == PREFIX).any()):
            self.pen.disc((x + 3, y), FAINT, ring=False)
            x = self.pen.write((x + 11, y), "the prefix", 11, FAINT, "lm") + 12
        if bool((kinds == Input.START).any()):
            self.pen.disc((x + 3, y), FAINT, ring=True)
            x = self.pen.write((x + 11, y), "a learned token", 11, FAINT, "lm") + 12
        if bool((kinds == Input.SLOT).any()):
            self.pen.arrow([(x, y), (x + 14, y)], FAINT)
            self.pen.write((x + 20, y), "a decided token", 11, FAINT, "lm")


def _check_size(cells: int) -> None:
    if cells > MOST_SITES:
        raise ConfigError(f"{cells} cells are too many to draw; take {MOST_SITES} at most.")


def _panels(plan: Plan) -> list[_Panel]:
    """Lay out the frames of the grid, or of every level of `scale`, in lines."""
    rows_in_all = plan.schedule.grid[1]
    side = float(PITCH * rows_in_all)
    if plan.schedule.order.startswith("scale:"):
        side = max(208.0, 26.0 * rows_in_all)  # no arrows, so smaller cells will do
    panels: list[_Panel] = []
    left, top = float(MARGIN), float(MARGIN)
    for (rows, columns), title, slots in _sheets(plan):
        pitch = side / rows
        if left > MARGIN and left + columns * pitch > LINE:
            left, top = float(MARGIN), top + side + APART
        drop = 18 if title else 0
        panels.append(_Panel(left, top + drop, pitch, title, slots))
        left += columns * pitch + APART
    return panels


def _sheets(plan: Plan) -> list[tuple[tuple[int, int], str, dict[tuple[int, int], int]]]:
    """Each panel's rows and columns, title, and slot at each place."""
    schedule = plan.schedule
    t, h, w = schedule.grid
    sizes = [(h, w)]
    if schedule.order.startswith("scale:"):
        sizes = [(side, side) for side in (math.isqrt(n // t) for n in schedule.sizes)]
    fine = schedule.site >= 0
    # Levels lie in raster order one after the other; only a single grid is in another order.
    slot_of_site = (torch.argsort(schedule.site[fine]) + int((~fine).sum())).tolist()
    order = [*range(int((~fine).sum())), *slot_of_site]
    sheets = []
    for rows, columns in sizes:
        for frame in range(t):
            words = [f"{rows}x{columns}"] * (len(sizes) > 1) + [f"frame {frame + 1}"] * (t > 1)
            places = [(row, column) for row in range(rows) for column in range(columns)]
            sheets.append(((rows, columns), ", ".join(words), dict(zip(places, order))))
            order = order[rows * columns :]
    return sheets
