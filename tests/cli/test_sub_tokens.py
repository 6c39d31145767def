"""`mmgen sample --class` on weights that draw in sub-tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.test_sub_tokens import sub_token_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pipelines") / "sub-tokens"
    sub_token_pipeline().save_pretrained(place)
    return place


def test_classes_are_drawn(mmgen: Any, folder: Path, tmp_path: Path) -> None:
    words = ("sample", "--model", folder, "--class", 2, "--seed", 1, "--out", "a.png")
    done = mmgen(*words, "--guidance", "1.9,2", "--temperature", 0, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--guidance", "1.9;2"), "--guidance is '1.9;2'; give a number, or several as 1.9,2.0."),
        (("--temperature", "warm"), "--temperature is 'warm'; give a number"),
        (("--guidance", "1,2,3"), "has 3 values, but a code of these weights has 2 sub-tokens"),
    ],
)
def test_wrong_lists(
    mmgen: Any, folder: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = mmgen("sample", "--model", folder, "--class", 2, *words, cwd=tmp_path)
    assert done.code == 2
    assert said in done.err and "Traceback" not in done.err
