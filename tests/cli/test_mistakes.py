"""A user's mistake: one sentence on standard error, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from one_sentence import assert_one_sentence
from PIL import Image
from typer import BadParameter
from typer.exceptions import TyperException
from typer.testing import CliRunner

import mmgen.cli
from mmgen.errors import UserError

if TYPE_CHECKING:
    from conftest import Commands


SAMPLE = [
    (("--model", "no-such-thing"), "no pipeline 'no-such-thing'"),
    (("--model", "."), "holds no pipeline.json"),
    (("--model", "x" * 5000), "cannot be read: File name too long"),
    (("--unit", "tokn"), "no unit 'tokn'; did you mean 'token'?"),
    (("--unit", "frame"), "known are: neighbor, block, token, any."),
    (("--order", "rastr"), "did you mean 'raster'?"),
    (("--order", "row:3"), "sizes that divide are 1, 2, 4"),
    (("--order", "row:2", "--unit", "token"), "not trained for unit 'token'; choose one of raster"),
    (("--order", "scale:1,2,4"), "draws coarse levels of continuous latents"),
    (("--top-k", "-1"), "top_k must be 0 (off) or more, not -1"),
    (("--top-p", "0"), "top_p must be above 0 and at most 1 (off), not 0.0"),
    (("--top-p", "1.5"), "not 1.5"),
    (("--min-p", "1"), "min_p must be"),
    (("--temperature", "-0.1"), "temperature must be 0 or more"),
    (("--temperature", "nan"), "temperature must be 0 or more"),
    (("--guidance", "-1"), "guidance scale must be 0 or more"),
    (("--guidance", "inf"), "guidance scale must be 0 or more"),
    (("--guidance-interval", "0.1"), "--guidance-interval is '0.1'; give two shares"),
    (("--guidance-interval", "0.9:0.1"), "guidance stop 0.1 must be above the start 0.9"),
    (("--guidance-ramp", "liner"), "did you mean 'linear'?"),
    (("--negative", "a dog", "--guidance", "1"), "does nothing at guidance scale 1"),
    (("--device", "toaster"), "device 'toaster' cannot be used"),
    (("--device", "cuda:99"), "device 'cuda:99' cannot be used"),
    (("-n", "0"), "--count is 0; give a number from 1 to 100000."),
    (("--given", "3"), "--given counts frames of --frames-from; add"),
    (("--seed", "-1"), "seed -1 must be a whole number"),
    (("--seed", str(2**63 - 1), "-n", "2"), "must be a whole number"),
    (("--scale", "0"), "--scale is 0"),
    (("--scale", "65"), "--scale is 65"),
    (("--threads", "0"), "--threads is 0"),
    (("--prompts", "no.txt"), "There is no file no.txt"),
    (("--prompts", "a-file"), "a-file holds no prompts"),
    (("--size", "64"), "a grid of 4x4 tokens, so 16x16 is the size that works"),
    (("--size", "16x20"), "--size is 16x20; the weights of 'tiny'"),
    (("--size", "big"), "give pixels as 64 or 64x64"),
    (
        ("--frames-out", "a.jpg"),
        "holds no clips; end its name in one of .gif, .webp, .apng, .mp4, .webm, .png",
    ),
    (("--frames-out", "a.bmp"), "end its name in one of .gif, .webp, .apng, .mp4, .webm, .png"),
    (("--frames-out", "new"), "--frames-out is new; name a .gif"),
    (("--frames-out", "a.gif", "-o", "a.gif"), "name a .gif, .webp or .png of its own"),
    (("-o", "cat.bmp"), "no picture's ending"),
    (("-o", "a-file"), "a-file is a file, not a folder"),
    (("-o", "a-file/cat.png"), "a-file is a file, not a folder"),
    (("-o", "a-file/deeper/still"), "a-file is a file, not a folder"),
    (("-o", "x" * 300 + ".png"), "File name too long"),
    (("--class", "cat"), "--class is 'cat'; give the number of a class"),
    (("--class", "-"), "--class is '-'; give the number of a class"),
    (("--unit", ""), "no unit ''"),
    (("--model", ""), "no pipeline ''"),
    (("--guidance", "1e308"), "guidance_scale must be 1000 at most, not 1e+308"),
    (("--threads", "100000"), "--threads is 100000; give a number from 1 to 1024."),
    (("-n", "1000000"), "--count is 1000000; give a number from 1 to 100000."),
    (("--text-encoder", "some/t5"), "a text tokenizer of their own; leave the text encoder out"),
]


@pytest.mark.parametrize(("words", "said"), SAMPLE)
def test_sample_refuses(
    words: tuple[str, ...], said: str, mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "a-file").touch()
    model = () if "--model" in words else ("--model", tiny)
    assert_one_sentence(mmgen("sample", "a cat", *words, *model, cwd=tmp_path), said)
    assert [path.name for path in tmp_path.rglob("*")] == ["a-file"]


EARLY = ("--top-p=1.5", "--temperature=-1", "-n=0", "--device=tpu", "--seed=-1", "--guidance=-1")


@pytest.mark.parametrize("word", EARLY)
def test_sample_checks_values_before_it_reads_weights(
    word: str, mmgen: Commands, tmp_path: Path
) -> None:
    option, value = word.split("=")
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "pipeline.json").write_text("{}")  # refused as soon as it is read
    done = mmgen("sample", "a cat", option, value, "--model", folder, cwd=tmp_path)
    assert_one_sentence(done, value)
    assert "pipeline.json" not in done.err


@pytest.mark.parametrize("verb", ["sample", "edit", "caption", "score"])
def test_nothing_is_downloaded_for_wrong_values(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object) -> None:
        raise AssertionError("it was downloaded")

    monkeypatch.setattr("mmgen.published.fetching.published_folder", download)
    Image.new("RGB", (32, 32)).save(tmp_path / "in.png")
    monkeypatch.chdir(tmp_path)
    words = {
        "sample": ("a cat", "--top-p", "2"),
        "edit": ("in.png", "a cat", "--box", "0,0,9,9", "--top-p", "2"),
        "caption": ("in.png", "--top-p", "2"),
        "score": ("in.png", "a cat", "--by", "text"),
    }
    done = CliRunner().invoke(mmgen.cli.app, [verb, *words[verb], "--model", "llamagen/c2i_B_256"])
    assert isinstance(done.exception, UserError), done.exception


def test_sample_needs_something_to_draw(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    asked = "give a prompt, --class NUMBER or --image FILE"
    assert_one_sentence(mmgen("sample", cwd=tmp_path), asked)
    both = ("sample", "a cat", "--class", "1", "--model", tiny)
    assert_one_sentence(mmgen(*both, cwd=tmp_path), "--class is for weights that draw classes")
    words = ("sample", "--class", "1", "--model", tiny)
    assert_one_sentence(mmgen(*words, cwd=tmp_path), "draw from text; give a prompt")


@pytest.mark.parametrize("place", ["locked", "locked/new", "locked/cat.png"])
def test_sample_refuses_a_locked_folder(
    place: str, mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    words = ("a cat", "--model", tiny, "-o", place)
    done = mmgen("sample", *words, cwd=tmp_path, plain=True)
    assert_one_sentence(done, "locked may not be written to")


def test_what_may_not_be_read_is_named(
    mmgen: Commands, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    shutil.copytree(pictures, tmp_path / "data")
    for name in ("model", "data"):
        (tmp_path / name).chmod(0)
    denied = "Permission denied"
    commands = (
        (("sample", "a cat", "--model", "model"), "model cannot be read: " + denied),
        (("tokenizer", "check", "model", pictures), denied),
        (("tokenizer", "check", tiny, "data"), "data"),
        (("train", "model/recipe.yaml"), denied),
    )
    for words, said in commands:
        assert_one_sentence(mmgen(*words, cwd=tmp_path, plain=True), said)
    (tmp_path / "model").chmod(0o700)
    (tmp_path / "model/transformer/model.safetensors").chmod(0)
    done = mmgen("sample", "a cat", "--model", "model", cwd=tmp_path, plain=True)
    assert_one_sentence(done, "model.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model"]


DAMAGE = {
    "pipeline.json": "not valid JSON",
    "text/tokenizer.json": "damaged",
    "vision/config.json": "not valid JSON",
    "vision/model.safetensors": "damaged",
    "transformer/config.json": "not valid JSON",
    "transformer/model.safetensors": "damaged",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_sample_refuses_a_damaged_pipeline(
    name: str, mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    file = tmp_path / "model" / name
    whole = file.read_bytes()
    words = ("sample", "a cat", "--model", "model")
    file.write_bytes(whole[: len(whole) // 2])
    assert_one_sentence(mmgen(*words, cwd=tmp_path), name, DAMAGE[name])
    file.unlink()
    assert_one_sentence(mmgen(*words, cwd=tmp_path))
    file.write_text("[]")
    assert_one_sentence(mmgen(*words, cwd=tmp_path), name)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


TRAIN = [
    (("emoji64-tokeniser",), "did you mean 'emoji64-tokenizer'?"),
    (("emoji64-tokenizer", "train.stepz=3"), "no key 'stepz'; did you mean 'steps'?"),
    (("emoji64-tokenizer", "modl.widths=[8]"), "no key 'modl'; did you mean 'model'?"),
    (("emoji64-tokenizer", "steps"), "'steps' is not an override"),
    (("emoji64-tokenizer", "train.steps="), "train.steps must be of type int"),
    (("emoji64-tokenizer", "train.steps=[1"), "'train.steps=[1'"),
    (("emoji64-tokenizer", "train.steps=-1"), "steps must be at least 1, not -1"),
    (("emoji64-tokenizer", "task=tokeniser"), "did you mean 'tokenizer'?"),
    (("emoji64-tokenizer", "data.train=nowhere"), "no nowhere; name a folder"),
    (("emoji64-tokenizer", "data.train=nowhere-{0..3}.tar"), "nowhere-0.tar"),
    (("emoji64-generator",), "runs/emoji64-tokenizer/final"),
    (("a-file",), "task cannot be 'None'"),
    (("broken.yaml",), "broken.yaml, line 3"),
]


@pytest.mark.parametrize(("words", "said"), TRAIN)
def test_train_refuses(words: tuple[str, ...], said: str, mmgen: Commands, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "broken.yaml").write_text("task: tokenizer\ntrain: {steps: 3\nout: x\n")
    assert_one_sentence(mmgen("train", *words, cwd=tmp_path), said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-file", "broken.yaml"]


def test_tokenizer_check_refuses(
    mmgen: Commands, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.tar").write_bytes(b"this is no tar" * 100)
    for words, said in (
        (("no-model", pictures), "no pipeline 'no-model'"),
        (("empty", pictures), "empty"),
        ((tiny, "nowhere"), "no nowhere"),
        ((tiny, "empty"), "empty holds no pictures"),
        ((tiny, "broken.tar"), "The shard broken.tar is truncated, damaged or not"),
        ((tiny, pictures, "--size", 15), "15x15 does not fit"),
        ((tiny, pictures, "--size", 0), "--size is 0"),
        ((tiny, pictures, "--size", -16), "--size is -16"),
        ((tiny, pictures, "--limit", 0), "--limit is 0"),
        ((tiny, pictures, "--device", "toaster"), "device 'toaster' cannot be used"),
        ((tiny, pictures, "-o", "check.txt"), "check.txt has no picture's ending"),
        ((tiny, pictures, "-o", "empty"), "empty does not name a picture"),
    ):
        assert_one_sentence(mmgen("tokenizer", "check", *words, cwd=tmp_path), said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.tar", "empty"]


def test_orders_refuses(mmgen: Commands, tmp_path: Path) -> None:
    for words, said in (
        (("rastr",), "did you mean 'raster'?"),
        (("row:3",), "sizes that divide"),
        (("raster", "--grid", "8"), "Cannot read the grid '8'"),
        (("raster", "--prediction", "shft"), "shft"),
        (("raster", "-o", "/dev/null/x"), "/dev/null is a file, not a folder"),
    ):
        assert_one_sentence(mmgen("orders", *words, cwd=tmp_path), said)
    assert not list(tmp_path.iterdir())


USAGE = [
    ((), ""),
    (("tokenizer",), ""),
    (("data",), ""),
    (("sampel",), "No such command 'sampel'. Did you mean 'sample'"),
    (("sample", "a cat", "--sede", "1"), "No such option: --sede"),
    (("sample", "a cat", "--seed", "one"), "Invalid value for '--seed'"),
    (("sample", "a cat", "-n", "1.5"), "Invalid value for '-n' / '--count'"),
    (("sample", "a cat", "--seed"), "requires an argument"),
    (("train",), "; see `mmgen train --help`."),
    (("tokenizer", "check", "x"), "Missing argument"),
    (("data", "emoji"), "Missing option '--out'"),
]


@pytest.mark.parametrize(("words", "said"), USAGE)
def test_wrong_usage_is_plain(
    words: tuple[str, ...], said: str, mmgen: Commands, tmp_path: Path
) -> None:
    done = mmgen(*words, cwd=tmp_path)
    if said:
        assert_one_sentence(done, said)
    else:  # a group without a command shows its help
        told = done.err or done.out
        assert done.code == 2 and told.startswith("Usage: mmgen") and "╭" not in told, done
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_run_names_its_pipeline(
    mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "run" / "final")
    done = mmgen("sample", "a cat", "--model", "run", cwd=tmp_path)
    assert_one_sentence(done, "run is a training run; its pipeline is run/final.")


def test_a_run_and_a_tokenizer_are_told_from_a_pipeline(
    mmgen: Commands, tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.yaml").touch()
    check = ("tokenizer", "check", "run", pictures)
    draw = ("sample", "a cat", "--model")
    for words in (check, (*draw, "run")):
        done = mmgen(*words, cwd=tmp_path)
        assert_one_sentence(done, "run is a training run that has not finished; its `mmgen train`")
    shutil.copytree(tiny / "vision", tmp_path / "run/final")
    for words in (check, (*draw, "run")):
        done = mmgen(*words, cwd=tmp_path)
        assert_one_sentence(done, "run is a training run; its tokenizer is run/final.")
    done = mmgen(*draw, "run/final", cwd=tmp_path)
    assert_one_sentence(done, "run/final is a tokenizer, not a pipeline; train a generator on it")


def test_a_newer_format_asks_for_an_upgrade(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    file = tmp_path / "model/pipeline.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2, "new": "key"}))
    done = mmgen("sample", "a cat", "--model", "model", cwd=tmp_path)
    assert_one_sentence(done, "model has format 2, newer than", "upgrade mmgen-ar")


@pytest.mark.parametrize("kind", [TyperException, BadParameter])
def test_whatever_the_option_parser_says_is_one_sentence(
    kind: type[TyperException], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app(**_: object) -> None:
        raise kind("Could not open file\n  'a.txt'.")

    monkeypatch.setattr(mmgen.cli, "app", app)
    with pytest.raises(SystemExit, match="2"):
        mmgen.cli.main()
    said = capsys.readouterr().err
    assert said.startswith("mmgen: ") and said.endswith("'a.txt'; see `mmgen --help`.\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("eval", "generator", "--data", "x", "--pictures", 1), "'--pictures': give 2 or more;"),
        (("sample", "a cat", "-n", "two"), "'-n' / '--count': give a whole number"),
        (("bench", "sample", "--threads", "1.5"), "give a whole number;"),
        (("orders", "raster", "--grid", "0x8"), "The grid '0x8' holds no tokens"),
        (("edit", "a.png", "a cat", "--guidance", "much"), "'--guidance': give a number;"),
    ],
)
def test_values_are_refused_in_our_words(
    words: tuple[object, ...], said: str, mmgen: Commands, tmp_path: Path
) -> None:
    done = mmgen(*words, cwd=tmp_path)
    assert_one_sentence(done, said)
    assert "Input should" not in done.err


def test_a_key_of_a_made_recipe_goes_by_its_name(
    mmgen: Commands, pictures: Path, tmp_path: Path
) -> None:
    words = ("train", "tokenizer", "--data", pictures, "--size", 16)
    done = mmgen(*words, "train.stps=3", cwd=tmp_path)
    assert_one_sentence(done, "mmgen: train has no key 'stps'; did you mean 'steps'?")
    done = mmgen(*words, "train.steps=few", cwd=tmp_path)
    assert_one_sentence(done, "mmgen: train.steps must be of type int, not 'few'.")
    done = mmgen(*words, "trian.steps=3", cwd=tmp_path)
    assert_one_sentence(done, "mmgen: The recipe has no key 'trian'; did you mean 'train'?")
