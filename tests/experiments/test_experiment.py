"""`mmgen experiment`: what it trains, measures and writes, what it refuses, and going on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from tiny_emoji import Small, write_emoji
from tiny_experiment import (
    FRAMES,
    tiny_experiment,
    tiny_recipe,
    unit,
    write_clips,
    write_tokenizers,
    written,
)

from mmgen.cli import app
from mmgen.errors import ConfigError, UserError
from mmgen.evaluation import features
from mmgen.evaluation.held_out import held_out_losses
from mmgen.evaluation.real import open_real
from mmgen.evaluation.results import Result
from mmgen.experiments import running
from mmgen.experiments.planning import runs_of
from mmgen.experiments.settings import load_experiment, shipped_experiments
from mmgen.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizers, and the small emoji set."""
    folder = tmp_path_factory.mktemp("world")
    write_tokenizers(folder)
    write_emoji(folder / "emoji")
    write_clips(folder / "clips", 6, 90)
    write_clips(folder / "held", 4, 100)
    return folder


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "FeatureExtractor", Small)


def run(file: Path, *words: str) -> tuple[int, str]:
    """Exit code and what was said; a user's mistake is its sentence."""
    done = CliRunner().invoke(app, ["experiment", str(file), *words])
    if isinstance(done.exception, UserError):
        return 2, str(done.exception)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def told(world: Path, out: Path, **changes: Any) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    wanted = tiny_experiment(world, world / "emoji", out, **changes)
    return written(wanted, out.with_suffix(".yaml"))


def timeless(out: Path) -> dict[str, Any]:
    """What an experiment found, but for what a clock and a path said."""
    text = (out / "table.json").read_text(encoding="utf-8").replace(str(out), "OUT")
    found = json.loads(text)
    for seeds in found["figures"].values():
        for figures in seeds.values():
            figures["pictures"].pop("pictures_a_second")
            for each in figures["pictures"]["sets"].values():
                each.pop("seconds")
    for seeds in found["made_with"].values():
        for made in seeds.values():
            made.pop("experiment")  # a hash of paths, too
    found["protocol"].pop("recipe")
    return dict(found)


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An experiment that was not interrupted, and what was said."""
    out = tmp_path_factory.mktemp("whole") / "orders"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "FeatureExtractor", Small)
        code, said = run(told(world, out))
    assert code == 0, said
    return out, said


def test_each_variant_is_a_row_beside_real_pictures(whole: tuple[Path, str]) -> None:
    out, said = whole
    text = (out / "table.md").read_text(encoding="utf-8")
    table = text.partition("## Pictures")[2].partition("## Protocol")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows == ["variant", "---", "raster", "rows", "near", "real", "knowing nothing"]
    head = next(row for row in text.splitlines() if "KID" in row)
    for needed in ("held-out loss, nats a code", "concept top-1", "concept top-5", "steps"):
        assert needed in head
    assert "network evaluations" in head and "pictures/s, batch 1" in head
    assert "8 pictures" in text and "`units`" in text and "never compared" in text
    for line in ("[1/3] raster, seed 0: training", "[3/3] near, seed 0: measuring", "table.md"):
        assert line in said


def test_figures_are_those_of_mmgen_eval(whole: tuple[Path, str], world: Path) -> None:
    out, _ = whole
    result = Result.read(out / "table.json")
    assert result.kind == "experiment" and result.protocol["pictures"]["sets"] == ["val"]
    real = open_real(world / "emoji", 16, Small())
    for variant, steps in (("raster", 16), ("rows", 4), ("near", 7)):
        found = result.figures[variant]["0"]["pictures"]
        pipe = Pipeline.from_pretrained(out / "runs" / f"{variant}-seed-0" / "final")
        losses = held_out_losses(pipe, real)
        assert found["loss"]["value"] == next(iter(losses["units"].values()))
        assert found["loss"]["uniform"] == losses["uniform"] and found["loss"]["of"] == 4
        assert found["steps"] == steps
        assert found["evaluations"] == steps  # the prefix goes along with the first
        assert found["sets"]["val"]["concept"]["count"] == 4
        assert found["real"]["val"]["concept"]["top1"] == 1
        assert found["pictures_a_second"]["1"] > 0
        assert result.made_with[variant]["0"]["weights"] == pipe.fingerprint


def test_the_picture_has_a_row_for_each_variant(whole: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = whole
    with Image.open(out / "grid.png") as sheet:
        assert sheet.height > 3 * 96 and sheet.width > 2 * 96
    pipe = Pipeline.from_pretrained(out / "runs/rows-seed-0/final")
    with Image.open(out / "runs/rows-seed-0/shown-pictures.png") as strip:
        assert strip.size == (16, 32)
        right = strip.crop((0, 16, 16, 32))
        assert right.tobytes() == pipe("a rocket", seed=1).images[0].tobytes()


def test_variants_share_data_and_tokens(whole: tuple[Path, str]) -> None:
    out, _ = whole
    assert len(list((out / "tokens").iterdir())) == 1
    assert not list((out / "runs").rglob("tokens"))


def test_again_nothing_is_done_twice(
    whole: tuple[Path, str], world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = whole
    before = (out / "table.md").read_bytes(), (out / "grid.png").read_bytes()
    monkeypatch.setattr(running, "run", lambda recipe: pytest.fail("trained again"))
    code, said = run(out.with_suffix(".yaml"))
    assert code == 0 and said.count("measured before") == 3
    assert ((out / "table.md").read_bytes(), (out / "grid.png").read_bytes()) == before


def test_other_measures_are_measured_without_training_again(world: Path, tmp_path: Path) -> None:
    near = {"name": "near", "change": {"units": unit("near", "neighbor", "neighbors")}}
    out = tmp_path / "one"
    file = told(world, out, variants=[near])
    assert run(file)[0] == 0
    code, said = run(file, "pictures.count=3", "pictures.sets=[train,val]")
    assert code == 0 and "Going on from step 2" in said and "step 2/2 " not in said
    found = Result.read(out / "table.json").figures["near"]["0"]["pictures"]["sets"]
    counts = {name: each["concept"]["count"] for name, each in found.items()}
    assert counts == {"train": 3, "val": 3}


def test_killed_in_the_middle_it_ends_with_the_same_table(
    whole: tuple[Path, str], world: Path, tmp_path: Path
) -> None:
    out = tmp_path / "orders"
    file = told(world, out)
    program = [sys.executable, str(Path(__file__).with_name("tiny_experiment.py"))]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with subprocess.Popen(
        [*program, "experiment", str(file)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
    ) as process:
        first, second = out / "runs/raster-seed-0/measured.json", out / "runs/rows-seed-0"
        while not (first.is_file() and (second / "checkpoints").is_dir()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (out / "runs/near-seed-0").exists()
    code, said = run(file)
    assert code == 0 and "[1/3] raster, seed 0: measured before" in said
    assert "[2/3] rows, seed 0: training" in said
    assert timeless(out) == timeless(whole[0])
    assert (out / "grid.png").read_bytes() == (whole[0] / "grid.png").read_bytes()


def test_latents_and_codes_have_losses_of_their_own(world: Path, tmp_path: Path) -> None:
    noise = {"continuous": True}
    variants = [
        {"name": "cell", "change": {"units": unit("cell", "cell:2", "self", **noise)}},
        {
            "name": "cell taught",
            "change": {"units": unit("cell", "cell:2", "self", **noise), "flow.context": "clean"},
        },
        {
            "name": "codes",
            "change": {"tokenizer": str(world / "codes"), "backbone.adaln": False},
        },
    ]
    out = tmp_path / "next"
    changes = {
        "recipe": tiny_recipe(world, world / "emoji", "latents"),
        "variants": variants,
        "seeds": [0, 3],
        "differ": ["units", "sampling", "flow.context", "tokenizer", "backbone.adaln"],
    }
    code, said = run(told(world, out, **changes))
    assert code == 0, said
    result = Result.read(out / "table.json")
    cell, codes = (result.figures[name]["0"]["pictures"] for name in ("cell", "codes"))
    assert (cell["loss"]["in"], codes["loss"]["in"]) == ("squared velocity", "nats a code")
    assert cell["steps"] == 4 and cell["evaluations"] == 4 * 2  # two steps of Euler's each
    text = (out / "table.md").read_text(encoding="utf-8")
    heads = next(row for row in text.splitlines() if "KID" in row).split("|")
    nats = next(i for i, head in enumerate(heads) if "nats a code" in head)
    row = next(row for row in text.splitlines() if row.startswith("| cell |") and " to " in row)
    assert row.split("|")[nats].strip() == "-" and "squared velocity" in heads[nats + 1]
    assert re.search(r"\d \([\d.]+ to [\d.]+\)", row.split("|")[nats + 1])  # two seeds
    assert len(list((out / "tokens").iterdir())) == 2


def test_clips_are_measured_beside_real_ones(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "units"
    recipe = tiny_recipe(world, world / "emoji", "video")
    clips = {"train": str(world / "clips"), "frames": FRAMES, "batch_size": 2}
    frames = unit("frame", "frame:1", "shift")
    code, said = run(
        told(
            world,
            out,
            recipe=recipe | {"clips": clips, "frames_share": 0},
            variants=[{"name": "raster"}, {"name": "frames", "change": {"units": frames}}],
            clips={"real": str(world / "held"), "reference": str(world / "clips"), "batch": 3},
        )
    )
    assert code == 0, said
    result = Result.read(out / "table.json")
    for name, steps in (("raster", 48), ("frames", 3)):
        of = result.figures[name]["0"]
        found, stills = of["clips"], of["pictures"]
        assert (found["steps"], stills["steps"]) == (steps, steps // 3)
        assert found["loss"]["of"] == found["clips"] == 4 and found["loss"]["in"] == "nats a code"
        assert set(found["frames_a_second"]) == {"1", "8"}
        assert found["still"]["motion"]["high"] == 0 < found["real"]["motion"]["low"]
        assert found["real"]["loop"] < found["still"]["loop"] == pytest.approx(1)
        assert found["evaluations"] == steps
        assert found["real"] == result.figures["raster"]["0"]["clips"]["real"]
        assert abs(found["real"]["frame_kid"]) < abs(found["frame_kid"])
        pipe = Pipeline.from_pretrained(out / "runs" / f"{name}-seed-0" / "final")
        clip = pipe("a rocket", seed=1, num_frames=FRAMES).frames[0]
        with Image.open(out / f"runs/{name}-seed-0/shown-clips.png") as kept:
            assert kept.size == (5 * 16, 2 * 16)
            assert kept.crop((48, 16, 64, 32)).tobytes() == clip[3].convert("RGB").tobytes()
    rules = result.protocol["clips"]
    assert rules["frames"] == FRAMES and rules["asked"]["clips"] == 4
    text = (out / "table.md").read_text(encoding="utf-8")
    for needed in ("real, standing still", "clip KID", "loop closure", "frames/s, batch 8"):
        assert needed in text
    assert "pictures and" in text and " clips" in text


@pytest.mark.parametrize(
    "change, said",
    [
        ({"backbone.depth": 2}, "differ in backbone.depth (1 and 2)"),
        ({"train.steps": 3}, "differ in train.steps (2 and 3)"),
        ({"data.drop_caption": 0.5}, "differ in data.drop_caption (0.1 and 0.5)"),
        ({"train.bach_size": 3}, "'bach_size'; did you mean 'batch_size'"),
    ],
)
def test_variants_that_differ_elsewhere_are_refused(
    change: dict[str, Any], said: str, world: Path, tmp_path: Path
) -> None:
    variants = [{"name": "one"}, {"name": "other", "change": change}]
    code, told_back = run(told(world, tmp_path / "out", variants=variants))
    assert code == 2 and said in told_back and "\n" not in told_back
    assert not (tmp_path / "out").exists()


def test_pictures_seen_must_be_equal_unless_declared(world: Path, tmp_path: Path) -> None:
    def refused(change: dict[str, Any], *differ: str) -> str:
        variants = [{"name": "one"}, {"name": "other", "change": change}]
        file = told(world, tmp_path / "o", variants=variants, differ=["units", *differ])
        try:
            runs_of(load_experiment(file))
        except ConfigError as error:
            return str(error)
        return ""

    halves = ("train.steps", "train.batch_size")
    assert refused({"train.steps": 4, "train.batch_size": 2}, *halves) == ""
    assert "differ in samples" in refused({"train.steps": 4}, *halves)
    assert refused({"train.steps": 4}, "train", "samples") == ""


def test_a_mistake_in_the_last_variant_is_told_before_the_first_trains(
    world: Path, tmp_path: Path
) -> None:
    variants = [
        {"name": "one"},
        {"name": "other", "change": {"units": unit("cell", "cell:3", "self")}},
    ]
    code, said = run(told(world, tmp_path / "out", variants=variants))
    assert code == 2 and said.startswith("Variant other, seed 0: ") and "cell:3" in said
    assert not list((tmp_path / "out").glob("runs/*"))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"variants": []}, "at least one entry"),
        ({"variants": [{"name": "a"}, {"name": "A"}]}, "a name of its own"),
        ({"variants": [{"name": "../a"}]}, "cannot be named '../a'"),
        ({"seeds": [1, 1]}, "none twice"),
        ({"pictures": None}, "measures something"),
        ({"recipe": "emoji64-tokenizer"}, "compares generators"),
        ({"recipe": "emoji64-nextx"}, "did you mean 'emoji64-next-x'"),
        ({"clips": {"real": "a", "reference": "b"}}, "variant 'raster' learns none"),
        ({"variant": []}, "did you mean 'variants'"),
        ({"pictures": {"real": "gone"}}, "mmgen data emoji"),
        ({"pictures": {"real": "gone", "count": 1}}, "at least 2"),
    ],
)
def test_mistakes_are_one_sentence(
    changes: dict[str, Any], said: str, world: Path, tmp_path: Path
) -> None:
    code, told_back = run(told(world, tmp_path / "out", **changes))
    assert code == 2 and said in told_back and "\n" not in told_back
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", shipped_experiments())
def test_shipped_experiments_hold_recipes_that_compare(name: str) -> None:
    runs = runs_of(load_experiment(name))
    assert len(runs) >= 4 and len({run.folder for run in runs}) == len(runs)
    assert all(len(run.recipe.units) == 1 for run in runs)
    code, said = run_words(name)
    assert code == 0 and "variants:" in said and said.count("steps into runs/") == len(runs)


def run_words(name: str) -> tuple[int, str]:
    return run(Path(name), "--print-config")
