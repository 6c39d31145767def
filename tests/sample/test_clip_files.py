"""Files of clips: what each keeps of frames, times, loops and recipes, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mmgen.data.clips import file_frames
from mmgen.errors import UserError
from mmgen.files import ANIMATION_FORMATS, CLIP_ENDINGS, FILM_FORMATS
from mmgen.sample.clip_files import check_clip_file, clip_sheet, in_one_palette, save_clip
from mmgen.sample.pictures import grid
from mmgen.sample.recipe_files import read_recipe

RECIPE = {"prompt": "ein Fuchs 🦊 雪\u0000 é \\ </x>", "seed": 2**63 - 1, "weights": "0" * 64}
OFTEN = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def ball(count: int = 6, size: tuple[int, int] = (48, 32)) -> list[Image.Image]:
    """A ball with a highlight that moves over a shaded ground."""
    ground = np.zeros((size[1], size[0], 3), np.uint8)
    ground[..., 0] = np.linspace(30, 220, size[0])
    ground[..., 2] = np.linspace(60, 250, size[1])[:, None]
    frames = []
    for i in range(count):
        frame = Image.fromarray(ground)
        pen = ImageDraw.Draw(frame)
        pen.ellipse((4 * i, 8, 4 * i + 14, 22), fill=(250, 190 - i, 20))
        pen.ellipse((4 * i + 3, 10, 4 * i + 7, 14), fill=(255, 250, 240))
        frames.append(frame)
    return frames


def noisy(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)) for _ in range(count)
    ]


def arrays(frames: Any) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(frame.convert("RGB"), dtype=int) for frame in frames])


def psnr(one: Any, other: Any) -> float:
    return float(10 * np.log10(255**2 / np.mean((arrays(one) - arrays(other)) ** 2.0)))


def lasting(path: Path) -> list[int]:
    """Milliseconds of each frame of an animation."""
    with Image.open(path) as clip:
        found = []
        for i in range(clip.n_frames):
            clip.seek(i)
            clip.load()
            found.append(round(clip.info["duration"]))
        return found


# -- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".webp", ".apng", ".WebP"])
def test_webp_and_apng_keep_every_pixel(ending: str, tmp_path: Path) -> None:
    save_clip(noisy(3), tmp_path / f"a{ending}", RECIPE)
    assert (arrays(file_frames(tmp_path / f"a{ending}")) == arrays(noisy(3))).all()


def test_few_colours_stay_as_they_are_in_a_gif(tmp_path: Path) -> None:
    frames = ball(2)
    few = [frame.quantize(128).convert("RGB") for frame in frames]
    save_clip(few, tmp_path / "a.gif", RECIPE)
    assert (arrays(file_frames(tmp_path / "a.gif")) == arrays(few)).all()


def test_a_gif_is_close_and_what_stands_still_does_not_flicker(tmp_path: Path) -> None:
    frames = ball()
    save_clip(frames, tmp_path / "a.gif", RECIPE)
    again = list(file_frames(tmp_path / "a.gif"))
    assert psnr(frames, again) > 36
    before, after = arrays(frames), arrays(again)
    still = (before[1:] == before[:-1]).all(-1)
    assert still.mean() > 0.5 and (after[1:] == after[:-1]).all(-1)[still].all()


def test_a_palette_suits_all_frames_alike() -> None:
    red, blue = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    shades = [*noisy(1), red, blue]
    shown, colours = in_one_palette(shades)
    assert len(colours) <= 768 and len({frame.mode for frame in shown}) == 1
    wide = in_one_palette([red] * 40 + noisy(1))[0]
    assert (arrays(wide[:1]) == arrays([red])).all()  # what most pixels are is exact
    assert psnr(noisy(1), shown[:1]) > 24


@pytest.mark.parametrize("ending", FILM_FORMATS)
def test_films_are_close_in_their_colours_too(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames = [frame.resize((192, 128), Image.Resampling.BICUBIC) for frame in ball()]
    save_clip(frames, tmp_path / f"a{ending}", RECIPE, fps=12)
    again = list(file_frames(tmp_path / f"a{ending}"))
    assert len(again) == 6 and psnr(frames, again) > 32
    for colour in ((255, 0, 0), (0, 255, 0), (20, 40, 230), (255, 255, 255)):
        save_clip([Image.new("RGB", (32, 32), colour)] * 2, tmp_path / f"b{ending}", {})
        there = arrays(file_frames(tmp_path / f"b{ending}"))
        assert np.abs(there - np.array(colour)).max() <= 4


def test_a_png_is_the_numbered_sheet(tmp_path: Path) -> None:
    frames = ball(11)
    save_clip(frames, tmp_path / "a.png", RECIPE)
    (sheet,) = file_frames(tmp_path / "a.png")
    assert sheet.size == clip_sheet(frames).size
    assert (arrays([sheet]) == arrays([clip_sheet(frames)])).all()
    assert (arrays([sheet]) == arrays([grid(frames, 9, [str(i) for i in range(1, 12)])])).all()
    assert (arrays([sheet.crop((8, 8, 56, 40))]) == arrays(frames[:1])).all()
    assert sheet.width == 8 + 9 * (48 + 8)


# -- times and loops ------------------------------------------------------------------------------


def test_durations_of_a_gif_are_hundredths_that_keep_the_length(tmp_path: Path) -> None:
    save_clip(noisy(12), tmp_path / "a.gif", {}, fps=24)
    assert set(lasting(tmp_path / "a.gif")) == {40, 50}
    assert sum(lasting(tmp_path / "a.gif")) == 500


@given(st.sampled_from(sorted(ANIMATION_FORMATS)), st.floats(0.2, 50), st.integers(1, 6))
@OFTEN
def test_each_frame_ends_near_its_time(tmp_path: Path, ending: str, fps: float, count: int) -> None:
    path = tmp_path / f"a{ending}"
    save_clip(noisy(count + 1), path, {}, fps=fps)
    ends = np.cumsum(lasting(path))
    wanted = np.arange(1, count + 2) * 1000 / fps
    # Pillow rounds the durations of an APNG once more
    assert np.abs(ends - wanted).max() <= (5.01 if ending == ".gif" else 1.01)


def test_a_frame_that_stays_lasts_longer(tmp_path: Path) -> None:
    one, other = noisy(2)
    save_clip([one, one, one, other], tmp_path / "a.gif", {}, fps=10)
    assert lasting(tmp_path / "a.gif") == [300, 100]


@pytest.mark.parametrize("fps", [8.0, 24.0, 29.97, 0.5])
@pytest.mark.parametrize("ending", FILM_FORMATS)
def test_films_hold_their_rate(ending: str, fps: float, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    save_clip(ball(4), tmp_path / f"a{ending}", {}, fps=fps)
    with av.open(str(tmp_path / f"a{ending}")) as film:
        times = [float(frame.pts * frame.time_base) for frame in film.decode(video=0)]
    assert np.abs(np.array(times) - np.arange(4) / fps).max() < 0.002


@pytest.mark.parametrize("loop", [0, 1, 3])
def test_loops(loop: int, tmp_path: Path) -> None:
    for ending in ANIMATION_FORMATS:
        save_clip(ball(3), tmp_path / f"a{ending}", {}, loop=loop)
    with Image.open(tmp_path / "a.webp") as clip:
        assert clip.info["loop"] == loop
    with Image.open(tmp_path / "a.apng") as clip:
        assert clip.info["loop"] == loop
    with Image.open(tmp_path / "a.gif") as clip:  # counts what follows the first time
        assert clip.info.get("loop") == {0: 0, 1: None, 3: 2}[loop]


# -- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", CLIP_ENDINGS)
def test_every_file_holds_its_recipe(ending: str, tmp_path: Path) -> None:
    if ending in FILM_FORMATS:
        pytest.importorskip("av")
    path = tmp_path / "ünter 夜" / f"x y{ending}"
    save_clip(ball(3), path, RECIPE)
    assert read_recipe(path) == RECIPE
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing left beside it
    long = {"codes": list(range(30_000))}
    save_clip(ball(2), path, long)
    assert read_recipe(path) == long


def test_other_tools_find_the_recipe_of_a_film(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    for ending, name in ((".mp4", "comment"), (".webm", "COMMENT")):
        save_clip(ball(2), tmp_path / f"a{ending}", RECIPE)
        with av.open(str(tmp_path / f"a{ending}")) as film:
            assert json.loads(film.metadata[name]) == {"mmgen": RECIPE}


def test_films_of_others_and_damaged_ones(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as film:
        film.metadata["comment"] = "made by hand"
        stream = film.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        film.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 32)))))
        film.mux(stream.encode(None))
    with pytest.raises(UserError, match="no mmgen recipe; only films that mmgen wrote"):
        read_recipe(path)
    whole = path.read_bytes()
    for data in (b"", b"no film at all", whole[:40], b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n"):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.mp4") as caught:
            read_recipe(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="There is no file"):
        read_recipe(tmp_path / "none.mp4")


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("a.jpg", {}, r"a\.jpg holds no clips; end its name in one of \.gif, \.webp, \.apng"),
        ("a", {}, "holds no clips"),
        ("a.gif", {"fps": 60}, r"a\.gif cannot play 60 frames a second; give 0\.1 to 50"),
        ("a.webp", {"fps": 0}, "cannot play 0 frames a second"),
        ("a.webp", {"fps": float("nan")}, "cannot play nan frames"),
        ("a.webp", {"loop": -1}, "cannot play -1 times"),
        ("a.mp4", {"loop": 2}, "is a film, which cannot say how often it plays"),
    ],
)
def test_what_no_file_can_tell(
    name: str, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        check_clip_file(tmp_path / name, **options)
    with pytest.raises(UserError, match=said):
        save_clip(ball(2), tmp_path / name, {}, **options)
    assert not list(tmp_path.iterdir())


def test_films_have_even_sides(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(b"before")
    with pytest.raises(UserError, match="no frames of 47x32 pixels, only even sides"):
        save_clip(ball(2, (47, 32)), tmp_path / "a.mp4", {})
    assert (tmp_path / "a.mp4").read_bytes() == b"before"


def test_without_pyav_films_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"needs PyAV to be written; `pip install"):
        save_clip(ball(2), tmp_path / "a.mp4", {})
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="needs PyAV to be read"):
        read_recipe(tmp_path / "a.mp4")


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for ending in CLIP_ENDINGS:
        (tmp_path / f"folder{ending}").mkdir()
        for path in (tmp_path / f"folder{ending}", tmp_path / "file" / f"a{ending}"):
            with pytest.raises(UserError, match="Cannot write"):
                save_clip(ball(2), path, {})
    assert len(list(tmp_path.iterdir())) == 1 + len(CLIP_ENDINGS)
