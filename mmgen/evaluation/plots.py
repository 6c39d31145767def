"""Training curves from a run's `log.jsonl`, drawn with Pillow alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmgen.errors import UserError
from mmgen.pen import FAINT, INK, PAPER, Pen, mix

LOG_FILE = "log.jsonl"
# Told apart by people who see few colours too (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b4c9a", "#555555")

_SPAN = 10.0  # series share a panel, and a panel is linear, while values differ less than this
_COLUMNS = 2
_WIDTH, _HEIGHT = 440, 270  # of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 34, 40  # margins inside a panel
_HEADING = 34
_SMOOTH = 40  # the strong line is a mean over about so small a part of the run


@dataclass
class Series:
    """One line of a plot: values at steps."""

    name: str
    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def read_log(run: str | Path) -> list[dict[str, Any]]:
    """Read the records of a run's log; a half-written last line is left out.

    Args:
        run: run folder, or its log file.

    Raises:
        UserError: there is no log, or it holds no record.
    """
    path = Path(run) / LOG_FILE if Path(run).is_dir() else Path(run)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give the folder of a run."
        ) from None
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the line that was being written
        if isinstance(record, dict) and "step" in record:
            records.append(record)
    if not records:
        raise UserError(f"{path} holds no record of a step; train first.")
    return records


def series_of(records: list[dict[str, Any]], *groups: str) -> list[Series]:
    """Collect the series of some groups ("losses", "metrics", "eval") of a log, by name."""
    found: dict[str, Series] = {}
    for record in records:
        for group in groups:
            for name, value in record.get(group, {}).items():
                if isinstance(value, int | float) and math.isfinite(value):
                    series = found.setdefault(name, Series(name))
                    series.steps.append(float(record["step"]))
                    series.values.append(float(value))
    return list(found.values())


def training_curves(run: str | Path, title: str | None = None) -> Image.Image:
    """Draw everything that a run has logged: losses, metrics and evaluations.

    Args:
        run: run folder, or its log file.
        title: heading (default: the folder's name, with steps, pictures and time).

    Raises:
        UserError: there is no log to draw.
    """
    records = read_log(run)
    named = title or f"{Path(run).name}: {_summary(records)}"
    parts = {
        "training loss": [series_of(records, "losses")],
        "training": _alike(series_of(records, "metrics")),
        "held out": _alike(series_of(records, "eval")),
    }
    panels = [
        panel(series, _panel_title(kind, series))
        for kind, groups in parts.items()
        for series in groups
        if series
    ]
    if not panels:
        raise UserError(f"{run} has logged no values that can be drawn.")
    return _sheet(panels, named)


def stacked(images: list[Image.Image]) -> Image.Image:
    """Put pictures below each other on white."""
    sheet = Image.new("RGB", (max(i.width for i in images), sum(i.height for i in images)), PAPER)
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    return sheet


def panel(series: list[Series], title: str) -> Image.Image:
    """Draw lines with axes, ticks and a legend.

    A logarithmic axis is taken when all values are positive and differ more than tenfold. Where
    points are many, the points are a faint line and a running mean is the strong one.

    Args:
        series: at least one, each with at least one point.
        title: above the panel.
    """
    pen = Pen(_WIDTH, _HEIGHT)
    values = [value for line in series for value in line.values]
    x = _Axis.of([0.0, *(step for line in series for step in line.steps)], _LEFT, _WIDTH - _RIGHT)
    log = min(values) > 0 and max(values) / min(values) > _SPAN
    y = _Axis.of(values, _HEIGHT - _BOTTOM, _TOP, log)
    _draw_axes(pen, x, y, title + (", logarithmic" if log else ""))
    # Room first, lines on top of it: where every corner is taken, no point is hidden.
    _draw_legend(pen, series, x, y)
    for number, line in enumerate(series):
        _draw_line(pen, line, x, y, COLOURS[number % len(COLOURS)])
    return pen.picture()


@dataclass
class _Axis:
    """From values to pixels: `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def of(cls, values: list[float], start: float, end: float, log: bool = False) -> _Axis:
        low, high = min(values), max(values)
        if log:
            return cls(low / 1.1, high * 1.1, start, end, log)
        gap = (high - low) or abs(high) or 1.0
        return cls(low if low == 0 else low - gap / 20, high + gap / 20, start, end)

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside the axis: 1, 2 or 5 times a power of ten."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            digits = (1, 2, 5) if self.high / self.low < 300 else (1,)
            marks = [digit * 10.0**power for power in powers for digit in digits]
        else:
            rough = (self.high - self.low) / 5
            unit = 10.0 ** math.floor(math.log10(rough))
            step = unit * next(s for s in (1, 2, 5, 10) if s * unit >= rough * 0.99)
            first = math.ceil(self.low / step - 1e-9)
            marks = [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [mark for mark in marks if self.low <= mark <= self.high]


def _draw_axes(pen: Pen, x: _Axis, y: _Axis, title: str) -> None:
    pen.write((_LEFT, 14), title, 12, INK, "lm")
    for mark in y.ticks():
        height = y.at(mark)
        pen.line([(x.start, height), (x.end, height)], mix(FAINT, PAPER, 0.75), 0.7)
        pen.write((x.start - 6, height), f"{mark:.4g}", 10, FAINT, "rm")
    for mark in x.ticks():
        place = x.at(mark)
        pen.line([(place, y.start), (place, y.start + 4)], FAINT, 0.7)
        pen.write((place, y.start + 11), f"{mark:.6g}", 10, FAINT)
    pen.write(((x.start + x.end) / 2, y.start + 27), "step", 10, FAINT)
    pen.line([(x.start, y.end), (x.start, y.start), (x.end, y.start)], FAINT, 1)


def _draw_line(pen: Pen, line: Series, x: _Axis, y: _Axis, colour: str) -> None:
    def points(values: list[float]) -> list[tuple[float, float]]:
        return [(x.at(step), y.at(value)) for step, value in zip(line.steps, values)]

    window = len(line.values) // _SMOOTH
    if window > 1:
        pen.line(points(line.values), mix(colour, PAPER, 0.7), 1)
        pen.line(points(_smooth(line.values, window)), colour, 1.6)
        return
    if len(line.values) > 1:
        pen.line(points(line.values), colour, 1.6)
    if len(line.values) <= _SMOOTH:
        for point in points(line.values):
            pen.disc(point, colour, radius=2)


def _smooth(values: list[float], window: int) -> list[float]:
    """Mean over `window` values on either side; fewer, but as many on both, near the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    reach = np.minimum(np.minimum(places, places[::-1]), window)
    first, last = places - reach, places + reach + 1
    means: list[float] = ((sums[last] - sums[first]) / (last - first)).tolist()
    return means


def _draw_legend(pen: Pen, series: list[Series], x: _Axis, y: _Axis) -> None:
    """Names with their last values, in the corner where the fewest points lie."""
    texts = [f"{line.name}  {line.values[-1]:.4g}" for line in series]
    wide = max(Pen(1, 1).write((0, 0), text, 10, INK, "lm") for text in texts) + 30
    high = 15 * len(series) + 2
    points = [(x.at(step), y.at(value)) for s in series for step, value in zip(s.steps, s.values)]

    def crowd(corner: tuple[float, float]) -> int:
        left, top = corner
        return sum(left - 4 <= a <= left + wide and top - 4 <= b <= top + high for a, b in points)

    lefts = (_WIDTH - _RIGHT - wide, _LEFT + 6.0)
    tops = (_TOP + 2.0, _HEIGHT - _BOTTOM - 4.0 - high)
    left, top = min(((left, top) for left in lefts for top in tops), key=crowd)
    pen.box((left, top, left + wide, top + high), PAPER, 3)
    for number, text in enumerate(texts):
        middle = top + 9 + 15 * number
        colour = COLOURS[number % len(COLOURS)]
        pen.line([(left + 4, middle), (left + 20, middle)], colour, 2.2)
        pen.write((left + 25, middle), text, 10, INK, "lm")


def _alike(series: list[Series]) -> list[list[Series]]:
    """Group series whose typical values lie within one power of ten; they share an axis."""
    groups: list[list[Series]] = []
    for line in series:
        size = abs(float(np.median(line.values)))
        for group in groups:
            other = abs(float(np.median(group[0].values)))
            if max(size, other) <= _SPAN * min(size, other) and len(group) < len(COLOURS):
                group.append(line)
                break
        else:
            groups.append([line])
    return groups


def _panel_title(kind: str, series: list[Series]) -> str:
    names = ", ".join(line.name for line in series)
    return kind if kind == "training loss" or len(names) > 40 else f"{kind}: {names}"


def _sheet(panels: list[Image.Image], heading: str) -> Image.Image:
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    pen = Pen(columns * _WIDTH, _HEADING)
    pen.write((16, _HEADING / 2 + 2), heading, 14, INK, "lm")
    sheet = Image.new("RGB", (columns * _WIDTH, _HEADING + rows * _HEIGHT), PAPER)
    sheet.paste(pen.picture(), (0, 0))
    for i, image in enumerate(panels):
        sheet.paste(image, (i % columns * _WIDTH, _HEADING + i // columns * _HEIGHT))
    return sheet


def _summary(records: list[dict[str, Any]]) -> str:
    hours = seconds_of(records) / 3600
    time = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
    return f"{records[-1]['step']} steps, {records[-1].get('samples', 0)} pictures, {time}"


def seconds_of(records: list[dict[str, Any]]) -> float:
    """Seconds of training in all: mean seconds a step times steps, line by line."""
    total, last = 0.0, 0
    for record in records:
        total += float(record.get("seconds", 0.0)) * (int(record["step"]) - last)
        last = int(record["step"])
    return total
