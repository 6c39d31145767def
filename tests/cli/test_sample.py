"""`mmgen sample`: what it draws, how it names files, what it writes into them."""

from __future__ import annotations

import io
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from mmgen.cli.values import prompts_in
from mmgen.pipeline_folder import shipped_pipelines
from mmgen.sample.recipe_files import read_recipe

if TYPE_CHECKING:
    from conftest import Commands


SEEDED = r"mmgen: Drawn with --seed \d+\.\n"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def draw(mmgen: Commands, tiny: Path, place: Path, *words: object) -> list[Path]:
    """Run `mmgen sample`; returns the files that it names, and asserts that there are no others."""
    before = set(place.rglob("*"))
    done = mmgen("sample", *words, "--model", tiny, cwd=place)
    said = re.sub(r"mmgen: The sheet's font .*\n", "", done.err)
    asked = "--seed" in words
    assert done.code == 0 and re.fullmatch("" if asked else SEEDED, said), done
    files = [place / line for line in done.out.splitlines()]
    assert {path for path in set(place.rglob("*")) - before if path.is_file()} <= set(files)
    return files


def test_one_prompt_makes_one_picture_that_knows_its_recipe(
    mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    words = ("a red apple", "--seed", 7, "--top-k", 20, "--temperature", 0.5, "--negative", "blue")
    (file,) = draw(mmgen, tiny, tmp_path, *words, "-o", "apple.png")
    assert file == tmp_path / "apple.png" and pixels(file).shape == (64, 64, 3)
    recipe = read_recipe(file)
    asked = {"prompt": "a red apple", "seed": 7, "top_k": 20, "temperature": 0.5, "scale": 4}
    assert asked.items() <= recipe.items()
    assert {"negative_prompt": "blue", "unit": "neighbor", "order": "neighbor"}.items() <= (
        recipe.items()
    )
    assert recipe["model"] == "tiny" and len(recipe["weights"]) == 3 * 16 + 2
    assert {"mmgen", "guidance_scale", "top_p", "min_p", "reproducible"} <= recipe.keys()


def test_default_names_come_from_the_prompt_and_never_overwrite(
    mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    (first,) = draw(mmgen, tiny, tmp_path, "A Red/Apple!", "--seed", 1)
    assert first.name == "a-red-apple.png"
    before = first.read_bytes()
    (second,) = draw(mmgen, tiny, tmp_path, "a red apple", "--seed", 2)
    assert second.name == "a-red-apple-2.png" and first.read_bytes() == before
    assert [file.name for file in draw(mmgen, tiny, tmp_path, "")] == ["picture.png"]


def test_classes_are_drawn(mmgen: Commands, classes: Path, tmp_path: Path) -> None:
    words = ("--class", 2, "--class", 0, "--guidance", 4, "--top-k", 0, "--seed", 1)
    files = draw(mmgen, classes, tmp_path, *words)
    assert [file.name for file in files] == ["class-2.png", "class-0.png", "sheet.png"]
    recipe = read_recipe(files[0])
    assert {
        "class_label": 2,
        "guidance_scale": 4.0,
        "top_k": 0,
        "seed": 1,
    }.items() <= recipe.items()
    assert pixels(files[0]).shape == (64, 64, 3)


def test_several_pictures_make_a_sheet(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    files = draw(mmgen, tiny, tmp_path, "a cat", "a dog", "-n", 2, "--seed", 5)
    assert [file.name for file in files] == [
        "a-cat.png",
        "a-cat-2.png",
        "a-dog.png",
        "a-dog-2.png",
        "sheet.png",
    ]
    recipes = [read_recipe(file) for file in files]
    assert [recipe["seed"] for recipe in recipes[:4]] == [5, 6, 7, 8]
    assert recipes[4]["pictures"] == recipes[:4]
    same = draw(mmgen, tiny, tmp_path, "a fox", "-n", 2)
    assert same[-1].name == "a-fox-sheet.png"
    again = draw(mmgen, tiny, tmp_path, "a cat", "a dog", "-n", 2, "--seed", 5)
    assert not {file.name for file in again} & {file.name for file in files}


def test_out_names_a_folder_or_a_file(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    (file,) = draw(mmgen, tiny, tmp_path, "a cat", "-o", "new")
    assert file == tmp_path / "new/a-cat.png"
    (file,) = draw(mmgen, tiny, tmp_path, "a cat", "-o", "other/cat.png")
    assert file == tmp_path / "other/cat.png"
    files = draw(mmgen, tiny, tmp_path, "a cat", "-n", 2, "-o", "cats.webp")
    assert [file.name for file in files] == ["cats-1.webp", "cats-2.webp", "cats.webp"]
    (tmp_path / "cats.v2").mkdir()
    (file,) = draw(mmgen, tiny, tmp_path, "a cat", "-o", "cats.v2")
    assert file == tmp_path / "cats.v2/a-cat.png"


def test_what_is_replaced_is_said(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    words = ("sample", "a cat", "--model", tiny, "-o", "cat.png", "--scale", 1)
    assert mmgen(*words, cwd=tmp_path).out == "cat.png\n"
    assert mmgen(*words, cwd=tmp_path).out == "cat.png (replaced)\n"
    many = mmgen(*words, "-n", 2, cwd=tmp_path)
    assert many.out == "cat-1.png\ncat-2.png\ncat.png (replaced)\n"
    assert names(tmp_path) == ["cat-1.png", "cat-2.png", "cat.png"]  # nothing is left beside them


def test_no_two_pictures_of_a_run_get_one_name(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    prompts = ("cat", "cat", "cat 2", "sheet", "кот", "🐈")
    files = draw(mmgen, tiny, tmp_path, *prompts, "--scale", 1)
    assert [file.name for file in files] == [
        *("cat.png", "cat-2.png", "cat-2-2.png", "sheet.png", "кот.png"),
        *("picture.png", "sheet-2.png"),
    ]
    assert [read_recipe(file)["prompt"] for file in files[:-1]] == list(prompts)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".gif"])
def test_every_format_carries_the_recipe(
    suffix: str, mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    (file,) = draw(mmgen, tiny, tmp_path, "a cat", "-o", f"cat{suffix}")
    assert read_recipe(file)["prompt"] == "a cat" and pixels(file).shape == (64, 64, 3)


def test_the_seed_decides_the_picture(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    def one(name: str, seed: int) -> np.ndarray:
        (file,) = draw(mmgen, tiny, tmp_path, "a cat", "--seed", seed, "-o", name)
        return pixels(file)

    first = one("a.png", 3)
    assert (one("b.png", 3) == first).all() and (one("c.png", 4) != first).any()


def test_the_recipe_draws_the_picture_again(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    (file,) = draw(mmgen, tiny, tmp_path, "a dog", "-o", "a.png")  # of a random seed
    recipe = read_recipe(file)
    words = ("--seed", recipe["seed"], "--unit", recipe["unit"], "--order", recipe["order"])
    (again,) = draw(mmgen, tiny, tmp_path, recipe["prompt"], *words, "-o", "b.png")
    assert (pixels(again) == pixels(file)).all() and read_recipe(again) == recipe
    (other,) = draw(mmgen, tiny, tmp_path, "a dog", "-o", "c.png")
    assert read_recipe(other)["seed"] != recipe["seed"]


@pytest.mark.parametrize("unit", ["neighbor", "block", "token", "any"])
def test_every_unit_draws(unit: str, mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    (file,) = draw(mmgen, tiny, tmp_path, "a cat", "--unit", unit, "-o", "cat.png")
    assert read_recipe(file)["unit"] == unit


@pytest.mark.parametrize(
    ("words", "unit", "order"),
    [
        (("--order", "subsample:2"), "any", "subsample:2"),
        (("--order", "random:3:5"), "any", "random:3:5"),
        (("--order", "row"), "block", "row:1"),
        (("--unit", "any", "--order", "row:1"), "any", "row:1"),
    ],
)
def test_an_order_finds_its_unit(
    words: tuple[str, ...],
    unit: str,
    order: str,
    mmgen: Commands,
    tiny: Path,
    tmp_path: Path,
) -> None:
    (file,) = draw(mmgen, tiny, tmp_path, "a cat", *words, "-o", "cat.png")
    recipe = read_recipe(file)
    assert (recipe["unit"], recipe["order"]) == (unit, order)


def test_reproducible_pictures_are_the_same_alone(
    mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    words = ("--reproducible", "--scale", 1)
    *eight, _ = draw(mmgen, tiny, tmp_path, "a cat", "-n", 8, "--seed", 20, *words, "-o", "8.png")
    for i in (0, 3, 7):
        (alone,) = draw(mmgen, tiny, tmp_path, "a cat", "--seed", 20 + i, *words, "-o", f"{i}.png")
        # The pixel decoder still runs in one batch, whose sums may round to the next byte.
        assert abs(pixels(alone) - pixels(eight[i])).max() <= 1
        assert read_recipe(alone) == read_recipe(eight[i])


def test_a_prompt_that_is_cut_is_named(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    done = mmgen("sample", "a red apple " * 9, "--model", tiny, "-o", "a.png", cwd=tmp_path)
    assert (done.code, done.out) == (0, "a.png\n")
    assert done.err.startswith("mmgen: The prompt is too long; only this was read: a red apple")
    done = mmgen("sample", "яблоко" * 9, "--model", tiny, "-o", "b.png", cwd=tmp_path)
    assert done.code == 0 and done.err.startswith("mmgen: The prompt is too long")
    assert "\ufffd" not in done.err  # a letter that was cut in two


def test_prompts_that_the_sheet_cannot_write_are_numbers(
    mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    words = ("--seed", 1, "--scale", 2, "--model", tiny)
    done = mmgen("sample", "a cat", "яблоко", *words, "-o", "a.png", cwd=tmp_path)
    assert done.code == 0 and "prompts stand as their picture's number" in done.err
    assert mmgen("sample", "a cat", "2", *words, "-o", "b.png", cwd=tmp_path).err == ""
    labels = [pixels(tmp_path / name)[-20:] for name in ("a.png", "b.png")]
    assert (labels[0] == labels[1]).all()
    assert mmgen("replay", "a.png", "--model", tiny, cwd=tmp_path).code == 0


def test_interrupting_says_so_in_one_line(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    words = ("sample", "a cat", "-n", 4000, "--unit", "token", "--reproducible", "--model", tiny)
    running = mmgen.start(*words, cwd=tmp_path)
    time.sleep(1.0)
    os.kill(running.pid, signal.SIGINT)
    done = mmgen.finish(running)
    assert (done.code, done.out, done.err) == (130, "", "mmgen: Stopped by Ctrl-C.\n")
    assert not names(tmp_path)


@pytest.mark.skipif("emoji-64" not in shipped_pipelines(), reason="emoji-64 is not shipped here")
def test_the_shipped_pipeline_draws(mmgen: Commands, tmp_path: Path) -> None:
    done = mmgen("sample", "a red apple", "--seed", 1, cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "a-red-apple.png\n", "")
    file = tmp_path / "a-red-apple.png"
    assert read_recipe(file)["model"] == "emoji-64" and pixels(file).std() > 10


def test_prompts_come_from_a_file_too(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("\ufeffa dog\n\n  a red apple  \n", encoding="utf-8")
    files = draw(mmgen, tiny, tmp_path, "a cat", "--prompts", "some.txt", "-o", "a.png")
    assert [file.name for file in files] == ["a-1.png", "a-2.png", "a-3.png", "a.png"]
    assert [read_recipe(file)["prompt"] for file in files[:3]] == ["a cat", "a dog", "a red apple"]


def test_prompts_end_where_lines_end(tmp_path: Path) -> None:
    text = "a\u2028cat\r\na\x0bdog\n\n a\x85cup \ra\x1chat"
    (tmp_path / "p.txt").write_bytes(text.encode())
    assert prompts_in(tmp_path / "p.txt") == ["a\u2028cat", "a\x0bdog", "a\x85cup", "a\x1chat"]


def test_prompts_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.TextIOWrapper(io.BytesIO("ein Apfel\n\nпривет\n".encode()))
    monkeypatch.setattr("sys.stdin", lines)
    assert prompts_in(Path("-")) == ["ein Apfel", "привет"] and prompts_in(None) == []


def test_the_size_of_the_training_is_the_one_that_works(
    mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    for size in ("16", "16x16"):
        (file,) = draw(mmgen, tiny, tmp_path, "a cat", "--size", size, "--scale", 2)
        assert pixels(file).shape == (32, 32, 3)


def test_the_growth_is_written_and_told(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    words = ("a cat", "-n", 2, "--unit", "block", "--seed", 1, "-o", "a.png", "--scale", 2)
    plain = draw(mmgen, tiny, tmp_path, *words)
    before = [file.read_bytes() for file in plain]
    done = mmgen(
        *("sample", *words, "--frames-out", "g.gif", "--preview", "--model", tiny), cwd=tmp_path
    )
    assert done.code == 0 and done.out.splitlines() == [
        *(f"{file.name} (replaced)" for file in plain),
        "g.gif",
    ]
    assert done.err.splitlines() == [f"mmgen: step {i} of 4" for i in (1, 2, 3, 4)]
    assert [file.read_bytes() for file in plain] == before  # looking changes nothing
    with Image.open(tmp_path / "g.gif") as growth:
        assert growth.n_frames == 4 and growth.size == (112, 64)
