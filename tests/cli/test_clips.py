"""Clips from `mmgen sample`: of words, pictures and clips, in every file, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_sentence import assert_one_sentence
from PIL import Image

from mmgen.beginnings import clip_beginning, picture_beginning
from mmgen.data.clips import file_frames
from mmgen.files import CLIP_ENDINGS, FILM_FORMATS
from mmgen.sample.clip_files import save_clip
from mmgen.sample.pictures import to_pil
from mmgen.sample.recipe_files import read_recipe
from tests.test_clips import NAMES, clip_pipeline
from tests.tiny_blocks import hybrid, plain
from tests.tiny_clip_pipeline import tiny_clips


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pipelines")
    clip_pipeline(hybrid(texts=NAMES)).save_pretrained(place / "named")
    clip_pipeline(plain()).save_pretrained(place / "going-on")
    tiny_clips().save_pretrained(place / "told")
    Image.new("RGB", (8, 8), (90, 200, 30)).save(place / "first.png")
    frames = [Image.new("RGB", (8, 8), (60 * i, 0, 0)) for i in range(3)]
    save_clip(frames, place / "ball.gif", {})
    return place


def test_clips_are_written_as_gif(mmgen: Any, folders: Path, tmp_path: Path) -> None:
    done = mmgen("sample", "archery", "--model", folders / "named", "--seed", 1, cwd=tmp_path)
    assert done.code == 0, done.err
    with Image.open(tmp_path / "archery.gif") as clip:
        assert clip.n_frames > 1


def test_a_clip_goes_on(mmgen: Any, folders: Path, tmp_path: Path) -> None:
    words = ("sample", "--model", folders / "going-on", "--frames-from", folders / "ball.gif")
    done = mmgen(*words, "--given", 1, "--seed", 1, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "ball.gif").is_file()
    replay = ("replay", "ball.gif", "--model", folders / "going-on")
    assert_one_sentence(mmgen(*replay, cwd=tmp_path), "goes on from another clip; give that as")
    done = mmgen(*replay, "--source", folders / "ball.gif", cwd=tmp_path)
    assert done.code == 0 and done.out.startswith("ball.gif: identical, all 3 frames\n")


def frames_in(path: Path) -> list[Any]:
    return [np.asarray(frame, dtype=int) for frame in file_frames(path)]


def test_a_prompt_is_drawn_moving_or_still(mmgen: Any, folders: Path, tmp_path: Path) -> None:
    words = ("sample", "a cat", "--model", folders / "told", "--seed", 1)
    done = mmgen(*words, cwd=tmp_path)
    assert (done.code, done.out) == (0, "a-cat.png\n"), done.err
    for asks in ("--video", "-o x.apng", "--frames 5", "--fps 8", "--loop 0"):
        done = mmgen(*words, *asks.split(), cwd=tmp_path)
        assert done.code == 0, done.err
        assert len(frames_in(tmp_path / done.out.strip())) == 5, asks
    done = mmgen(*words, "--frames", 9, "--fps", 4, "--loop", 2, "--preview", cwd=tmp_path)
    name = done.out.strip()
    assert done.err.splitlines() == [f"mmgen: frame {i} of 9" for i in (1, 3, 5, 7, 9)]
    with Image.open(tmp_path / name) as clip:
        assert (clip.n_frames, clip.info["duration"], clip.info["loop"]) == (9, 250, 1)
    recipe = read_recipe(tmp_path / name)
    assert [recipe[key] for key in ("num_frames", "fps", "loop", "prompt")] == [9, 4, 2, "a cat"]
    done = mmgen("replay", name, "--model", folders / "told", cwd=tmp_path)
    assert done.code == 0 and done.out.startswith(f"{name}: identical, all 9 frames\n")


@pytest.mark.parametrize("ending", CLIP_ENDINGS)
def test_a_picture_is_animated(mmgen: Any, folders: Path, tmp_path: Path, ending: str) -> None:
    if ending in FILM_FORMATS:
        pytest.importorskip("av")
    source, out = folders / "first.png", f"out{ending}"
    words = ("sample", "a cat", "--model", folders / "told", "--seed", 1, "--image", source)
    asks = ("--video",) if ending == ".png" else ()
    done = mmgen(*words, "-o", out, "--scale", 1, *asks, cwd=tmp_path)
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    assert len(frames_in(tmp_path / out)) == (1 if ending == ".png" else 5)
    recipe = read_recipe(tmp_path / out)
    assert (recipe["frames"], recipe["given"], recipe["prompt"]) == ("first", 1, "a cat")
    replay = ("replay", out, "--model", folders / "told", "--source")
    done = mmgen(*replay, source, cwd=tmp_path)
    assert done.code == 0 and done.out.startswith(f"{out}: identical"), (done.out, done.err)
    Image.new("RGB", (8, 8), (200, 0, 90)).save(tmp_path / "other.png")
    done = mmgen(*replay, tmp_path / "other.png", cwd=tmp_path)
    assert done.code == 1 and f"{out}: values differ" in done.out


def test_a_clip_begins_with_what_was_given(mmgen: Any, folders: Path, tmp_path: Path) -> None:
    pipe, ball = tiny_clips(), folders / "ball.gif"
    begin = {"--frames-from": clip_beginning(pipe, ball, 3).frames}
    begin["--image"] = picture_beginning(pipe, folders / "first.png").frames
    for option, frames in begin.items():
        file = ball if option == "--frames-from" else folders / "first.png"
        given = ("--given", 3) if option == "--frames-from" else ()
        words = ("sample", "--model", folders / "told", option, file, *given, "--scale", 1)
        done = mmgen(*words, "-o", "on.webp", cwd=tmp_path)
        assert done.code == 0, done.err
        known = pipe.vision.decode(pipe.vision.encode(frames.pixels[None]))[0]
        wanted = [np.asarray(image, dtype=int) for image in to_pil(known.transpose(0, 1))]
        for there, seen in zip(frames_in(tmp_path / "on.webp"), wanted):
            assert np.abs(there - seen).max() <= 1


@pytest.mark.parametrize(
    "out", [("-o", "ball.gif"), ("-o", "a.gif", "-n", 2), ("--frames-out", "ball.gif")]
)
def test_frames_are_never_replaced(
    out: tuple[Any, ...], mmgen: Any, folders: Path, tmp_path: Path
) -> None:
    name = "a-2.gif" if "-n" in out else "ball.gif"
    shutil.copy(folders / "ball.gif", tmp_path / name)
    words = ("sample", "--model", folders / "going-on", "--frames-from", name)
    assert_one_sentence(mmgen(*words, *out, cwd=tmp_path), f"{name} would be replaced")
    assert (tmp_path / name).read_bytes() == (folders / "ball.gif").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_frames_that_are_no_squares_are_named(mmgen: Any, folders: Path, tmp_path: Path) -> None:
    wide = [Image.new("RGB", (16, 8), (60 * i, 0, 0)) for i in range(3)]
    save_clip(wide, tmp_path / "wide.gif", {})
    words = ("sample", "--model", folders / "going-on", "--frames-from", "wide.gif", "--given", 1)
    done = mmgen(*words, "-o", "on.gif", cwd=tmp_path)
    said = "mmgen: The frames of wide.gif are 16x8; they were squeezed into 4x4, nothing was cut"
    assert done.code == 0 and done.err.startswith(said)
    again = mmgen(*words, "-o", "on.gif", cwd=tmp_path)
    assert again.out == "on.gif (replaced)\n" and again.err.startswith(said)
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
    start = ("sample", "--model", folders / "going-on", "--frames-from", folders / "ball.gif")
    done = mmgen(*start, *words, cwd=tmp_path)
    assert done.code == 2
    assert said in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--video", "-o", "a.jpg"), "a.jpg holds no clips; end its name in one of .gif, .webp"),
        (("--fps", 60), "cannot play 60 frames a second; give 0.1 to 50"),
        (("--loop", -1), "cannot play -1 times"),
        (("--loop", 2, "-o", "a.mp4"), "a.mp4 is a film, which cannot say how often it plays"),
        (("--frames", 1), "--frames is 1; a clip has 2 or more"),
        (("--frames", 6), "are of 5 or 7 frames"),
        (("--given", 1), "--given counts frames of --frames-from"),
        (("--image", "a.png", "--frames-from", "b.gif"), "leave one out"),
        (("--image", "none.png"), "There is no file none.png"),
        (("--video", "--frames-out", "a.gif"), "--frames-out shows how pictures grow"),
    ],
)
def test_clips_that_cannot_be(
    mmgen: Any, folders: Path, tmp_path: Path, words: tuple[Any, ...], said: str
) -> None:
    done = mmgen("sample", "a cat", "--model", folders / "told", *words, cwd=tmp_path)
    assert_one_sentence(done, said)
    assert not list(tmp_path.iterdir())


def test_weights_of_pictures_draw_no_clips(mmgen: Any, tiny: Path, tmp_path: Path) -> None:
    for words, what in ((("--video",), "--video"), (("-o", "a.mp4"), "a.mp4")):
        done = mmgen("sample", "a cat", "--model", tiny, *words, cwd=tmp_path)
        assert_one_sentence(done, f"The weights of 'tiny' draw no clips, which {what} asks for")
