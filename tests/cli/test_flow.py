"""`mmgen sample` and `caption` on weights that draw latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.test_flow_pipeline import flow_pipeline
from tests.tiny_latents import latent_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pipelines") / "flow"
    flow_pipeline().save_pretrained(place)
    return place


def test_classes_are_drawn(mmgen: Any, folder: Path, tmp_path: Path) -> None:
    words = ("sample", "--model", folder, "--class", 2, "--seed", 1, "--out", "a.png")
    done = mmgen(*words, "--steps", "4,3,2,1", "--solver", "euler", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps", "many"), "--steps is 'many'; give a whole number, or several as 50,38,26,15."),
        (("--steps", "3,3"), "There are 2 numbers of steps for 4 blocks; give one for each."),
        (("--solver", "eular"), "The solver cannot be 'eular'; did you mean 'euler'?"),
        (("--top-k", "5"), "The weights of 'flow' draw latents; leave out top_k."),
    ],
)
def test_settings_that_do_not_fit(
    mmgen: Any, folder: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = mmgen("sample", "--model", folder, "--class", 2, *words, cwd=tmp_path)
    assert done.code == 2
    assert said in done.err and "Traceback" not in done.err


# -- text before latents -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pipelines") / "latents"
    latent_pipeline().save_pretrained(place)
    return place


def test_prompts_are_drawn_captioned_and_replayed(mmgen: Any, spoken: Path, tmp_path: Path) -> None:
    words = ("sample", "a red apple", "--model", spoken, "--seed", 1, "--out", "a.png")
    done = mmgen(*words, "--unit", "cell", "--steps", "4,3,2,1", "--solver", "heun", cwd=tmp_path)
    assert done.code == 0, done.err
    done = mmgen("replay", "a.png", "--model", spoken, cwd=tmp_path)
    assert done.code == 0, done.err
    done = mmgen("caption", "a.png", "--model", spoken, "--scores", cwd=tmp_path)
    assert done.code == 0 and done.out.strip(), done.err


def test_how_likely_latents_are_is_not_asked(mmgen: Any, spoken: Path, tmp_path: Path) -> None:
    words = ("sample", "a red apple", "--model", spoken, "--seed", 1, "--out", "a.png")
    assert mmgen(*words, "--steps", 2, cwd=tmp_path).code == 0
    words = ("score", "a.png", "a red apple", "--by", "picture", "--model", spoken)
    done = mmgen(*words, cwd=tmp_path)
    assert done.code == 2 and "draw latents, which have no likelihood" in done.err
    assert "Traceback" not in done.err
