"""What clips begin with: pictures, the ends of clips at the rate of the weights, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmgen.beginnings import clip_beginning, picture_beginning, usual_given
from mmgen.errors import DataError
from mmgen.pipeline import Pipeline
from mmgen.sample.clip_files import save_clip
from tests.test_clips import clip_pipeline
from tests.tiny_blocks import plain
from tests.tiny_clip_pipeline import SIZE, tiny_clips


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_clips()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """24 frames at 24 a second, each a little redder."""
    frames = [Image.new("RGB", (16, 16), (10 * i, 0, 0)) for i in range(24)]
    save_clip(frames, tmp_path / "film.webp", {}, fps=24)
    return tmp_path / "film.webp"


def reds(pixels: np.ndarray) -> list[int]:
    return ((np.asarray(pixels)[0].mean((1, 2)) + 1) * 127.5).round().astype(int).tolist()


def test_a_clip_goes_on_from_its_end(pipe: Pipeline, film: Path) -> None:
    begun = clip_beginning(pipe, film, 3)
    assert begun.frames.name == "film" and begun.fitted is None
    assert begun.frames.pixels.shape == (3, 3, SIZE, SIZE)
    assert reds(begun.frames.pixels) == [210, 220, 230]


def test_as_many_frames_as_a_window_takes_over_or_fit(pipe: Pipeline, tmp_path: Path) -> None:
    assert usual_given(pipe) == 1  # of windows of 5 frames, 3 in the codes
    long = tiny_clips()
    long.transformer.config = replace(long.transformer.config, grid=(8, 2, 2))
    assert usual_given(long) == 7  # 4 in the codes
    frames = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(6)]
    save_clip(frames, tmp_path / "short.webp", {})
    begun = clip_beginning(long, tmp_path / "short.webp")
    assert reds(begun.frames.pixels) == [40, 80, 120, 160, 200]
    with pytest.raises(DataError, match=r"short.webp has 6 frames, and 7 are needed"):
        clip_beginning(long, tmp_path / "short.webp", 7)


def test_a_clip_is_seen_at_the_rate_of_the_weights(film: Path, tmp_path: Path) -> None:
    quarter = tiny_clips(fps=6.0)
    assert reds(clip_beginning(quarter, film, 3).frames.pixels) == [140, 180, 220]
    same = tiny_clips(fps=24.0)
    assert reds(clip_beginning(same, film, 5).frames.pixels) == [190, 200, 210, 220, 230]
    with pytest.raises(DataError, match="has 6 frames, and 7 are needed"):
        clip_beginning(quarter, film, 7)
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    save_clip([blue, red, red, red], tmp_path / "a.gif", {}, fps=24)  # two frames in the file
    assert reds(clip_beginning(same, tmp_path / "a.gif", 3).frames.pixels) == [255, 255, 255]


def test_shapes_are_cut_or_squeezed_as_in_the_training(pipe: Pipeline, tmp_path: Path) -> None:
    wide = Image.new("RGB", (32, 8), "white")
    wide.paste("black", (12, 0, 20, 8))
    wide.save(tmp_path / "wide.png")
    begun = picture_beginning(pipe, tmp_path / "wide.png")
    assert begun.frames.pixels.max() == -1  # the black middle square
    assert begun.fitted and "are 32x8; their middle squares are seen, at 8x8" in begun.fitted
    squeezed = picture_beginning(clip_pipeline(plain()), tmp_path / "wide.png")
    assert squeezed.frames.pixels.max() == 1
    assert squeezed.fitted and "squeezed into 4x4, nothing was cut off" in squeezed.fitted


def test_what_begins_nothing(pipe: Pipeline, film: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"film.webp moves; give a picture, or go on from it with"):
        picture_beginning(pipe, film)
    for begin in (picture_beginning, clip_beginning):
        with pytest.raises(DataError, match="There is no file"):
            begin(pipe, tmp_path / "none.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has 0 frames, and 1 are needed"):
        clip_beginning(pipe, tmp_path / "empty")
