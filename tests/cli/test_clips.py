"""`mmgen sample --frames` and clips of class names, written as GIF."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from one_sentence import assert_one_sentence
from PIL import Image

from mmgen.sample.pictures import save_clip
from tests.test_clips import NAMES, clip_pipeline
from tests.tiny_blocks import hybrid, plain


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pipelines")
    clip_pipeline(hybrid(texts=NAMES)).save_pretrained(place / "named")
    clip_pipeline(plain()).save_pretrained(place / "going-on")
    frames = [Image.new("RGB", (8, 8), (60 * i, 0, 0)) for i in range(3)]
    save_clip(frames, place / "ball.gif", {})
    return place


def test_clips_are_written_as_gif(mmgen: Any, folders: Path, tmp_path: Path) -> None:
    done = mmgen("sample", "archery", "--model", folders / "named", "--seed", 1, cwd=tmp_path)
    assert done.code == 0, done.err
    with Image.open(tmp_path / "archery.gif") as clip:
        assert clip.n_frames > 1


def test_a_clip_goes_on(mmgen: Any, folders: Path, tmp_path: Path) -> None:
    words = ("sample", "--model", folders / "going-on", "--frames", folders / "ball.gif")
    done = mmgen(*words, "--given", 1, "--seed", 1, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "ball.gif").is_file()
    replay = ("replay", "ball.gif", "--model", folders / "going-on")
    assert_one_sentence(mmgen(*replay, cwd=tmp_path), "goes on from another one; give that as")
    done = mmgen(*replay, "--source", folders / "ball.gif", cwd=tmp_path)
    assert (done.code, done.out) == (0, "ball.gif: identical\n")
    done = mmgen(*words, "--given", 1, "--preview", "-o", "on.gif", cwd=tmp_path)
    assert_one_sentence(done, "draw clips; --preview and --frames-out show how pictures grow")


@pytest.mark.parametrize(
    "out", [("-o", "ball.gif"), ("-o", "a.gif", "-n", 2), ("--frames-out", "ball.gif")]
)
def test_frames_are_never_replaced(
    out: tuple[Any, ...], mmgen: Any, folders: Path, tmp_path: Path
) -> None:
    name = "a-2.gif" if "-n" in out else "ball.gif"
    shutil.copy(folders / "ball.gif", tmp_path / name)
    words = ("sample", "--model", folders / "going-on", "--frames", name)
    assert_one_sentence(mmgen(*words, *out, cwd=tmp_path), f"{name} would be replaced")
    assert (tmp_path / name).read_bytes() == (folders / "ball.gif").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_frames_that_are_no_squares_are_named(mmgen: Any, folders: Path, tmp_path: Path) -> None:
    wide = [Image.new("RGB", (16, 8), (60 * i, 0, 0)) for i in range(3)]
    save_clip(wide, tmp_path / "wide.gif", {})
    words = ("sample", "--model", folders / "going-on", "--frames", "wide.gif", "--given", 1)
    done = mmgen(*words, "-o", "on.gif", cwd=tmp_path)
    said = "mmgen: The frames of wide.gif are 16x8; they were squeezed into 4x4, nothing was cut"
    assert done.code == 0 and done.err.startswith(said)
    again = mmgen(*words, "-o", "wide.gif", cwd=tmp_path)  # where it was read from
    assert again.out == "wide.gif (replaced)\n" and again.err.startswith(said)
    done = mmgen(*words, "-o", "on.jpg", cwd=tmp_path)
    assert done.code == 2 and "on.jpg holds no clips" in done.err
    assert not (tmp_path / "on.jpg").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--given", 5), "has 3 frames, and 5 are needed"),
        (("--given", 3), "begins with 3 frames"),
        (("--given", 0), "--given is 0; give 1 or more."),
    ],
)
def test_frames_that_do_not_fit(
    mmgen: Any, folders: Path, tmp_path: Path, words: tuple[Any, ...], said: str
) -> None:
    start = ("sample", "--model", folders / "going-on", "--frames", folders / "ball.gif")
    done = mmgen(*start, *words, cwd=tmp_path)
    assert done.code == 2
    assert said in done.err and "Traceback" not in done.err
