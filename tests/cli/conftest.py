"""Runs `mmgen` as users do, on a tiny pipeline with random weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))
from tiny_drawing import conditional_pipeline
from tiny_pipeline import tiny_pipeline, write_pictures

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1"}
ENVIRONMENT = {**os.environ, **PLAIN, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


@dataclass
class Done:
    """A finished command: exit code and what it wrote."""

    code: int
    out: str
    err: str


@dataclass
class Running:
    """A command that was started."""

    pid: int
    out: Path
    err: Path


class Commands:
    """Starts commands through `zygote.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self._answer() == "ready"

    def __call__(self, *words: object, cwd: Path, plain: bool = False) -> Done:
        """Run a command to its end; `plain` lets file permissions bind it even if root runs it."""
        return self.finish(self.start(*words, cwd=cwd, plain=plain))

    def start(self, *words: object, cwd: Path, plain: bool = False) -> Running:
        """Start a command."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        out, err = place / "out", place / "err"
        said = {"words": [str(w) for w in words], "out": str(out), "err": str(err)}
        return Running(int(self._ask({**said, "cwd": str(cwd), "plain": plain})), out, err)

    def finish(self, running: Running) -> Done:
        """Wait for a command."""
        code = int(self._ask({"wait": running.pid}))
        return Done(
            code, *(path.read_text(encoding="utf-8") for path in (running.out, running.err))
        )

    def _ask(self, request: dict[str, Any]) -> str:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        """End the process that starts them."""
        self.process.communicate()


@pytest.fixture(scope="session")
def mmgen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs `mmgen WORDS` in a process forked from one that has imported PyTorch."""
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


def run_python(*words: object, cwd: Path) -> Done:
    """Run `python WORDS` in a process of its own."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def python() -> Any:
    """`run_python`: for what must be measured from the start of a process."""
    return run_python


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pipeline with random weights."""
    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pipeline that draws classes, with random weights."""
    folder = tmp_path_factory.mktemp("pipelines") / "classes"
    conditional_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set of twelve pictures."""
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")
