"""Files that are whole or absent, and readable errors for those that are neither."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.errors import UserError
from mmgen.files import (
    read_json,
    replacing,
    replacing_folder,
    sha256_of,
    write_json,
    write_text,
)

ROOT = Path(__file__).resolve().parent.parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with replacing(target) as temporary:
        temporary.write_text("half")
        assert temporary.parent == target.parent and temporary.suffix == ".txt"
        assert temporary.name.startswith(".") and not target.exists()
    assert target.read_text() == "half" and names(target.parent) == ["a.txt"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert target.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_killed_process_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    code = (
        "import os, sys; from mmgen.files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('new'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, target], cwd=ROOT, check=False)
    assert done.returncode == -9 and target.read_text() == "old"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_file_gets_the_usual_rights(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "x")
        assert os.umask(mask) == mask  # left as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask


def test_places_that_cannot_be_written_to_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"Cannot write .*file/a\.txt: .*; choose another place\."):
        write_text(tmp_path / "file" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"Cannot write .*folder: .*; choose another place\."):
        write_text(tmp_path / "folder", "x")
    assert names(tmp_path) == ["file", "folder"] and not names(tmp_path / "folder")


def test_a_full_disk_is_one_sentence_and_other_errors_stay(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    told = r"Cannot write .*a\.txt: No space left"
    with pytest.raises(UserError, match=told), replacing(tmp_path / "a.txt"):
        raise full
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        (tmp_path / "nothing").read_text()
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None)
@given(value=JSON, text=st.text(st.characters(exclude_characters="\r", codec="utf-8")))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, value: object, text: str
) -> None:
    folder = tmp_path_factory.mktemp("json")
    write_json(folder / "a.json", value)
    assert read_json(folder / "a.json") == value
    write_text(folder / "a.txt", text)
    assert (folder / "a.txt").read_bytes() == text.encode()


def test_json_is_for_people_too(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "münchen"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "münchen"\n}\n'


def test_a_value_that_is_no_json_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file"),
        (b"", "is not valid JSON"),
        (b'{"a": 1', "is not valid JSON"),
        (b'{"a": "\xff"}', "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
    ],
)
def test_json_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_is_no_json_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_hash_of_a_file(tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    (tmp_path / "a").write_bytes(content[:size])
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content[:size]).hexdigest()


def test_folders_that_were_made_for_nothing_go_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "a/b/c") as place:
        (place / "x").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "a/b/c") as place:
        (tmp_path / "a/b/mine").touch()
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "mine"]
    with replacing_folder(tmp_path / "d/e") as place:
        (place / "x").touch()
    assert (tmp_path / "d/e/x").is_file()
