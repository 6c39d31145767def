from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmgen.data.dataset import Batch, ImageTextDataset
from mmgen.data.pictures import BadSample
from mmgen.data.sources import open_source
from mmgen.errors import ConfigError, DataError

COUNT = 23


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour each, three captions each, of sizes around 8x8."""
    place = tmp_path_factory.mktemp("folder")
    rows = []
    for i in range(COUNT):
        Image.new("RGB", (8 + i % 3, 8 + i % 2), (i, 2 * i, 255 - i)).save(place / f"{i:02d}.png")
        rows.append({"file_name": f"{i:02d}.png", "captions": [f"{i} a", [f"{i} b", 2], f"{i} c"]})
    (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place


@pytest.fixture(scope="module")
def dataset(folder: Path) -> ImageTextDataset:
    return ImageTextDataset(folder, 8)


def spoil(folder: Path, place: Path, names: list[str]) -> Path:
    for path in folder.iterdir():
        (place / path.name).write_bytes(b"spoilt" if path.name in names else path.read_bytes())
    return place


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.pixels, y.pixels) and x.captions == y.captions and x.keys == y.keys
        for x, y in zip(a, b)
    )


def test_batches_have_the_promised_form(dataset: ImageTextDataset) -> None:
    batches = list(dataset.epoch(0, 5, seed=1))
    assert len(batches) == dataset.batches_per_epoch(5) == 4
    keys = [key for batch in batches for key in batch.keys]
    assert len(set(keys)) == 20
    for batch in batches:
        assert batch.pixels.shape == (5, 3, 8, 8)
        assert batch.pixels.dtype == torch.float32
        for picture, caption, key in zip(batch.pixels, batch.captions, batch.keys):
            i = int(key[:2])
            expected = torch.tensor([i, 2 * i, 255 - i]) / 127.5 - 1
            assert torch.allclose(picture, expected[:, None, None].expand(3, 8, 8), atol=1e-6)
            assert caption == "" or int(caption.split()[0]) == i


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.integers(1, 6), st.integers(0, 2**40), st.integers(0, 24))
def test_resuming_at_any_batch_gives_the_unbroken_stream(
    dataset: ImageTextDataset, epoch: int, size: int, seed: int, start: int
) -> None:
    whole = list(dataset.epoch(epoch, size, seed=seed))
    assert same(list(dataset.epoch(epoch, size, seed=seed, start_batch=start)), whole[start:])


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 100), st.integers(0, 2))
def test_ranks_together_are_one_process_with_larger_batches(
    dataset: ImageTextDataset, world: int, size: int, seed: int, start: int
) -> None:
    ranks = [
        list(dataset.epoch(1, size, seed=seed, start_batch=start, rank=rank, world=world))
        for rank in range(world)
    ]
    joined = [
        Batch(
            torch.cat([batch.pixels for batch in parts]),
            [caption for batch in parts for caption in batch.captions],
            [key for batch in parts for key in batch.keys],
        )
        for parts in zip(*ranks)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    assert same(joined, list(dataset.epoch(1, size * world, seed=seed, start_batch=start)))


def test_cache_and_threads_do_not_change_the_stream(folder: Path) -> None:
    streams = []
    for cache, workers in [(1 << 30, 1), (0, 1), (0, 4), (1 << 30, 3)]:
        dataset = ImageTextDataset(folder, 6, cache_bytes=cache, workers=workers, flip=True)
        streams.append([b for epoch in range(3) for b in dataset.epoch(epoch, 4, seed=9)])
    assert all(same(streams[0], stream) for stream in streams[1:])


def test_cached_pictures_are_not_read_again(folder: Path, tmp_path: Path) -> None:
    place = spoil(folder, tmp_path, [])
    dataset = ImageTextDataset(place, 8)
    first = list(dataset.epoch(0, COUNT, seed=0))
    for path in place.glob("*.png"):
        path.unlink()
    assert same(list(dataset.epoch(0, COUNT, seed=0)), first)
    with pytest.raises(DataError):
        list(ImageTextDataset(open_source(place), 8).epoch(0, 1, seed=0))


def test_a_batch_may_be_changed_without_harm_to_the_cache(dataset: ImageTextDataset) -> None:
    first = next(dataset.epoch(0, COUNT, seed=0)).pixels
    kept = first.clone()
    first.zero_()
    dataset[0].pixels.zero_()
    assert torch.equal(next(dataset.epoch(0, COUNT, seed=0)).pixels, kept)


def test_epochs_and_seeds_differ_in_order_and_captions(dataset: ImageTextDataset) -> None:
    streams = [
        next(dataset.epoch(epoch, COUNT, seed=seed))
        for epoch, seed in [(0, 0), (1, 0), (0, 1), (1, 1)]
    ]
    assert len({tuple(batch.keys) for batch in streams}) == 4
    assert len({tuple(sorted(batch.captions)) for batch in streams}) == 4
    assert len({tuple(sorted(batch.keys)) for batch in streams}) == 1


def test_what_is_drawn_for_a_sample_does_not_depend_on_the_batch(
    dataset: ImageTextDataset,
) -> None:
    drawn = [
        {k: c for b in dataset.epoch(2, size, seed=3) for k, c in zip(b.keys, b.captions)}
        for size in (1, 23)
    ]
    assert drawn[0] == drawn[1]


def test_captions_are_drawn_by_weight_and_dropped_with_their_probability(folder: Path) -> None:
    dataset = ImageTextDataset(folder, 1, drop_caption=0.2)
    counts = Counter(
        caption[-1:]
        for e in range(150)
        for b in dataset.epoch(e, COUNT, seed=5)
        for caption in b.captions
    )
    total = 150 * COUNT
    expected = {"": 0.2, "a": 0.2, "b": 0.4, "c": 0.2}
    for ending, share in expected.items():
        sigma = (share * (1 - share) / total) ** 0.5
        assert abs(counts[ending] / total - share) < 4.5 * sigma
    for drop, endings in [(0.0, {"a", "b", "c"}), (1.0, {""})]:
        dataset = ImageTextDataset(folder, 1, drop_caption=drop)
        found = {c[-1:] for e in range(9) for b in dataset.epoch(e, 23, seed=5) for c in b.captions}
        assert found == endings


def test_flip_mirrors_about_half(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(0, 256, 32, dtype=np.uint8)[None, :, None], (8, 8, 3))
    for i in range(40):
        Image.fromarray(ramp).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("ramp")
    upright = ImageTextDataset(tmp_path, 8)[0].pixels
    pixels = next(ImageTextDataset(tmp_path, 8, flip=True).epoch(0, 40, seed=0)).pixels
    mirrored = sum(torch.equal(picture, upright.flip(-1)) for picture in pixels)
    assert mirrored + sum(torch.equal(picture, upright) for picture in pixels) == 40
    assert 8 < mirrored < 32
    plain = next(ImageTextDataset(tmp_path, 8).epoch(0, 40, seed=0)).pixels
    assert all(torch.equal(picture, upright) for picture in plain)


def test_pictures_are_cropped_to_the_middle_and_resized(tmp_path: Path) -> None:
    wide = np.zeros((16, 48, 3), dtype=np.uint8)
    wide[:, 16:32] = 200
    Image.fromarray(wide).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("bar")
    for size in (4, 16, 40):
        pixels = ImageTextDataset(tmp_path, size)[0].pixels
        assert pixels.shape == (3, size, size)
        assert torch.allclose(pixels, torch.full_like(pixels, 200 / 127.5 - 1), atol=1e-6)


def test_cropped_pictures_are_counted(tmp_path: Path) -> None:
    for i, size in enumerate(((8, 8), (16, 8), (8, 40))):
        Image.new("RGB", size, "red").save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("red")
    data = ImageTextDataset(tmp_path, image_size=8)
    assert data.cropping() is None
    assert data[1] and data[1]
    said = f"1 of the 1 seen of 3 in {tmp_path} are not square: only the middle square was kept."
    assert data.cropping() == said
    assert data.report() == f"No bad samples among the 1 seen of 3 in {tmp_path}."
    for i in range(3):
        assert data[i] and data[i]  # twice: the second time from the cache
    said = f"2 of 3 in {tmp_path} are not square: only the middle square was kept."
    assert data.cropping() == said
    assert data.cropped.dtype == bool and data.cropped.tolist() == [False, True, True]


def test_captions_may_be_left_out_of_account(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "0.png")
    with pytest.raises(DataError, match="holds no captions"):
        open_source(tmp_path)
    for place in (tmp_path, tmp_path / "0.png"):
        data = ImageTextDataset(open_source(place, captioned=False), image_size=8)
        assert len(data) == 1 and data[0].captions == () and data[0].key == "0.png"


def test_a_very_long_picture_is_cheap(tmp_path: Path) -> None:
    Image.new("RGB", (1_000_000, 1), "red").save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a line")
    assert ImageTextDataset(tmp_path, 64)[0].pixels.shape == (3, 64, 64)


def test_bad_samples_are_replaced_counted_and_named(folder: Path, tmp_path: Path) -> None:
    place = spoil(folder, tmp_path, ["03.png", "17.png"])
    dataset = ImageTextDataset(place, 8, limit_bad=0.1)
    assert dataset.report().startswith("No bad samples")
    whole = list(dataset.epoch(0, 4, seed=0))
    fresh = ImageTextDataset(place, 8, limit_bad=0.1, cache_bytes=0)
    assert same(list(fresh.epoch(0, 4, seed=0, start_batch=2)), whole[2:])
    for epoch in range(4):
        for batch in dataset.epoch(epoch, 4, seed=0):
            assert len(batch.keys) == 4
            assert not {"03.png", "17.png"} & set(batch.keys)
    assert set(dataset.bad) == {"03.png", "17.png"}
    assert "2 bad of 23" in dataset.report()
    assert "'03.png' (it is not a picture" in dataset.report()
    with pytest.raises(BadSample):
        dataset[3]


def test_too_many_bad_samples_are_one_error(folder: Path, tmp_path: Path) -> None:
    place = spoil(folder, tmp_path, ["03.png"])
    with pytest.raises(DataError, match=r"03\.png.*more than 1%"):
        list(ImageTextDataset(place, 8).epoch(0, COUNT, seed=0))
    list(ImageTextDataset(place, 8, limit_bad=0.05).epoch(0, COUNT, seed=0))


def test_a_data_set_of_bad_samples_ends_with_one_error(folder: Path, tmp_path: Path) -> None:
    place = spoil(folder, tmp_path, [f"{i:02d}.png" for i in range(COUNT)])
    for limit in (0.01, 1.0):
        with pytest.raises(DataError, match="not a picture"):
            list(ImageTextDataset(place, 8, limit_bad=limit).epoch(0, 2, seed=0))


def test_wrong_arguments_are_refused_at_once(dataset: ImageTextDataset, folder: Path) -> None:
    for wrong in (
        {"batch_size": 0},
        {"rank": 1},
        {"rank": -1},
        {"world": 0},
        {"seed": -1},
        {"epoch": -1},
        {"start_batch": -1},
    ):
        arguments = {"epoch": 0, "batch_size": 2, "seed": 0} | wrong
        with pytest.raises(ConfigError):
            dataset.epoch(**arguments)
    with pytest.raises(DataError, match="23 samples, fewer than one batch of 24"):
        dataset.epoch(0, 12, seed=0, world=2)
    for options in ({"drop_caption": 1.5}, {"limit_bad": -1}, {"workers": 0}):
        with pytest.raises(ConfigError):
            ImageTextDataset(folder, 8, **options)
    with pytest.raises(ConfigError):
        ImageTextDataset(folder, 0)


def test_map_style_access(dataset: ImageTextDataset) -> None:
    assert len(dataset) == COUNT
    item = dataset[4]
    assert item.key == "04.png" and [c.text for c in item.captions] == ["4 a", "4 b", "4 c"]
    assert dataset[-1].key == "22.png"
    with pytest.raises(IndexError):
        dataset[COUNT]


def test_leaving_an_epoch_early_ends_its_threads(folder: Path) -> None:
    stream = ImageTextDataset(folder, 8, workers=4).epoch(0, 1, seed=0)
    next(stream)
    stream.close()
