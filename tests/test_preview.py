"""Pictures in progress: half blocks, grey cells, parts of a call, and animations."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from tiny_pipeline import tiny_pipeline

from mmgen import Pipeline
from mmgen.preview import FRAMES, Growth, half_blocks, in_progress, shows_colour
from mmgen.sample.engine import Step
from mmgen.unfolding import FinishedFrames
from tests.tiny_clip_pipeline import tiny_clips


class Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline()


def test_half_blocks_are_the_pixels() -> None:
    colours = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
    lines = half_blocks(Image.fromarray(colours), 80, 24)
    assert len(lines) == 2 and all(line.endswith("\x1b[0m") for line in lines)
    found = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+)m\x1b\[48;2;(\d+);(\d+);(\d+)m▀", lines[1])
    assert np.array(found, dtype=int).reshape(3, 2, 3).transpose(1, 0, 2).tolist() == (
        colours[2:].tolist()
    )


@pytest.mark.parametrize(("columns", "lines"), [(10, 50), (80, 4), (1, 1)])
def test_half_blocks_fit_the_terminal(columns: int, lines: int) -> None:
    drawn = half_blocks(Image.new("RGB", (64, 64)), columns, lines)
    assert 1 <= len(drawn) <= lines and all(line.count("▀") <= columns for line in drawn)


def test_what_is_not_decided_is_grey(pipe: Pipeline) -> None:
    steps = list(pipe.stream("a cat", unit="block", seed=1))
    (early,), (late,) = in_progress(pipe, steps[0]), in_progress(pipe, steps[-1])
    assert (np.asarray(early)[4:] == 128).all() and (np.asarray(early)[:4] != 128).any()
    assert np.array_equal(late, pipe.render(steps[-1].codes)[0])


def test_colour_needs_a_terminal_that_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shows_colour(Terminal()) and not shows_colour(io.StringIO())
    old = Terminal()
    old.encoding = "ascii"  # type: ignore[misc]
    assert not shows_colour(old)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not shows_colour(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not shows_colour(Terminal())


def test_the_terminal_shows_the_picture_in_place(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "40")
    terminal = Terminal()
    output = pipe("a cat", unit="block", seed=1, watch=Growth(pipe, 1, terminal, False).watch)
    shown = terminal.getvalue().split("\x1b[9F\x1b[J")  # 8 lines of 16 pixels, and the step
    assert len(shown) == 4 and [text.splitlines()[-1] for text in shown] == [
        f"step {i} of 4" for i in (1, 2, 3, 4)
    ]
    assert shown[-1].splitlines()[:-1] == half_blocks(output.images[0], 80, 38)


def test_elsewhere_a_few_lines_of_text(pipe: Pipeline) -> None:
    said = io.StringIO()
    pipe("a cat", unit="token", seed=1, watch=Growth(pipe, 1, said, False).watch)
    assert said.getvalue().splitlines() == [f"mmgen: step {i} of 16" for i in range(2, 17, 2)]


def test_a_call_in_parts_grows_part_by_part(pipe: Pipeline, tmp_path: Path) -> None:
    growth = Growth(pipe, 3, None, keep=True)
    settings = {"num_images_per_prompt": 3, "unit": "block", "seed": 1, "reproducible": True}
    output = pipe("a cat", watch=growth.watch, **settings)
    assert len(growth.frames) == 12 and {frame.size for frame in growth.frames} == {(56, 56)}
    half = np.asarray(growth.frames[7])  # the second picture is ready, the third has not begun
    assert np.array_equal(half[8:24, 8:24], output.images[0])
    assert np.array_equal(half[8:24, 32:48], output.images[1])
    assert (half[32:48, 8:24] == 128).all()
    growth.save(tmp_path / "growth.gif", output.recipes, 2)
    with Image.open(tmp_path / "growth.gif") as animation:
        assert animation.n_frames == 12 and animation.size == (112, 112)


def test_long_calls_show_a_share_of_their_steps(pipe: Pipeline) -> None:
    growth = Growth(pipe, 1, None, keep=True)
    codes, all_sites = torch.zeros(1, 1, 4, 4, dtype=torch.long), torch.ones(1, 4, 4).bool()
    for index in range(1, 201):
        growth.watch(Step(index, 200, codes, all_sites, all_sites))
    assert len(growth.frames) == FRAMES


def test_frames_of_clips_come_as_they_are_finished() -> None:
    pipe = tiny_clips()
    finished, frames = FinishedFrames(pipe), [[], []]
    steps = []
    settings = {"num_frames": 9, "seed": 1, "num_images_per_prompt": 2, "unit": "frame"}
    for step in pipe.stream("a cat", **settings):
        new = finished.of(step)
        steps.append([len(clip) for clip in new])
        for clip, more in zip(frames, new):
            clip += more
    assert steps == [[1, 1], [2, 2], [2, 2], [2, 2], [2, 2]]
    whole = pipe("a cat", **settings).frames
    for clip, wanted in zip(frames, whole):
        assert np.abs(np.stack(clip).astype(int) - np.stack(wanted)).max() <= 1


def test_the_terminal_shows_the_newest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, said = tiny_clips(), io.StringIO()
    output = pipe(
        "a cat", num_frames=5, seed=1, unit="row", watch=Growth(pipe, 1, said, False).watch
    )
    assert said.getvalue().splitlines() == [f"mmgen: frame {i} of 5" for i in (1, 3, 5)]
    for name, value in (("TERM", "xterm"), ("COLUMNS", "80"), ("LINES", "40")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    growth = Growth(pipe, 3, terminal, False)
    pipe("a cat", num_frames=5, seed=1, unit="row", watch=growth.watch)
    places = re.findall(r"frame . of 5, clips 1 to 1$", terminal.getvalue(), re.MULTILINE)
    assert places == [f"frame {i} of 5, clips 1 to 1" for i in (1, 3, 5)]
    assert np.abs(np.asarray(growth._images[0], int) - output.frames[0][-1]).max() <= 1
