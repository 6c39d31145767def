"""Where commands write: one rule for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from one_sentence import assert_one_sentence
from PIL import Image

if TYPE_CHECKING:
    from conftest import Commands

COMMANDS: list[tuple[tuple[Any, ...], str]] = [
    (("sample", "a cat", "--seed", 1, "--model", "MODEL"), "cat.png"),
    (("sample", "a cat", "--seed", 1, "--model", "MODEL"), ""),
    (("edit", "old.png", "a cat", "--box", "0,0,8,8", "--seed", 1, "--model", "MODEL"), "new.png"),
    (("tokenizer", "check", "MODEL", "old.png", "--limit", 1), "check.png"),
    (("orders", "raster"), ""),
]


@pytest.mark.parametrize(("words", "name"), COMMANDS)
def test_missing_folders_are_made(
    words: tuple[Any, ...], name: str, mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "old.png")
    told = [tiny if word == "MODEL" else word for word in words]
    done = mmgen(*told, "-o", Path("a/b", name), cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "a/b").is_dir() and list((tmp_path / "a/b").iterdir())
    blocked = mmgen(*told, "-o", Path("old.png/b", name), cwd=tmp_path)
    assert_one_sentence(blocked, "old.png is a file, not a folder; choose another place")
