"""The law of the loop: `kill -9` at any point and run again gives the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny_task import die_in_call, run_apart

SETTINGS: dict[str, Any] = {"steps": 24, "save_every": 3, "log_every": 2, "accumulation": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, processes: ForkServerContext) -> Path:
    """An unbroken run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    finish(processes, out)
    return out


def start(processes: ForkServerContext, out: Path, pause: float = 0.0) -> ForkServerProcess:
    arguments = (out, Path(os.devnull), {"TINY_PAUSE": str(pause)}, SETTINGS)
    process = processes.Process(target=run_apart, args=arguments)
    process.start()
    return process


def finish(processes: ForkServerContext, out: Path) -> None:
    process = start(processes, out)
    process.join(60)
    assert process.exitcode == 0


def kill(process: ForkServerProcess) -> None:
    process.kill()
    process.join(60)
    assert process.exitcode in (-signal.SIGKILL, 0)


def assert_same(out: Path, whole: Path) -> None:
    """All files of two runs are whole and equal, but for the times in the log and the paths."""
    names = [sorted(str(p.relative_to(run)) for p in run.rglob("*")) for run in (out, whole)]
    assert names[0] == names[1]
    for name in names[0]:
        if name.endswith((".safetensors", ".png")):
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    first, second = ([*timeless(run)] for run in (out, whole))
    assert first == second
    state, other = (
        json.loads((run / "checkpoints/step-24/state.json").read_text()) for run in (out, whole)
    )
    assert {**state, "recipe": 0, "window": 0} == {**other, "recipe": 0, "window": 0}
    assert load_file(out / "final" / "model.safetensors")


def log_of(out: Path) -> list[str]:
    path = out / "log.jsonl"
    return path.read_text().splitlines() if path.is_file() else []


def timeless(out: Path) -> Iterator[dict[str, Any]]:
    for line in log_of(out):
        yield {k: v for k, v in json.loads(line).items() if k not in ("seconds", "data_seconds")}


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_times(
    tmp_path: Path, processes: ForkServerContext, whole: Path, seed: int
) -> None:
    draw = random.Random(seed)
    out, kills = tmp_path / "run", 0
    while not (out / "final").is_dir():
        process = start(processes, out, pause=0.002)
        lines = draw.randint(2, 5)  # at least one more checkpoint than the time before
        while process.is_alive() and len(log_of(out)) < lines * (kills + 1):
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.03))
        kills += process.is_alive()
        kill(process)
    finish(processes, out)
    assert kills >= 1
    assert_same(out, whole)


def test_killed_while_a_checkpoint_is_written(
    tmp_path: Path, processes: ForkServerContext, whole: Path
) -> None:
    out, halves = tmp_path / "run", 0
    for _ in range(4):
        process = start(processes, out)
        while process.is_alive() and not [*out.glob("checkpoints/.partial-step*")]:
            time.sleep(0.0005)
        kill(process)
        halves += bool([*out.glob("checkpoints/.partial-step*")])
    assert halves >= 1
    finish(processes, out)
    assert_same(out, whole)


@pytest.mark.parametrize("seed", range(2))
def test_killed_between_two_system_calls(
    tmp_path: Path, processes: ForkServerContext, whole: Path, seed: int
) -> None:
    draw = random.Random(seed)
    out, deaths = tmp_path / "run", 0
    for _ in range(4):
        process = processes.Process(target=die_in_call, args=(out, draw.randint(10, 120), SETTINGS))
        process.start()
        process.join(60)
        deaths += process.exitcode == -signal.SIGKILL
        for path in out.glob("checkpoints/step-*"):  # whatever has its name is whole
            assert (path / "manifest.json").is_file()
            assert all(load_file(file) is not None for file in path.glob("*.safetensors"))
    assert deaths >= 3
    finish(processes, out)
    assert_same(out, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_ends_with_a_sentence(
    tmp_path: Path, whole: Path, processes: ForkServerContext, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    told = tmp_path / "told"
    # No checkpoint is due before the end, so the only one is the signal's.
    arguments = (out, told, {"TINY_PAUSE": "0.01"}, {**SETTINGS, "save_every": 100})
    process = processes.Process(target=run_apart, args=arguments)
    process.start()
    while process.is_alive() and len(log_of(out)) < 4:
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    last = told.read_text().splitlines()[-1]
    assert last.startswith(f"Stopped by {number.name} after step ")
    step = int(last.split(" after step ")[1].split(",")[0])
    assert step < 24
    assert (out / "checkpoints" / f"step-{step}" / "manifest.json").is_file()
    finish(processes, out)
    assert_same(out, whole)
