"""`mmgen sample --class` on weights that draw latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.test_flow_pipeline import flow_pipeline


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
