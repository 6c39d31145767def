"""`mmgen edit`, `caption`, `score` and `replay`: what they write, say and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from one_sentence import assert_one_sentence
from PIL import Image

from mmgen.sample.recipe_files import read_recipe

if TYPE_CHECKING:
    from conftest import Commands


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a picture, a mask of it and a file that is neither."""
    picture = Image.new("RGB", (32, 32), "red")
    picture.paste("blue", (5, 5, 20, 25))
    picture.save(tmp_path / "in.png")
    mask = Image.new("L", (32, 32))
    mask.paste("white", (8, 8, 16, 24))
    mask.save(tmp_path / "mask.png")
    picture.save(tmp_path / "in-2.png")
    (tmp_path / "no.txt").write_text("no picture")
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_an_edit_keeps_the_rest_and_is_replayed(mmgen: Commands, tiny: Path, place: Path) -> None:
    words = ("edit", "in.png", "a cat", "--mask", "mask.png", "-n", 2, "--seed", 3, "-o", "e.png")
    done = mmgen(*words, "--model", tiny, "--steps", 2, cwd=place)
    assert (done.code, done.err) == (0, "") and done.out.split() == ["e-1.png", "e-2.png", "e.png"]
    masked = pixels(place / "mask.png") > 0
    before, after = pixels(place / "in.png"), pixels(place / "e-1.png")
    assert (after[~masked] == before[~masked]).all() and (after[masked] != before[masked]).any()
    recipe = read_recipe(place / "e-2.png")
    assert {"seed": 4, "order": "kept:fbbf:0:2", "scale": 1}.items() <= recipe.items()
    words = ("replay", "e.png", "--source", "in.png", "--model", tiny)
    done = mmgen(*words, cwd=place)
    assert (done.code, done.err) == (0, "") and done.out.startswith("e.png: identical\n")


def test_boxes_and_margins(mmgen: Commands, tiny: Path, place: Path) -> None:
    done = mmgen("edit", "in.png", "a dog", "--box", "0,0,9,32", "--model", tiny, cwd=place)
    assert (done.code, done.out) == (0, "a-dog.png\n")
    seed = read_recipe(place / "a-dog.png")["seed"]
    assert done.err == f"mmgen: Drawn with --seed {seed}.\n"
    assert (pixels(place / "a-dog.png")[:, 9:] == pixels(place / "in.png")[:, 9:]).all()
    for margins, size in (("16", (64, 64)), ("0,8,8,0", (40, 40))):
        words = ("in.png", "a dog", "--outpaint", margins, "-o", "o.png", "--model", tiny)
        assert mmgen("edit", *words, cwd=place).code == 0
        assert Image.open(place / "o.png").size == size


def test_captions(mmgen: Commands, tiny: Path, place: Path) -> None:
    one = mmgen("caption", "in.png", "--model", tiny, cwd=place)
    assert (one.code, one.err) == (0, "") and len(one.out.splitlines()) == 1
    two = mmgen("caption", "in.png", "mask.png", "--model", tiny, cwd=place)
    assert two.out.splitlines()[0] == f"in.png: {one.out.strip()}"
    assert two.out.splitlines()[1].startswith("mask.png: ")
    several = mmgen("caption", "in.png", "-n", 3, "--seed", 1, "--model", tiny, cwd=place)
    assert len(set(several.out.splitlines())) == 3
    later = mmgen("caption", "in.png", "-n", 2, "--seed", 2, "--model", tiny, cwd=place)
    assert later.out.splitlines() == several.out.splitlines()[1:]
    cold = ("--temperature", "0.01")
    assert mmgen("caption", "in.png", "-n", 2, *cold, "--model", tiny, cwd=place).out == one.out * 2


def test_captions_with_scores_are_those_of_score(mmgen: Commands, tiny: Path, place: Path) -> None:
    words = ("caption", "in.png", "--scores", "--json", "--model", tiny)
    (told,) = json.loads(mmgen(*words, cwd=place).out)
    words = ("score", "in.png", told["caption"], "a red apple", "--json", "--model", tiny)
    found = json.loads(mmgen(*words, cwd=place).out)
    (same,) = [each for each in found if each["prompt"] == told["caption"]]
    assert same["log_likelihood"] == pytest.approx(told["log_likelihood"], abs=1e-4)
    assert sum(value for _, value in told["tokens"]) == pytest.approx(told["log_likelihood"])
    assert told["mean"] == pytest.approx(told["log_likelihood"] / len(told["tokens"]))
    plain = mmgen("caption", "in.png", "--scores", "--model", tiny, cwd=place).out.splitlines()
    assert plain[0] == told["caption"]
    start = f"  {told['log_likelihood']:.2f}, {told['mean']:.2f} a token: "
    assert plain[1].startswith(start) and f"(end) {told['tokens'][-1][1]:.2f}" in plain[1]


@pytest.mark.parametrize("by", ["caption", "picture"])
def test_scores_are_a_table_best_first(by: str, mmgen: Commands, tiny: Path, place: Path) -> None:
    words = ("score", "in.png", "a red apple", "a cat", "a blue square", "--by", by)
    done = mmgen(*words, "--model", tiny, cwd=place)
    assert (done.code, done.err) == (0, "")
    head, *rows = done.out.splitlines()
    assert head.split() == ["a", "token", "total", "tokens", "prompt"] and len(rows) == 3
    means = [float(row.split()[0]) for row in rows]
    assert means == sorted(means, reverse=True)
    found = json.loads(mmgen(*words, "--json", "--model", tiny, cwd=place).out)
    assert len(mmgen(*words, "--json", "--model", tiny, cwd=place).out.splitlines()) == len(found)
    assert [each["prompt"] for each in found] == [row.split(maxsplit=3)[3] for row in rows]
    other = json.loads(mmgen(*words, "--json", "--unit", "any", "--model", tiny, cwd=place).out)
    assert other[0]["mean"] != found[0]["mean"]


def test_a_replay_says_what_differs(mmgen: Commands, tiny: Path, place: Path) -> None:
    words = ("a cat", "-n", 2, "--seed", 3, "--unit", "token", "--model", tiny, "-o", "a.png")
    assert mmgen("sample", *words, cwd=place).code == 0
    done = mmgen("replay", "a.png", "--model", tiny, cwd=place)
    assert (done.code, done.err) == (0, "")
    said, *told = done.out.splitlines()
    assert said == "a.png: identical" and len(told) == 2
    assert told[1].startswith('  model "tiny", prompt "a cat", seed 4, unit "token"')
    words = ("edit", "a-1.png", "a cat", "--box", "0,0,9,9", "--seed", 1, "--model", tiny)
    assert mmgen(*words, "-o", "b.png", cwd=place).code == 0
    told = read_recipe(place / "b.png")
    from mmgen.sample.pictures import save_picture

    with Image.open(place / "a-2.png") as other:
        save_picture(other.convert("RGB"), place / "c.png", told)
    done = mmgen("replay", "a.png", "--source", "a-1.png", "--model", tiny, cwd=place)
    assert_one_sentence(done, "a.png was drawn from no other file; leave out --source")
    done = mmgen("replay", "c.png", "--source", "a-1.png", "--model", tiny, cwd=place)
    assert done.code == 1 and done.out.startswith("c.png: values differ by at most ")


REFUSED: list[tuple[tuple[Any, ...], str]] = [
    (("edit", "in.png", "a cat"), "give one of --mask, --box and --outpaint"),
    (
        ("edit", "in.png", "a", "--box", "0,0,9,9", "--mask", "mask.png"),
        "--mask and --box each say",
    ),
    (("edit", "in.png", "a cat", "--outpaint", 0), "outpaint is 0, which adds nothing"),
    (("score", "in.png", "a cat", " "), "One of the texts is empty; give words"),
    (("edit", "in.png", "a cat", "--box", "1,2,3"), "--box is '1,2,3'; give four whole numbers"),
    (("edit", "in.png", "a cat", "--box", "1,2,3,x"), "give four whole numbers"),
    (("edit", "in.png", "a cat", "--box", "16"), "give four whole numbers"),
    (("edit", "in.png", "a cat", "--box", "30,0,9,9"), "does not lie in the picture of 32x32"),
    (("edit", "in.png", "a cat", "--box", "0,0,32,32"), "Nothing would be kept"),
    (("edit", "no.png", "a cat", "--box", "0,0,9,9"), "There is no file no.png"),
    (("edit", "no.txt", "a cat", "--box", "0,0,9,9"), "it is not a picture"),
    (("edit", "in.png", "a cat", "--mask", "no.png"), "There is no file no.png"),
    (("edit", "in.png", "a cat", "--box", "0,0,9,9", "--threads", 0), "--threads is 0"),
    (("edit", "in.png", "a cat", "--box", "0,0,9,9", "--steps", 0), "steps is 0, but 4 tokens"),
    (("edit", "in.png", "a cat", "--box", "0,0,9,9", "-n", 0), "--count is 0; give a number"),
    (("edit", "in.png", "a cat", "--box", "0,0,9,9", "-n", 10**9), "from 1 to 100000"),
    (("edit", "in.png", "a cat", "--box", "0,0,9,9", "-o", "a.bmp"), "no picture's ending"),
    (("edit", "in.png", "a", "--box", "0,0,9,9", "-o", "in.png"), "in.png would be replaced"),
    (("edit", "in.png", "a", "--mask", "mask.png", "-o", "mask.png"), "mask.png would be replaced"),
    (("edit", "in-2.png", "a", "--box", "0,0,9,9", "-n", 2, "-o", "in.png"), "in-2.png would be"),
    (("edit", "in-2.png", "a", "b", "--box", "0,0,9,9", "-o", "in.png"), "but it is read"),
    (("caption", "no.png"), "There is no file no.png"),
    (("caption", "no.txt"), "mmgen: no.txt cannot be used: it is not a picture"),
    (("caption", "in.png", "-n", 0), "-n is 0; give 1 to 1000"),
    (("caption", "in.png", "-n", 2, "--temperature", 0), "all 2 captions are the same"),
    (("caption", "in.png", "--temperature", -1), "temperature must be 0 or more"),
    (("caption", "in.png", "--seed", -1), "seed -1 must be"),
    (("score", "no.png", "a cat"), "There is no file no.png"),
    (("score", "in.png", "a cat", "--by", "text"), "by caption or by picture, not 'text'"),
    (("score", "in.png", "a cat", "--unit", "tokn"), "did you mean 'token'?"),
    (("replay", "no.png"), "There is no file no.png"),
    (("replay", "in.png"), "holds no mmgen recipe"),
    (("replay", "no.txt"), "it is not a PNG, JPEG, WEBP or GIF picture"),
    (("replay", "in.png", "--source", "no.png"), "There is no file no.png"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_mistakes_are_one_sentence(
    words: tuple[Any, ...], said: str, mmgen: Commands, tiny: Path, place: Path
) -> None:
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert_one_sentence(mmgen(*words, "--model", tiny, cwd=place), said)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


EDIT = ("edit", "in.png", "a", "--box", "0,0,9,9")
VALUES: list[tuple[tuple[Any, ...], str]] = [
    ((*EDIT, "--top-p", 2), "top_p must be"),
    ((*EDIT, "--temperature", -1), "temperature must be 0 or more"),
    ((*EDIT, "--guidance", "inf"), "guidance scale must be 0 or more"),
    ((*EDIT, "--seed", -1), "seed -1 must be"),
    (("edit", "in.png", "a", "--box", "30,0,9,9"), "does not lie in the picture of 32x32"),
    (("edit", "in.png", "a", "--mask", "no.txt"), "it is not a picture"),
    (("caption", "in.png", "--temperature", "nan"), "temperature must be 0 or more"),
    (("caption", "in.png", "--top-p", 0), "top_p must be"),
    (("caption", "in.png", "--seed", -1), "seed -1 must be"),
    (("caption", "in.png", "mask.png", "--seed", 2**63 - 1), "must be a whole number"),
    (("score", "in.png", "a", "--by", "text"), "by caption or by picture, not 'text'"),
]


@pytest.mark.parametrize(("words", "said"), VALUES)
def test_values_are_checked_before_weights_are_read(
    words: tuple[Any, ...], said: str, mmgen: Commands, place: Path
) -> None:
    broken = place / "broken"
    broken.mkdir()
    (broken / "pipeline.json").write_text('{"format": 1, "name": "x", "image_size": 16}')
    assert_one_sentence(mmgen(*words, "--model", broken, cwd=place), said)


@pytest.mark.parametrize("words", [EDIT, ("caption", "in.png"), ("score", "in.png", "a")])
def test_a_wrong_name_is_told_before_a_wrong_picture(
    words: tuple[Any, ...], mmgen: Commands, place: Path
) -> None:
    wrong = [word if word != "in.png" else "no.png" for word in words]
    assert_one_sentence(mmgen(*wrong, "--model", "emoji-6", cwd=place), "no pipeline 'emoji-6'")


def test_integer_weights_are_replayed_as_such(mmgen: Commands, tiny: Path, place: Path) -> None:
    words = ("sample", "a cat", "--weights", "int8", "--model", tiny, "-o", "a.png")
    assert mmgen(*words, cwd=place).code == 0
    done = mmgen("replay", "a.png", "--model", tiny, cwd=place)
    assert done.code == 0 and done.out.startswith("a.png: identical\n")


def test_a_replay_asks_for_weights_that_do_not_come_along(
    mmgen: Commands, tiny: Path, place: Path
) -> None:
    assert mmgen("sample", "a cat", "--model", tiny, "-o", "a.png", cwd=place).code == 0
    done = mmgen("replay", "a.png", cwd=place)
    assert_one_sentence(done, "drawn by 'tiny', which does not come with mmgen; give its folder")


def test_weights_that_only_draw_are_refused(mmgen: Commands, classes: Path, place: Path) -> None:
    for words in (
        ("caption", "in.png"),
        ("score", "in.png", "a"),
        ("edit", "in.png", "a", "--box", "0,0,9,9"),
    ):
        assert_one_sentence(mmgen(*words, "--model", classes, cwd=place), "only draw")
