from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mmgen.cli.orders import orders
from mmgen.errors import ConfigError
from mmgen.models.plan import compile_plan
from mmgen.models.schedule import default_prediction, make_schedule
from mmgen.orders import GUTTER, MARGIN, PITCH, animate_order, draw_order, save_order
from mmgen.pen import EMPTY, step_colour


def colour_at(image, row, column):
    """Colour of a cell, taken beside its number."""
    x, y = MARGIN + column * PITCH + PITCH // 2, MARGIN + row * PITCH + PITCH // 2
    return "#" + "".join(f"{value:02x}" for value in image.getpixel((x - 1, y + 15)))


def plan_of(order, grid):
    return compile_plan(make_schedule(order, grid), default_prediction(order))


@pytest.mark.parametrize(
    "order", ["raster", "neighbor", "cell:2", "random:0:5", "locality:0:5", "subsample:2"]
)
def test_each_cell_has_the_colour_of_its_step(order):
    plan = plan_of(order, (1, 4, 6))
    image = draw_order(plan)
    step = plan.schedule.block_of_slot.tolist()
    for slot, (_, row, column) in enumerate(plan.schedule.coords.long().tolist()):
        assert colour_at(image, row, column) == step_colour(step[slot], plan.steps)


def test_a_picture_in_progress_leaves_the_rest_empty():
    image = draw_order(plan_of("raster", (1, 3, 3)), decided=4)
    colours = [colour_at(image, row, column) for row in range(3) for column in range(3)]
    assert colours == [step_colour(step, 9) for step in range(4)] + [EMPTY] * 5


def test_a_piece_of_one_step_has_no_gutter():
    image = draw_order(plan_of("row:1", (1, 2, 2)))
    middle = MARGIN + PITCH
    row = MARGIN + PITCH // 2 + 12
    assert image.getpixel((middle - 3, row)) == image.getpixel((middle - 10, row))
    gap = MARGIN + PITCH
    assert image.getpixel((MARGIN + GUTTER, gap)) == (255, 255, 255)


def test_arrows_stand_where_reads_are():
    gutter = (MARGIN + 1, MARGIN + PITCH)  # beside the first column, between two rows

    def dark(order, box):
        cut = np.asarray(draw_order(plan_of(order, (1, 3, 3))).crop(box).convert("L"))
        return int((cut < 90).sum())

    x, y = gutter
    between_rows = (x + 20, y - 4, x + 28, y + 4)
    between_columns = (MARGIN + PITCH - 4, y - 28, MARGIN + PITCH + 4, y - 20)
    assert dark("row:1", between_rows) > 5
    assert dark("neighbor", between_rows) > 5 and dark("neighbor", between_columns) > 5
    assert dark("raster", between_columns) > 5
    assert dark("subsample:2", between_rows) == dark("subsample:2", between_columns) == 0


@pytest.mark.parametrize(
    ("order", "grid", "name"),
    [
        ("scale:1,2,4", (1, 4, 4), "scale-1-2-4-4x4"),
        ("frame", (3, 2, 2), "frame-1-3x2x2"),
        ("raster", (9, 3, 5), "raster-9x3x5"),
        ("neighbor", (2, 3, 2), "neighbor-2x3x2"),
        ("whole", (1, 1, 1), "whole-1x1"),
        ("raster", (1, 1, 5), "raster-1x5"),
        ("run:3", (1, 3, 5), "run-3-3x5"),
    ],
)
def test_every_kind_of_grid_is_drawn(order, grid, name, tmp_path):
    _, files = save_order(order, grid, tmp_path / "new")
    assert [file.name for file in files] == [f"{name}.png"]
    with Image.open(files[0]) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_every_panel_of_a_clip_is_on_the_sheet():
    plan = plan_of("frame:1", (7, 4, 4))  # more frames than one line holds
    image = draw_order(plan)
    colours = {colour for _, colour in image.getcolors(1 << 20)}
    for step in range(plan.steps):
        wanted = step_colour(step, plan.steps)
        assert tuple(int(wanted[i : i + 2], 16) for i in (1, 3, 5)) in colours


def test_animations_fill_in_step_by_step(tmp_path, monkeypatch):
    plan, files = save_order("neighbor", (1, 3, 3), tmp_path, gif=True)
    assert len(animate_order(plan)) == plan.steps + 1
    with Image.open(files[1]) as movie:
        assert movie.n_frames == plan.steps + 1 and movie.info["loop"] == 0
        movie.seek(0)
        first = np.asarray(movie.convert("RGB")).astype(int)
        movie.seek(plan.steps)
        last = np.asarray(movie.convert("RGB")).astype(int)
    assert np.abs(first - last).max() > 100
    monkeypatch.setattr("mmgen.orders.MOST_FRAMES", 4)
    assert len(animate_order(plan_of("raster", (1, 3, 3)))) == 4  # long ones: after 0, 3, 6, 9


def test_too_many_cells_are_refused():
    with pytest.raises(ConfigError, match="4096 at most"):
        draw_order(plan_of("row:1", (1, 65, 64)))
    assert isinstance(run("raster", "--grid", "99999x99999").exception, ConfigError)


def test_the_page_shows_pictures_that_exist_and_are_small():
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "orders.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\]\((orders/[^)]+)\)", page))
    assert shown == {f"orders/{file.name}" for file in (docs / "orders").iterdir()}
    for name in shown:
        limit = 40_000 if name.endswith(".png") else 150_000
        assert (docs / name).stat().st_size < limit


# ---- command line ----------------------------------------------------------------------------


def run(*words):
    app = typer.Typer()
    app.command()(orders)
    return CliRunner().invoke(app, list(words))


def test_the_command_writes_and_says_what(tmp_path):
    done = run("raster", "run:3", "--grid", "3x3", "--start", "hybrid", "-o", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert "run:3 over 1x3x3: 9 slots, 3 blocks of 3; 5 steps by shift" in done.output
    assert {file.name for file in tmp_path.iterdir()} == {
        "raster-3x3-hybrid.png",
        "run-3-3x3-hybrid.png",
    }


def test_the_command_answers_wrong_words(tmp_path):
    for words in (["rastr"], ["row:3", "--grid", "4x4"], ["raster", "--grid", "4"]):
        assert isinstance(run(*words, "-o", str(tmp_path)).exception, ConfigError)
    assert not list(tmp_path.iterdir())


def test_the_command_line_module_imports_no_torch():
    code = "import sys, mmgen.cli.orders; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
