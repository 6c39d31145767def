"""Training curves: what is read from a log, and that it is drawn where it belongs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmgen.errors import UserError
from mmgen.evaluation import plots
from mmgen.evaluation.plots import Series, panel, read_log, series_of, stacked, training_curves


def write_log(folder: Path, steps: int = 12) -> Path:
    folder.mkdir()
    lines = []
    for step in range(10, 10 * steps + 1, 10):
        record = {
            "step": step,
            "losses": {"image": 8 / step**0.5, "caption": 2.0 if step % 20 else None},
            "metrics": {"perplexity": 100.0 + step},
            "seconds": 0.5,
            "samples": step * 4,
        }
        if step % 40 == 0:
            record["eval"] = {"psnr": 20 + step / 40, "ssim": 0.5}
        lines.append(json.dumps(record))
    (folder / "log.jsonl").write_text("\n".join([*lines, '{"step": 1'[:9]]), encoding="utf-8")
    return folder


def test_series_hold_each_value_at_its_step(tmp_path: Path) -> None:
    records = read_log(write_log(tmp_path / "run"))
    assert len(records) == 12  # the half-written line is left out
    series = {line.name: line for line in series_of(records, "losses", "eval")}
    assert series["image"].steps == [10.0 * i for i in range(1, 13)]
    assert series["caption"].steps == [10.0 * i for i in range(1, 13, 2)]
    assert series["psnr"].values == [21.0, 22.0, 23.0]
    assert plots.seconds_of(records) == pytest.approx(60)


def test_curves_are_a_picture_with_every_colour(tmp_path: Path) -> None:
    run = write_log(tmp_path / "run")
    image = training_curves(run)
    colours = {colour for _, colour in image.getcolors(1 << 24) or []}
    wanted = [tuple(bytes.fromhex(code[1:])) for code in plots.COLOURS[:2]]
    assert set(wanted) <= colours
    double = stacked([image, image])
    assert double.size == (image.width, 2 * image.height)
    assert training_curves(run / "log.jsonl").size == image.size


def test_a_line_lies_where_its_values_are() -> None:
    flat = panel([Series("low", [0, 100], [1, 1]), Series("high", [0, 100], [3, 3])], "two")
    pixels = np.asarray(flat)
    # The middle column, away from the legend: one crossing of each line, the higher value above.
    place = []
    for code in plots.COLOURS[:2]:
        colour = np.array(list(bytes.fromhex(code[1:])))
        hit = (np.abs(pixels[:, 180].astype(int) - colour).sum(1) < 30).nonzero()[0]
        assert 1 <= len(hit) <= 3
        place.append(float(hit.mean()))
    assert place[1] < place[0] - 50


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0.0, 1.0, False), (-3.0, 7e5, False), (1e-4, 2.0, True), (2, 2, 0)]
)
def test_ticks_are_few_round_numbers_inside_the_axis(low: float, high: float, log: bool) -> None:
    axis = plots._Axis.of([low, high], 0, 100, bool(log))
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(axis.low <= tick <= axis.high for tick in ticks)
    assert ticks == sorted(ticks)
    assert (axis.low == 0) == (low == 0) and axis.low <= low <= high <= axis.high
    assert all(0 <= axis.at(tick) <= 100 for tick in ticks)
    assert all(f"{tick:.1e}"[0] in "0123456789-" for tick in ticks)


def test_smoothing_is_a_mean_of_neighbours() -> None:
    values = list(np.random.default_rng(0).normal(size=9))
    reach = [0, 1, 2, 2, 2, 2, 2, 1, 0]
    expected = [np.mean(values[i - r : i + r + 1]) for i, r in enumerate(reach)]
    assert plots._smooth(values, 2) == pytest.approx(expected)


def test_values_of_other_sizes_get_their_own_panel() -> None:
    lines = [Series(name, [0], [value]) for name, value in (("a", 1.0), ("b", 900.0), ("c", 5.0))]
    assert [[s.name for s in group] for group in plots._alike(lines)] == [["a", "c"], ["b"]]


def test_no_log_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        training_curves(tmp_path)
    (tmp_path / "log.jsonl").write_text("{\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds no record"):
        training_curves(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "losses": {}}\n', encoding="utf-8")
    with pytest.raises(UserError, match="no values"):
        training_curves(tmp_path)
