"""What a run tells: `log.jsonl` with each step once, running means, progress on the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from mmgen.files import write_text


class Means:
    """Running means of named values in groups; tensors stay on their device until they are asked.

    The sums can be stored and restored, so that a log line is the same after a resume.
    """

    def __init__(self, state: dict[str, dict[str, list[float]]] | None = None) -> None:
        self._sums: dict[str, dict[str, tuple[Tensor | float, int]]] = {
            group: {name: (pair[0], int(pair[1])) for name, pair in values.items()}
            for group, values in (state or {}).items()
        }

    def add(self, group: str, name: str, value: Tensor | float) -> None:
        """Add one value (a scalar) to the mean `name` of `group`."""
        if isinstance(value, Tensor):
            value = value.detach().float()
        total, count = self._sums.setdefault(group, {}).get(name, (0.0, 0))
        self._sums[group][name] = (total + value, count + 1)

    def means(self) -> dict[str, dict[str, float]]:
        """Return the mean of every value by group."""
        return {
            group: {name: total / count for name, (total, count) in values.items()}
            for group, values in self.state().items()
        }

    def state(self) -> dict[str, dict[str, list[Any]]]:
        """Return sums and counts as plain data."""
        return {
            group: {name: [float(total), count] for name, (total, count) in values.items()}
            for group, values in self._sums.items()
        }


class RunLog:
    """The file `log.jsonl`: one JSON object a line, one line a step.

    Args:
        path: the file; lines of an earlier run past `last_step` and a half-written last line are
            dropped.
        last_step: step of the checkpoint from which the run goes on (0: from the start).
    """

    def __init__(self, path: Path, last_step: int) -> None:
        kept = [line for line, step in _lines(path) if step <= last_step]
        write_text(path, "".join(f"{line}\n" for line in kept))
        self._path = path

    def write(self, record: dict[str, Any]) -> None:
        """Append one record and hand it to the system at once."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(record)) + "\n")


class Reporter:
    """Progress for people: a bar on a terminal, plain lines elsewhere.

    Args:
        steps: steps of the whole run.
        quiet: say nothing (processes other than the main one).
    """

    def __init__(self, steps: int, quiet: bool = False) -> None:
        self._console = Console(quiet=quiet, soft_wrap=True, highlight=False, markup=False)
        self._steps = steps
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
        )
        self._bar = Progress(*columns, console=self._console)
        self._task = self._bar.add_task("training", total=steps, values="")

    @contextmanager
    def live(self, step: int) -> Iterator[None]:
        """Show the bar from `step` on while the block runs."""
        self._bar.reset(self._task, completed=step)
        if not self._console.is_terminal:
            yield
            return
        with self._bar:
            yield

    def advance(self, step: int) -> None:
        """Move the bar to `step`."""
        self._bar.update(self._task, completed=step)

    def report(self, record: dict[str, Any]) -> None:
        """Show the numbers of a log line."""
        words = [f"{name} {value:.4g}" for name, value in record["losses"].items()]
        words.append(f"lr {record['lr']:.3g}")
        if self._console.is_terminal:
            self._bar.update(self._task, values="  ".join(words))
        else:
            left = (self._steps - record["step"]) * record["seconds"]
            pace = f"{record['seconds']:.3g} s/step  {_duration(left)} left"
            self.say(f"step {record['step']}/{self._steps}  {'  '.join(words)}  {pace}")
        if "eval" in record:
            values = [f"{name} {value:.4g}" for name, value in record["eval"].items()]
            self.say(f"step {record['step']}  evaluation: {'  '.join(values)}")

    def say(self, text: str) -> None:
        """Print a sentence above the bar."""
        self._console.print(text)


def _lines(path: Path) -> Iterator[tuple[str, int]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield line, int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue  # the line that was being written when the process was killed


def _finite(value: Any) -> Any:
    # JSON knows neither NaN nor infinity (the PSNR of equal pictures).
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
