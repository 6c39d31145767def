"""Weights that draw clips are measured on the pictures that they draw, or refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny_emoji import Small, few_items

from mmgen.errors import UserError
from mmgen.evaluation import generator
from mmgen.evaluation.batches import describe_samples, samples_of
from mmgen.evaluation.generator import evaluate_generator
from mmgen.evaluation.held_out import held_out_losses
from mmgen.evaluation.measure import Bench, CardSettings, describe, measure_units
from mmgen.evaluation.real import RealSet
from mmgen.models.unified import UnifiedModel, Unit
from mmgen.pipeline import Pipeline
from tests.tiny_clip_pipeline import FRAMES, GRID, SIZE, tiny_clips

UNITS = (
    Unit("frame", "frame:1", "shift", of="clips"),
    Unit("row", "row:1", "shift"),
    Unit("token", "raster", "shift", of="stills"),
)


@contextmanager
def quiet(_title: str) -> Iterator[Any]:
    yield lambda done, total: None


def reduced(pictures: np.ndarray) -> np.ndarray:
    """Stands in for the feature network."""
    return (pictures.reshape(len(pictures), -1) / 255).astype(np.float32)


class Glance(Small):
    """The pixels of pictures of any size."""

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        return reduced(pictures)


@pytest.fixture(scope="module")
def real() -> RealSet:
    items = few_items()
    shape = (len(items), SIZE, SIZE, 3)
    pictures = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return RealSet(tuple(items), pictures, reduced(pictures), "few")


def bench_of(pipe: Pipeline, real: RealSet) -> Bench:
    return Bench(pipe, real, Glance(), CardSettings(2, 2), quiet)


def clips_alone() -> Pipeline:
    pipe = tiny_clips(UNITS[:2])
    config = replace(pipe.transformer.config, stills=False)  # type: ignore[type-var]
    return Pipeline(pipe.text, pipe.vision, UnifiedModel(config), pipe.info)


@pytest.mark.parametrize("sampling", [{}, {"num_frames": FRAMES}, {"unit": "frame"}])
def test_figures_are_of_stills(
    sampling: dict[str, Any], real: RealSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "BATCHES", (1,))
    pipe = tiny_clips(UNITS, **sampling)
    bench = bench_of(pipe, real)
    result = evaluate_generator(bench)
    units = result.figures["units"]
    assert {name: unit["steps"] for name, unit in units.items()} == {"row": 2, "token": 4}
    assert set(held_out_losses(pipe, real)["units"]) == set(measure_units(bench)) == {*units}
    assert bench.unit == "row" and describe(pipe)["grid"] == [1, *GRID[1:]]
    told = describe_samples(pipe, ["a red apple"], 2)
    assert told.protocol["unit"] == "row" and told.protocol["num_frames"] == 1
    (drawn,) = samples_of(pipe, ["a red apple"], 2)
    wanted = pipe("a red apple", seed=1, num_frames=1).images[0]
    np.testing.assert_array_equal(drawn[1], np.asarray(wanted))


def test_units_and_weights_of_clips_alone_are_refused(real: RealSet) -> None:
    bench = bench_of(tiny_clips(UNITS), real)
    with pytest.raises(
        UserError, match=r"'frame' was trained on clips alone; choose .* row, token"
    ):
        evaluate_generator(bench, ["frame"])
    pipe = clips_alone()
    with pytest.raises(UserError, match="'clips' were trained on clips alone"):
        evaluate_generator(bench_of(pipe, real))
    with pytest.raises(UserError, match="'clips' were trained on clips alone"):
        held_out_losses(pipe, real)
    with pytest.raises(UserError, match="'clips' were trained on clips alone"):
        samples_of(pipe, ["a red apple"], 2)
