"""`ClipTextDataset`: which frames are seen, what is drawn, and the promises of the stream."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny_clips import animation, film, grey_frames, strip, write_strips

from mmgen.data.clip_dataset import (
    Clip,
    ClipTextDataset,
    Vary,
    is_loop,
    spread_frames,
    visit_at_rate,
)
from mmgen.data.dataset import Batch
from mmgen.data.films import Limits
from mmgen.data.shards import write_shard
from mmgen.data.sources import open_source
from mmgen.errors import ConfigError, DataError

COUNT, LENGTH = 11, 9


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_strips(tmp_path_factory.mktemp("clips") / "train.tar", COUNT, LENGTH)


def greys(clip: torch.Tensor) -> list[int]:
    """The grey of each frame of (3, T, H, W)."""
    return ((clip[0, :, 4, 4] + 1) * 127.5).round().int().tolist()


def write(folder: Path, name: str, content: bytes, caption: str = "a clip") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    (folder / name).with_suffix(".txt").write_text(caption)


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.pixels, y.pixels) and x.captions == y.captions and x.keys == y.keys
        for x, y in zip(a, b)
    )


def there_and_back(frames: int) -> list[Image.Image]:
    """A loop: grey rises and falls, with no large step at the end."""
    half = grey_frames(frames // 2 + 1, step=10)
    return [*half, *half[-2:0:-1]]


@given(st.integers(1, 200), st.integers(1, 40))
def test_spread_frames_are_even_and_start_at_the_first(count: int, frames: int) -> None:
    numbers = spread_frames(count, frames)
    assert numbers.tolist() == [i * count // frames for i in range(frames)]
    assert numbers[0] == 0 and numbers[-1] < count
    steps = np.diff([*numbers, count])  # the next one would be the first again
    assert steps.max() - steps.min() <= 1


@given(
    st.lists(st.floats(0.01, 0.5), min_size=1, max_size=30),
    st.integers(1, 12),
    st.floats(1, 60),
    st.floats(0, 0.999),
    st.booleans(),
)
def test_frames_at_a_rate_are_those_seen_at_their_times(
    lasts: list[float], frames: int, fps: float, phase: float, loop: bool
) -> None:
    ends = np.cumsum(lasts)
    clip = Clip(torch.zeros(len(ends), 3, 1, 1, dtype=torch.uint8), ends, loop)
    numbers = visit_at_rate(clip, frames, fps, phase)
    needed = (frames - 1) / fps
    if numbers is None:
        assert not loop and needed > ends[-1]
        return
    start = phase * (ends[-1] if loop else ends[-1] - needed)
    for i, number in enumerate(numbers):
        time = start + i / fps
        time = time % ends[-1] if loop else time
        begin = ends[number - 1] if number else 0.0
        near = 1e-5
        wrapped = loop and min(time, ends[-1] - time) < near
        assert wrapped or begin - near <= time <= ends[number] + near


def test_batches_have_the_promised_form(shard: Path) -> None:
    data = ClipTextDataset(shard, 8, 4, drop_caption=0.0)
    batches = list(data.epoch(0, 3, seed=1))
    assert len(batches) == data.batches_per_epoch(3) == 3
    for batch in batches:
        assert batch.pixels.shape == (3, 3, 4, 8, 8) and batch.pixels.dtype == torch.float32
        for clip, caption, key in zip(batch.pixels, batch.captions, batch.keys):
            i = int(key)
            assert caption == f"clip {i}"
            assert greys(clip) == [3 * i + 8 * n for n in (0, 2, 4, 6)]  # floor(i * 9 / 4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 3), st.integers(1, 4), st.integers(0, 2**40), st.integers(0, 11))
def test_resuming_threads_and_cache_do_not_change_the_stream(
    shard: Path, epoch: int, size: int, seed: int, start: int
) -> None:
    vary = Vary(True, 0.5, 0.5)
    one = ClipTextDataset(shard, 8, 4, vary=vary, flip=True)
    whole = list(one.epoch(epoch, size, seed=seed))
    other = ClipTextDataset(shard, 8, 4, vary=vary, flip=True, cache_bytes=0, workers=3)
    assert same(list(other.epoch(epoch, size, seed=seed, start_batch=start)), whole[start:])
    assert same(list(one.epoch(epoch, size, seed=seed)), whole)


def test_the_cache_keeps_to_its_bytes(shard: Path) -> None:
    one = LENGTH * 3 * 8 * 8
    data = ClipTextDataset(shard, 8, 4, cache_bytes=3 * one + 5)
    list(data.epoch(0, COUNT, seed=0))
    kept = [clip.frames.numel() for clip, _ in data._cache.values()]
    assert kept == [one] * 3


def test_a_loop_begins_anywhere_and_goes_on_from_its_end(tmp_path: Path) -> None:
    write(tmp_path, "loop.webp", animation(there_and_back(12)))
    write(tmp_path, "film.webp", animation(grey_frames(12, step=10)))
    data = ClipTextDataset(tmp_path, 8, 12, vary=Vary())
    ring = [0, 10, 20, 30, 40, 50, 60, 50, 40, 30, 20, 10]
    assert greys(data[1].pixels) == ring  # nothing is drawn for one sample
    starts = set()
    for epoch in range(40):
        batch = next(data.epoch(epoch, 2, seed=0))
        shown = dict(zip(batch.keys, map(greys, batch.pixels)))
        assert shown["film.webp"] == list(range(0, 120, 10))
        turns = [n for n in range(12) if shown["loop.webp"] == ring[n:] + ring[:n]]
        assert len(turns) == 1
        starts.add(turns[0])
    assert len(starts) > 8


def test_a_span_takes_a_window_of_a_longer_source(tmp_path: Path) -> None:
    write(tmp_path, "a.webp", animation(grey_frames(24, step=10)))
    shown = []
    for phase in (True, False):
        data = ClipTextDataset(tmp_path, 8, 4, vary=Vary(phase, span=0.5))
        for epoch in range(60):
            greys_of = greys(next(data.epoch(epoch, 1, seed=0)).pixels[0])
            numbers = [grey // 10 for grey in greys_of]
            steps = np.diff(numbers)
            assert steps.min() >= 3 and steps.max() <= 6 and steps.max() - steps.min() <= 1
            shown.append((phase, numbers[0], int(steps.max())))
    assert len({step for _, _, step in shown}) == 4
    assert len({first for phase, first, _ in shown if phase}) > 4
    assert {first for phase, first, _ in shown if not phase} == {0}


def test_a_source_with_few_frames_repeats_them_and_keeps_its_span(tmp_path: Path) -> None:
    write(tmp_path, "a.webp", animation(grey_frames(3, step=40)))
    data = ClipTextDataset(tmp_path, 8, 5, vary=Vary(span=0.5))
    assert greys(next(data.epoch(0, 1, seed=0)).pixels[0]) == [0, 0, 40, 40, 80]


def test_a_crop_is_one_square_of_all_frames(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (64, 64, 3))
    frames = [Image.fromarray(ramp + np.uint8(10 * i)) for i in range(3)]
    write(tmp_path, "a.webp", animation(frames))
    whole = ClipTextDataset(tmp_path, 16, 3)[0].pixels
    data = ClipTextDataset(tmp_path, 16, 3, vary=Vary(crop=0.5))
    assert (data[0].pixels - whole).abs().mean() < 0.02
    seen = set()
    for epoch in range(30):
        clip = (next(data.epoch(epoch, 1, seed=0)).pixels[0] + 1) * 127.5
        assert clip.shape == (3, 3, 16, 16)
        assert (clip.diff(dim=1).mean((0, 2, 3)) - 10).abs().max() < 1
        slope = float(clip[0, 0, 8].diff()[2:-2].mean()) / 3  # source pixels for one seen
        assert 1.9 < slope < 4.1
        seen.add((round(slope, 1), round(float(clip[0, 0, 8, 0]))))
    assert len(seen) > 10
    small = ClipTextDataset(tmp_path, 64, 3, vary=Vary(crop=0.5))
    assert torch.equal(next(small.epoch(0, 1, seed=0)).pixels[0], small[0].pixels)


def test_frames_at_a_rate_come_from_films_and_animations(tmp_path: Path) -> None:
    write(tmp_path, "a.webp", animation(grey_frames(20, step=10), 50))
    pytest.importorskip("av")
    film(tmp_path / "b.mp4", grey_frames(20, 32, step=10), 20)
    (tmp_path / "b.txt").write_text("a film")
    data = ClipTextDataset(tmp_path, 8, 5, fps=10)
    for index in range(2):
        expected = [0, 20, 40, 60, 80]
        assert greys(data[index].pixels) == pytest.approx(expected, abs=6)
    assert ClipTextDataset(tmp_path, 8, 20, fps=20)[1].captions[0].text == "a film"
    slow = ClipTextDataset(tmp_path, 8, 5, fps=3, limit_bad=1.0)
    with pytest.raises(DataError, match="lasts 1 s, too short for 5 frames at 3 a second"):
        slow[0]


def test_bad_clips_are_skipped_counted_and_named(tmp_path: Path) -> None:
    for i in range(6):
        write(tmp_path, f"{i}.webp", animation(grey_frames(4, step=10 * i + 1)))
    write(tmp_path, "broken.webp", animation(grey_frames(4))[:60])
    write(tmp_path, "long.gif", animation(grey_frames(9), form="GIF"))
    write(tmp_path, "none.mp4", b"no film")
    write(tmp_path, "still.webp", animation(grey_frames(1)))
    data = ClipTextDataset(tmp_path, 8, 4, limits=Limits(frames=8), limit_bad=0.5)
    keys = {key for e in range(3) for b in data.epoch(e, 5, seed=0) for key in b.keys}
    assert keys == {f"{i}.webp" for i in range(6)}
    assert data.report().startswith(f"Skipped 4 bad of 10 samples in {tmp_path}: 'broken.webp' (")
    for said in (
        "'long.gif' (it has more than 8 frames; cut it)",
        "'none.mp4' (it is no animation and no film, or it is damaged)",
        "'still.webp' (it has one frame: it is a still picture, not a clip)",
    ):
        assert said in data.report()
    with pytest.raises(DataError, match="already more than 1%"):
        list(ClipTextDataset(tmp_path, 8, 4).epoch(0, 5, seed=0))


def test_a_picture_that_is_no_strip_is_a_still(tmp_path: Path) -> None:
    wide = strip(grey_frames(3))
    records: list[object] = [{"frames": 3}, {"frames": 4}, {"frames": "3"}, {"frames": True}, [3]]
    samples = [
        (f"{i}", {"png": wide, "json": json.dumps(r).encode()}) for i, r in enumerate(records)
    ]
    samples += [("5", {"png": wide, "json": b"{"}), ("6", {"png": wide})]
    write_shard(tmp_path / "a.tar", samples)
    data = ClipTextDataset(open_source(tmp_path / "a.tar", captioned=False, films=True), 8, 3)
    assert greys(data[0].pixels) == [0, 8, 16]
    for i in range(1, 7):
        with pytest.raises(DataError, match="still picture"):
            data[i]


def test_pictures_alone_are_seen_where_no_films_are_wanted(tmp_path: Path) -> None:
    write(tmp_path, "a.webp", animation(grey_frames(3)))
    write(tmp_path, "b.mp4", b"film")
    assert open_source(tmp_path).keys == ["a.webp"]
    assert open_source(tmp_path, films=True).keys == ["a.webp", "b.mp4"]
    with pytest.raises(DataError, match="holds no clips"):
        (tmp_path / "empty").mkdir()
        ClipTextDataset(tmp_path / "empty", 8, 2)


def test_a_loop_has_no_large_step_at_its_end() -> None:
    def frames(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)

    assert is_loop(frames([0, 10, 20, 10]))
    assert not is_loop(frames([0, 10, 20, 30]))
    assert not is_loop(frames([0, 10]))
    assert is_loop(frames([250, 5, 240]))  # bytes are compared, not wrapped


def test_wrong_arguments_are_refused(shard: Path) -> None:
    for wrong in ({"frames": 0}, {"fps": 0.0}, {"fps": -1.0}, {"image_size": 0}):
        with pytest.raises(ConfigError):
            ClipTextDataset(shard, **{"image_size": 8, "frames": 2} | wrong)
    for share in (0.0, 1.1, -1.0):
        with pytest.raises(ConfigError, match="crop must be in"):
            Vary(crop=share)
