"""`mmgen train` from pictures to a pipeline that draws, killed and continued; the other verbs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from mmgen.sample.recipe_files import read_recipe
from mmgen.train.recipe import shipped_recipes

if TYPE_CHECKING:
    from conftest import Commands, Done, Running

TOKENIZER = """
task: tokenizer
data: {train: PICTURES, image_size: 16}
model:
  quantizer: {kind: fsq, levels: [4, 4, 3]}
  patch_size: 4
  widths: [64]
  res_blocks: 1
  decoder_res_blocks: 1
  attention_levels: []
  middle_attention: false
  z_channels: 8
  norm_groups: 4
train: {steps: 900, batch_size: 4, warmup_steps: 1, out: runs/tokenizer, save_every: 4}
"""
GENERATOR = """
task: generator
name: squares
tokenizer: runs/tokenizer/final
data: {train: PICTURES, val: PICTURES, image_size: 16}
text: {vocab_size: 300, max_length: 12}
backbone: {width: 64, depth: 2, heads: 4}
logit_width: 32
preview_prompts: [a red square]
train: {steps: 900, batch_size: 4, warmup_steps: 1, out: runs/generator, save_every: 4}
"""
SMALLER = ("model.widths=[8]", "train.steps=12", "train.log_every=4")
FEWER = ("train.steps=12", "train.log_every=4")


@pytest.fixture(scope="session")
def trained(
    mmgen: Commands, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Done]]:
    """A folder with both recipes and the runs of both, and what the commands said."""
    place = tmp_path_factory.mktemp("trained")
    (place / "tokenizer.yaml").write_text(TOKENIZER.replace("PICTURES", str(pictures)))
    (place / "generator.yaml").write_text(GENERATOR.replace("PICTURES", str(pictures)))
    said = [
        mmgen("train", "tokenizer.yaml", *SMALLER, cwd=place),
        mmgen("train", "generator.yaml", *FEWER, cwd=place),
    ]
    return place, said


def weights(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.safetensors")
    }


def test_pictures_become_a_pipeline_that_draws(
    trained: tuple[Path, list[Done]], mmgen: Commands, tmp_path: Path
) -> None:
    place, said = trained
    for done, name in zip(said, ("tokenizer", "generator")):
        assert (done.code, done.err) == (0, ""), done
        lines = done.out.splitlines()
        assert sum(line.startswith("step 8/12 ") for line in lines) == 1
        assert lines[-1] == f"Trained 12 steps; the result is in runs/{name}/final."
    model = place / "runs/generator/final"
    done = mmgen(
        "sample", "a red square", "--model", model, "--seed", 1, "-o", "a.png", cwd=tmp_path
    )
    assert (done.code, done.out, done.err) == (0, "a.png\n", "")
    assert read_recipe(tmp_path / "a.png")["model"] == "squares"


def test_the_same_command_again_has_nothing_to_do(
    trained: tuple[Path, list[Done]], mmgen: Commands
) -> None:
    place, _ = trained
    before = weights(place / "runs/generator/final")
    done = mmgen("train", "generator.yaml", *FEWER, cwd=place)
    assert done.code == 0 and "Going on from step 12" in done.out
    assert weights(place / "runs/generator/final") == before


def test_a_run_past_its_steps_is_refused_before_anything_is_loaded(
    trained: tuple[Path, list[Done]], mmgen: Commands, tmp_path: Path
) -> None:
    place, _ = trained
    shutil.copytree(place / "runs/generator/checkpoints", tmp_path / "runs/generator/checkpoints")
    shutil.copy(place / "generator.yaml", tmp_path)
    fewer = ("train.steps=6", "tokenizer=gone", "data.train=gone")
    done = mmgen("train", "generator.yaml", *fewer, cwd=tmp_path)
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("mmgen: runs/generator has already trained 12 steps; ask for")


def test_a_run_goes_on_once_tokens_of_other_pictures_are_deleted(
    trained: tuple[Path, list[Done]], mmgen: Commands, pictures: Path, tmp_path: Path
) -> None:
    place, _ = trained
    shutil.copytree(pictures, tmp_path / "pictures")
    shutil.copytree(place / "runs/tokenizer/final", tmp_path / "runs/tokenizer/final")
    (tmp_path / "generator.yaml").write_text(GENERATOR.replace("PICTURES", "pictures"))
    words = ("train", "generator.yaml", *FEWER)
    assert mmgen(*words, cwd=tmp_path).code == 0
    changed = next((tmp_path / "pictures").glob("*.png"))
    Image.new("RGB", Image.open(changed).size, "white").save(changed)
    for split in ("train", "val"):
        done = mmgen(*words, cwd=tmp_path)
        folder = f"runs/generator/tokens/{split}"
        assert done.code == 2 and f"delete the folder {folder} to have them made" in done.err
        shutil.rmtree(tmp_path / folder)
    done = mmgen(*words, cwd=tmp_path)
    assert done.code == 0 and "Going on from step 12" in done.out
    # Other captions make another text tokenizer, whose ids mean other words.
    caption = next((tmp_path / "pictures").glob("*.txt"))
    caption.write_text("quite another caption, of many words that nothing else has")
    shutil.rmtree(tmp_path / "runs/generator/tokens")
    done = mmgen(*words, cwd=tmp_path)
    assert done.code == 2 and "(other captions, another version" in done.err


@pytest.mark.parametrize("name", ["tokenizer", "generator"])
def test_a_killed_run_goes_on_to_the_same_weights(
    name: str, trained: tuple[Path, list[Done]], mmgen: Commands
) -> None:
    place, _ = trained
    out = place / "runs" / f"{name}-killed"
    overrides = SMALLER if name == "tokenizer" else FEWER
    words = ("train", f"{name}.yaml", *overrides, f"train.out=runs/{name}-killed")
    for step in (4, 8):
        running = mmgen.start(*words, cwd=place)
        wait_for(out / f"checkpoints/step-{step}/manifest.json", running)
        os.kill(running.pid, signal.SIGKILL)
        assert mmgen.finish(running).code == -signal.SIGKILL
        assert not (out / "final").exists()
    done = mmgen(*words, cwd=place)
    assert done.code == 0 and "Going on from step 8" in done.out
    assert weights(out / "final") == weights(place / "runs" / name / "final")


def wait_for(file: Path, running: Running) -> None:
    """Look for a file every millisecond."""
    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until, running.err.read_text()
        time.sleep(0.001)


def test_an_interrupted_run_saves_and_says_so(
    trained: tuple[Path, list[Done]], mmgen: Commands
) -> None:
    place, _ = trained
    words = ("train", "tokenizer.yaml", "train.steps=100000", "train.out=runs/long")
    running = mmgen.start(*words, cwd=place)
    wait_for(place / "runs/long/checkpoints/step-4/manifest.json", running)
    os.kill(running.pid, signal.SIGINT)
    done = mmgen.finish(running)
    assert (done.code, done.err) == (130, "")
    stopped = re.search(r"Stopped by SIGINT after step (\d+), which is saved", done.out)
    assert stopped and (place / f"runs/long/checkpoints/step-{stopped[1]}").is_dir()


def test_another_recipe_does_not_touch_a_run(
    trained: tuple[Path, list[Done]], mmgen: Commands
) -> None:
    place, _ = trained
    before = weights(place / "runs/tokenizer")
    done = mmgen("train", "tokenizer.yaml", *SMALLER, "train.seed=1", cwd=place)
    assert done.code == 2 and done.err.startswith("mmgen: ") and done.err.count("\n") == 1
    assert "train.seed is 0 there and 1 here" in done.err
    assert weights(place / "runs/tokenizer") == before


@pytest.mark.parametrize("recipe", ["tokenizer.yaml", "generator.yaml", *shipped_recipes()])
def test_the_printed_config_is_a_recipe(
    recipe: str, trained: tuple[Path, list[Done]], mmgen: Commands, tmp_path: Path
) -> None:
    source = trained[0] / recipe if recipe.endswith(".yaml") else recipe
    done = mmgen("train", source, "--print-config", "train.steps=77", cwd=tmp_path)
    assert (done.code, done.err) == (0, "") and "steps: 77" in done.out
    (tmp_path / "printed.yaml").write_text(done.out)
    again = mmgen("train", "printed.yaml", "--print-config", cwd=tmp_path)
    assert (again.code, again.out) == (0, done.out)
    assert [path.name for path in tmp_path.iterdir()] == ["printed.yaml"]


def test_tokenizer_check_measures_and_shows(
    trained: tuple[Path, list[Done]], mmgen: Commands, pictures: Path, tmp_path: Path
) -> None:
    place, _ = trained
    tokenizer = place / "runs/tokenizer/final"
    done = mmgen("tokenizer", "check", tokenizer, pictures, "--size", 16, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    first, *figures, report, where = done.out.splitlines()
    assert first == f"{tokenizer} on 12 pictures of {pictures}"
    names = ["PSNR", "SSIM", "code use", "perplexity", "bits"]
    assert [re.split(r"  +", line)[0] for line in figures] == names
    assert "(16 tokens)" in figures[-1] and "of 48)" in figures[2]
    assert report == f"No bad samples in {pictures}."
    assert where == "Originals above reconstructions: tokenizer-check.png"
    with Image.open(tmp_path / "tokenizer-check.png") as sheet:
        assert sheet.width == 8 + 12 * (32 + 8) and sheet.height == 8 + 2 * (32 + 8)
    # Of a pipeline the size need not be said, and the figures are the same.
    words = (place / "runs/generator/final", pictures, "-o", "new/two.png", "--limit", 5)
    for replaced in ("", " (replaced)"):
        done = mmgen("tokenizer", "check", *words, cwd=tmp_path)
        assert done.code == 0 and " on 5 pictures of " in done.out
        assert done.out.endswith(f": new/two.png{replaced}\n")
    assert (tmp_path / "new/two.png").is_file()


def test_tokenizer_check_says_what_it_crops(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "wide.png")  # one picture, without a caption
    done = mmgen("tokenizer", "check", tiny, "wide.png", "-o", "check.png", cwd=tmp_path)
    assert done.code == 0 and done.out.startswith(f"{tiny} on 1 pictures of wide.png\n")
    said = "mmgen: 1 of 1 in wide.png are not square: only the middle square was kept.\n"
    assert done.err == said


def test_a_file_that_is_no_picture_is_skipped_counted_and_named(
    mmgen: Commands, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(pictures, tmp_path / "data/0")
    (tmp_path / "data/notes.png").write_text("buy milk")
    (tmp_path / "data/notes.txt").write_text("a shopping list")
    words = ("tokenizer", "check", tiny, "data")
    done = mmgen(*words, cwd=tmp_path)
    few = "mmgen: Skipped 1 bad of 13 samples in data: 'notes.png' (it is not a picture"
    assert (done.code, done.out) == (2, "") and done.err.startswith(few)
    assert "more than 1%" in done.err and done.err.count("\n") == 1
    for i in range(1, 9):  # one of a hundred may be bad
        shutil.copytree(pictures, tmp_path / f"data/{i}")
    done = mmgen(*words, cwd=tmp_path)
    assert (done.code, done.err) == (0, "") and " on 108 pictures of data" in done.out
    assert "Skipped 1 bad of 109 samples in data: 'notes.png' (it is not a picture" in done.out


def test_orders_and_doctor_run(mmgen: Commands, tmp_path: Path) -> None:
    done = mmgen("orders", "raster", "row:2", "--grid", "4x4", "-o", "drawn", cwd=tmp_path)
    assert (done.code, done.err, len(done.out.splitlines())) == (0, "", 2)
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
    done = mmgen("doctor", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    for topic in ("mmgen", "torch", "device", "threads", "attention", "kernels", "pipelines"):
        assert re.search(rf"^{topic} +\S", done.out, re.MULTILINE), topic
