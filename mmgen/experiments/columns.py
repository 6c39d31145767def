"""The columns of an experiment's tables: which figure, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mmgen.evaluation.tables import number
from mmgen.experiments.losses import NATS, VELOCITY

Figures = dict[str, Any]  # of one run, or of real pictures or clips


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        head: its title.
        read: the figure of a run; None: it has none.
        real: that of real pictures or clips.
        still: that of real clips which stand still on their first frame.
        chance: what knowing nothing comes to.
        write: how a figure is written.
    """

    head: str
    read: Callable[[Figures], float | None]
    real: Callable[[Figures], float | None] = lambda _: None
    chance: Callable[[Figures], float | None] = lambda _: None
    still: Callable[[Figures], float | None] = lambda _: None
    write: Callable[[float | None], str] = number

    def cell(self, runs: Sequence[Figures]) -> str:
        """The mean over the seeds of a variant, with the lowest and the highest if they differ."""
        values = [value for value in map(self.read, runs) if value is not None]
        if not values:
            return "-"
        mean = self.write(fmean(values))
        if len(values) == 1 or min(values) == max(values):
            return mean
        return f"{mean} ({self.write(min(values))} to {self.write(max(values))})"


def picture_columns(runs: Sequence[Figures], protocol: dict[str, Any]) -> list[Column]:
    """Columns of figures of pictures.

    Args:
        runs: what was measured of every run. `protocol`: their rules.
    """
    columns = [*loss_columns(runs)]
    for name in protocol["sets"]:
        columns += _set_columns(name, protocol["data"]["concepts"])
    columns += [
        Column("steps", lambda run: float(run["steps"])),
        Column("network evaluations", lambda run: float(run["evaluations"])),
    ]
    batches = dict.fromkeys(batch for run in runs for batch in run["pictures_a_second"])
    return [*columns, *(_speed_column("pictures", batch) for batch in batches)]


def clip_columns(runs: Sequence[Figures], _protocol: dict[str, Any]) -> list[Column]:
    """Columns of figures of clips; arguments as of pictures."""
    columns = [
        *loss_columns(runs),
        _judged("frame KID", "frame_kid"),
        _judged("clip KID", "clip_kid"),
        *(_judged(f"motion, {what}", "motion", part) for what, part in _MOTION.items()),
        _judged("loop closure", "loop"),
        Column("steps a clip", lambda run: float(run["steps"])),
        Column("network evaluations", lambda run: float(run["evaluations"])),
    ]
    batches = dict.fromkeys(batch for run in runs for batch in run["frames_a_second"])
    return [*columns, *(_speed_column("frames", batch) for batch in batches)]


_MOTION = {"5 %": "low", "median": "median", "95 %": "high"}


def _judged(head: str, *path: str) -> Column:
    """A figure that real clips have, too."""

    def read(figures: Figures) -> float | None:
        value: Any = figures
        for name in path:
            value = value[name]
        return _number(value)

    return Column(head, read, lambda run: read(run["real"]), still=lambda run: read(run["still"]))


def loss_columns(runs: Sequence[Figures]) -> list[Column]:
    """One column for each kind of loss, so that no two kinds are ever compared."""
    kinds = {run["loss"]["in"] for run in runs}
    return [_loss_column(kind) for kind in (NATS, VELOCITY) if kind in kinds]


def _loss_column(kind: str) -> Column:
    def read(run: Figures, what: str) -> float | None:
        loss = run["loss"]
        return float(loss[what]) if loss["in"] == kind else None

    return Column(
        f"held-out loss, {kind}",
        lambda run: read(run, "value"),
        chance=lambda run: read(run, "uniform"),
    )


def _set_columns(name: str, concepts: int) -> list[Column]:
    def scores(which: str, tops: int) -> Column:
        return Column(
            f"{name}: concept top-{tops}",
            lambda run: float(run["sets"][name]["concept"][which]),
            lambda run: float(run["real"][name]["concept"][which]),
            lambda _: min(1.0, tops / concepts),
            write=percent,
        )

    distance = Column(
        f"{name}: KID",
        lambda run: _number(run["sets"][name]["kid"]),
        lambda run: _number(run["real"][name]["kid"]),
    )
    return [distance, scores("top1", 1), scores("top5", 5)]


def _speed_column(what: str, batch: str) -> Column:
    return Column(
        f"{what}/s, batch {batch}",
        lambda run: _number(run[f"{what}_a_second"].get(batch)),
        write=lambda value: "-" if value is None else f"{value:.3g}",
    )


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{value:.1%}"


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
