"""`mmgen data check`, `mmgen data pack` and `mmgen train generator --data`, as a stranger types."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from one_sentence import assert_one_sentence
from PIL import Image
from tiny_clips import animation, grey_frames

from mmgen.cli.train import _plan

if TYPE_CHECKING:
    from conftest import Commands

FEW = ("train.steps=4", "train.log_every=2", "train.batch_size=4", "train.warmup_steps=1")


@pytest.fixture
def place(pictures: Path, tmp_path: Path) -> Path:
    shutil.copytree(pictures, tmp_path / "my/pictures")
    return tmp_path


def spoil(place: Path) -> None:
    (place / "my/pictures/notes.png").write_text("buy milk")
    (place / "my/pictures/notes.txt").write_text("a list")


def test_check_says_what_is_there(mmgen: Commands, place: Path) -> None:
    done = mmgen("data", "check", "my/pictures", cwd=place)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("my/pictures: 12 samples, 12 usable\nsizes       16x16 to 16x16")
    assert done.out.endswith("bad         none\nsheet       data-check.png\n")
    with Image.open(place / "data-check.png") as sheet:
        assert sheet.width > 4 * 96 and sheet.height > 3 * 96


def test_check_mentions_texts_without_a_picture(mmgen: Commands, place: Path) -> None:
    for name in ("00.x.txt", "readme.txt"):
        (place / "my/pictures" / name).write_text("a text")
    done = mmgen("data", "check", "my/pictures", cwd=place)
    remark = "2 .txt without a picture of that name: 00.x.txt, readme.txt"
    assert done.code == 0 and f"bad         none\nremark      {remark}\nsheet" in done.out
    done = mmgen("data", "check", "my/pictures", "--json", cwd=place)
    assert json.loads(done.out)["remarks"] == [remark]


def test_check_ends_with_1_if_too_many_are_bad(mmgen: Commands, place: Path) -> None:
    spoil(place)
    words = ("data", "check", "my/pictures", "--json", "-o", "c.png")
    done = mmgen(*words, cwd=place)
    facts = json.loads(done.out)
    assert done.code == 1 and done.err.startswith("mmgen: Skipped 1 bad of 13 samples in my/pict")
    assert "more than 1%" in done.err and done.err.count("\n") == 1
    assert list(facts["bad"]) == ["notes.png"] and facts["usable"] == 12
    done = mmgen(*words, "--allow-bad", "0.1", cwd=place)
    assert (done.code, done.err) == (0, "") and json.loads(done.out) == facts


def test_clips_are_checked_and_packed(mmgen: Commands, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for i, form in enumerate(("webp", "gif")):
        content = animation(grey_frames(10, 16, step=10 + i), 50, form.upper())
        (tmp_path / f"clips/{i}.{form}").write_bytes(content)
        (tmp_path / f"clips/{i}.txt").write_text(f"clip {i}")
    done = mmgen("data", "check", "--clips", "clips", "-o", "c.png", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "frames      10 to 10, median 10\nseconds     0.5 to 0.5, median 0.5\n" in done.out
    words = ("data", "pack", "--clips", "clips", "--out", "shards")
    assert_one_sentence(mmgen(*words, "--fps", 10, cwd=tmp_path), "--fps goes with --clips and")
    done = mmgen(*words, "--image-size", 8, "--fps", 10, cwd=tmp_path)
    assert done.out.startswith("Wrote 2 clips to shards/train-0000.tar. No bad samples")
    done = mmgen("data", "check", "--clips", "shards/train-0000.tar", "--json", cwd=tmp_path)
    facts = json.loads(done.out)
    assert facts["frames"] == {"least": 5, "median": 5, "most": 5}
    assert facts["formats"] == {"WEBP": 2} and facts["sizes"]["largest"] == [8, 8]
    words = ("data", "emoji", "--variants", "--out", "emoji")
    assert_one_sentence(mmgen(*words, cwd=tmp_path), "--variants goes with --clips")


def test_pack_writes_shards_that_train(mmgen: Commands, place: Path) -> None:
    spoil(place)
    words = ("data", "pack", "my/pictures", "--out", "shards", "--shard-size", "5")
    assert_one_sentence(mmgen(*words, cwd=place), "'notes.png' (it is not a picture", "--allow-bad")
    assert not (place / "shards").exists()
    done = mmgen(*words, "--allow-bad", "0.1", "--image-size", "8", cwd=place)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Wrote 12 pictures to shards/train-{0000..0002}.tar. Skipped 1 bad")
    done = mmgen("data", "check", "shards/train-{0000..0002}.tar", cwd=place)
    assert done.code == 0 and "12 usable\nsizes       8x8 to 8x8" in done.out
    assert_one_sentence(mmgen(*words, cwd=place), "shards already exists")


def test_what_goes_on_from_a_pipeline_has_its_own_folder(
    mmgen: Commands, tiny: Path, place: Path
) -> None:
    anew = ("train", "generator", "--data", "my/pictures", "--model", "tiny", "--size", 16)
    anew = (*anew, "--tokenizer", tiny, *FEW)
    tuned = ("train", "generator", "--data", "my/pictures", "--from", tiny, *FEW)
    for words in (anew, tuned):
        assert mmgen(*words, cwd=place).code == 0
    assert sorted(path.name for path in (place / "runs").iterdir()) == [
        "pictures-generator",
        "pictures-generator-tuned",
    ]
    done = mmgen(*tuned, "-o", "runs/pictures-generator", cwd=place)  # says nothing before
    assert_one_sentence(
        done, "was started from nothing (no --from, no init)", f"from {tiny}", "--out FOLDER"
    )


def test_one_line_makes_a_pipeline(mmgen: Commands, tiny: Path, place: Path) -> None:
    words = ("train", "generator", "--data", "my/pictures", "--model", "tiny", "--size", 16)
    words = (*words, "--tokenizer", tiny, *FEW)
    spoil(place)
    assert_one_sentence(
        replace_out(mmgen(*words, cwd=place)),
        "'notes.png' (it is not a picture",
        "--allow-bad",
    )
    assert [path.name for path in place.iterdir()] == ["my"]
    done = mmgen(*words, "--allow-bad", "0.1", "-o", "run", cwd=place)
    assert (done.code, done.err) == (0, ""), done
    lines = done.out.splitlines()
    assert lines[0].startswith("A generator for my/pictures: 16x16 pixels, tokenizer of ")
    assert "Trained 4 steps; the result is in run/final." in lines
    assert any("Skipped 1 bad of" in line for line in lines)
    command = lines[-1]
    assert command.startswith("mmgen sample 'a ") and command.endswith(" --model run/final")
    assert (place / "run/previews/step-4.png").is_file()
    prompt = command.split("'")[1]
    done = mmgen("sample", prompt, "--model", "run/final", "-o", "a.png", cwd=place)
    assert (done.code, done.out) == (0, "a.png\n")


def test_tokenizer_check_allows_what_it_is_told(mmgen: Commands, tiny: Path, place: Path) -> None:
    spoil(place)
    words = ("tokenizer", "check", tiny, "my/pictures", "--allow-bad")
    assert_one_sentence(mmgen(*words, "0.01", cwd=place), "more than 1%", "--allow-bad")
    assert_one_sentence(mmgen(*words, "-1", cwd=place), "--allow-bad is -1; give a share")
    done = mmgen(*words, "0.1", cwd=place)
    assert done.code == 0 and "Skipped 1 bad of 13" in done.out


def replace_out(done: object) -> object:
    """The plan is told before the pictures are read; what matters here is the sentence."""
    return type(done)(done.code, "", done.err)  # type: ignore[attr-defined, call-arg]


def test_a_tokenizer_is_trained_first_if_asked(mmgen: Commands, place: Path) -> None:
    words = ("train", "generator", "--data", "my/pictures", "--model", "tiny", "--size", 16)
    words = (*words, "--tokenizer", "train", "-o", "run")
    shown = mmgen(*words, "--print-config", cwd=place)
    assert shown.out.startswith("# First the tokenizer, into run/tokenizer.\ntrain:\n")
    saved = mmgen(*words, "--save-recipe", "r.yaml", cwd=place)
    assert saved.out == "mmgen train r-tokenizer.yaml\nmmgen train r.yaml\n"
    assert sorted(path.name for path in place.iterdir()) == ["my", "r-tokenizer.yaml", "r.yaml"]
    quick = ("train.steps=1", "loss.perceptual=0", "train.eval_every=0", "train.preview_every=0")
    done = mmgen("train", "r-tokenizer.yaml", *quick, cwd=place)
    assert done.code == 0 and done.out.endswith("the result is in run/tokenizer/final.\n"), done
    done = mmgen("train", "r.yaml", "train.steps=1", *quick[2:], cwd=place)
    assert done.code == 0 and done.out.endswith("the result is in run/final.\n"), done


def test_a_tokenizer_that_is_trained_first_hears_of_data_and_machine(
    mmgen: Commands, place: Path
) -> None:
    import yaml

    words = ("train", "generator", "--data", "my/pictures", "--model", "tiny", "--size", 16)
    words = (*words, "--tokenizer", "train", "-o", "run", "--save-recipe", "r.yaml")
    more = ("data.held_out=0", "train.threads=1", "train.seed=4", "train.steps=7", "name=x")
    done = mmgen(*words, *more, "data.caption_column=text", cwd=place)
    assert (done.code, done.err) == (0, "")
    first, second = (
        yaml.safe_load((place / f"r{end}.yaml").read_text()) for end in ("-tokenizer", "")
    )
    for recipe in (first, second):
        assert recipe["data"]["held_out"] == 0
        assert (recipe["train"]["threads"], recipe["train"]["seed"]) == (1, 4)
    assert (first["train"]["steps"], second["train"]["steps"]) == (500, 7)
    assert first["data"]["caption_column"] is None and second["name"] == "x"
    plan = _plan(_recipe("run", 7, 4), _recipe("run/tokenizer", 500, 2))
    assert "tokenizer trained first in 500 steps of 2, 7 steps of 4 pictures into run;" in plan


def _recipe(out: str, steps: int, batch: int) -> SimpleNamespace:
    train = SimpleNamespace(out=out, steps=steps, batch_size=batch)
    data = SimpleNamespace(image_size=16, train="my")
    return SimpleNamespace(train=train, data=data, task="generator", tokenizer="t")


def test_the_one_line_is_the_recipe(mmgen: Commands, place: Path) -> None:
    words = ("train", "generator", "--data", "my/pictures", "--from", "emoji-64", "train.steps=7")
    shown = mmgen(*words, "--print-config", cwd=place)
    assert (shown.code, shown.err) == (0, "") and "steps: 7" in shown.out
    done = mmgen(*words, "--save-recipe", "mine.yaml", cwd=place)
    assert done.out == "mmgen train mine.yaml\n"
    again = mmgen("train", "mine.yaml", "--print-config", cwd=place)
    assert again.out == shown.out == (place / "mine.yaml").read_text()
    assert sorted(path.name for path in place.iterdir()) == ["mine.yaml", "my"]


REFUSED = [
    (("train", "generator", "--data", "my/pictures", "data.image_size=32"), "use --size N instead"),
    (("train", "generator"), "`mmgen train generator` needs pictures; add --data FOLDER"),
    (("train", "generator", "--data", "nowhere"), "There is no nowhere"),
    (("train", "generator", "--data", "my/pictures", "--model", "smal"), "did you mean 'small'"),
    (
        ("train", "generator", "--data", "my/pictures", "--from", "emoji-65"),
        "pipeline 'emoji-65'",
    ),
    (("train", "generator", "--data", "my/pictures", "train.stepz=1"), "did you mean 'steps'"),
    (("train", "emoji64-generator", "--data", "my/pictures"), "make a recipe of their own"),
    (("train", "emoji64-generator", "--model", "tiny"), "make a recipe of their own"),
    (("train", "tokenizer", "--data", "my/pictures", "--tokenizer", "x"), "is for a generator"),
    (("data", "check", "nowhere"), "There is no nowhere"),
    (("data", "check", "my/pictures", "--allow-bad", "2"), "--allow-bad is 2; give a share"),
    (("data", "check", "my/pictures", "--caption-column", "x"), "is no table"),
    (("data", "check", "my/pictures", "-o", "my"), "does not name a picture"),
    (("data", "pack", "my/pictures", "--out", "my"), "my already exists"),
    (("data", "pack", "my/pictures", "--out", "s", "--shard-size", "0"), "shard_size must be at"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_mistakes_are_one_sentence(
    words: tuple[str, ...], said: str, mmgen: Commands, place: Path
) -> None:
    assert_one_sentence(mmgen(*words, cwd=place), said)
    assert [path.name for path in place.iterdir()] == ["my"]
