"""The bar: only on a terminal, only for work that takes its time, never on standard output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORK = """
import sys, time
from mmgen.progress import progress_of
with progress_of("Drawing") as update:
    update(1, 4)
    time.sleep({seconds})
    update(2, 4)
    time.sleep({seconds} / 4)
print("rich" in sys.modules)
"""


def run(seconds: float, terminal: bool) -> tuple[str, str]:
    """Work so long; returns what came on standard output and on standard error."""
    reader, writer = os.openpty() if terminal else os.pipe()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", WORK.format(seconds=seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=writer, env=environment) as process:
        os.close(writer)
        told = b""
        while chunk := _read(reader):
            told += chunk
        assert process.stdout
        out = process.stdout.read().decode()
    os.close(reader)
    assert process.returncode == 0, told
    return out, told.decode()


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 4096)
    except OSError:  # a terminal whose other end was closed
        return b""


def test_long_work_shows_a_bar_on_a_terminal() -> None:
    out, told = run(1.6, terminal=True)
    assert out == "True\n" and "Drawing" in told and "50%" in told
    assert told.endswith(("\x1b[2K", "\x1b[?25h")) or "\x1b[2K" in told  # it is taken away again


@pytest.mark.parametrize(("seconds", "terminal"), [(0.1, True), (1.3, False)])
def test_short_work_and_pipes_show_nothing(seconds: float, terminal: bool) -> None:
    assert run(seconds, terminal) == ("False\n", "")
