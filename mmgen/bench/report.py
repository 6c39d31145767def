"""Measurements of drawing as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmgen.bench.machine import Machine
from mmgen.bench.sampling import Figures

COLUMNS = ("weights", "batch", "pictures/s", "s", "CPU s", "ms/step", "GB/s", "of RAM", "peak MB")


@dataclass(frozen=True)
class Report:
    """Figures of one pipeline on one machine.

    Args:
        pipeline: its name.
        parameters: of the transformer.
        settings: of the calls.
        machine: where it was.
        figures: the first is what the others are compared with, batch by batch.
        decoding_seconds: from codes to pixels, one picture.
    """

    pipeline: str
    parameters: int
    settings: dict[str, Any]
    machine: Machine
    figures: Sequence[Figures]
    decoding_seconds: float

    def speed(self, figures: Figures) -> float:
        """How many times as fast as the first way of storing weights at the same batch."""
        first = next(each for each in self.figures if each.batch == figures.batch)
        return first.seconds / figures.seconds

    def lines(self) -> list[str]:
        """The report in words and columns."""
        there = self.machine
        busy = "" if there.busy is None else f", load {there.busy:g}"
        rows = [(*COLUMNS, "speed"), *map(self._row, self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        table = ["  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths)) for row in rows]
        said = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return [
            f"{there.processor}, {there.threads} threads{busy}; "
            f"mmgen {there.mmgen}, torch {there.torch}",
            f"memory is read at {there.read_gb_s:.1f} GB/s",
            f"{self.pipeline}: {self.parameters / 1e6:.1f} M parameters, "
            f"{self.figures[0].steps} steps{', ' * bool(said)}{said}",
            *table,
            f"codes to pixels: {self.decoding_seconds:.3f} s a picture, not in the above",
        ]

    def described(self) -> dict[str, Any]:
        """The report as JSON takes it: seconds, bytes, and what follows from them."""
        return {
            "pipeline": self.pipeline,
            "parameters": self.parameters,
            "settings": self.settings,
            "machine": asdict(self.machine),
            "sampling": [
                {
                    **asdict(each),
                    "pictures_a_second": each.pictures_a_second,
                    "step_seconds": each.step_seconds,
                    "gb_s": each.gb_s,
                    "share_of_memory_speed": each.gb_s / self.machine.read_gb_s,
                    "speed": self.speed(each),
                }
                for each in self.figures
            ],
            "decoding_seconds": self.decoding_seconds,
        }

    def _row(self, each: Figures) -> tuple[str, ...]:
        return (
            each.weights,
            str(each.batch),
            f"{each.pictures_a_second:.3f}",
            f"{each.seconds:.3f}",
            f"{each.processor_seconds:.3f}",
            f"{1000 * each.step_seconds:.1f}",
            f"{each.gb_s:.1f}",
            f"{each.gb_s / self.machine.read_gb_s:.0%}",
            f"{each.peak_bytes / 1e6:.0f}",
            f"{self.speed(each):.2f}",
        )
