"""Shards that `mmgen data pack` writes hold what the folder held."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
from bad_pictures import BAD, GOOD, write_bad_pictures
from tiny_clips import animation, grey_frames

from mmgen.data.clips import sample_frames
from mmgen.data.fit import fit_bytes
from mmgen.data.inspect import inspect
from mmgen.data.packing import Clips, pack
from mmgen.data.sources import open_any, open_source
from mmgen.data.tables import NoCaptions
from mmgen.errors import ConfigError, DataError, UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bad")
    return write_bad_pictures(place / "folder", place / "outside")


@pytest.mark.parametrize("size", [None, 4])
def test_shards_read_back_equal_the_folder(size: int | None, folder: Path, tmp_path: Path) -> None:
    source = open_source(folder)
    done = pack(source, tmp_path / "out", 3, size, limit_bad=0.6)
    assert (done.count, done.shards) == (len(GOOD), 3)
    assert done.name == f"{tmp_path}/out/train-{{0000..0002}}.tar"
    assert all(name in done.report for name in BAD)
    shards = open_source(done.name)
    expected = [source.read(i) for i, key in enumerate(source.keys) if key in GOOD]
    assert len(shards) == len(expected)
    for i, sample in enumerate(expected):
        read = shards.read(i)
        assert read.captions == sample.captions
        wanted = np.asarray(sample.image)
        if size is not None:
            wanted = fit_bytes(sample.image, size).permute(1, 2, 0).numpy()
        assert np.array_equal(np.asarray(read.image), wanted), sample.key


def test_bytes_depend_on_the_data_alone(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        pack(open_any(folder), tmp_path / name, 4, 8, limit_bad=1.0)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["train-0000.tar", "train-0001.tar"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_nothing_is_half_written(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="more than 1%; mend the data, or allow more"):
        pack(open_source(folder), out)
    assert list(tmp_path.iterdir()) == []
    for sizes in ({"shard_size": 0}, {"image_size": 0}):
        with pytest.raises(ConfigError, match="must be at least 1"):
            pack(open_source(folder), out, **sizes)
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(UserError, match="already exists"):
        pack(open_source(folder), out, limit_bad=1.0)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_pictures_without_captions_stay_without(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    done = pack(open_any(tmp_path), tmp_path / "out")
    for place in (done.name, tmp_path / "out"):
        found = inspect(open_any(place))
        assert (found.count, found.bad, found.captioned) == (2, {}, False)
    with pytest.raises(NoCaptions):
        open_source(done.name)
    with tarfile.open(done.name) as tar:
        assert tar.extractfile("00000000.json").read() == b'{"key": "a.png"}'


def test_clips_are_packed_as_they_are_or_as_strips(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    frames = grey_frames(9, 16, step=20)
    (tmp_path / "clips/a.gif").write_bytes(animation(frames, 50, "GIF"))
    (tmp_path / "clips/a.txt").write_text("a fade")
    (tmp_path / "clips/still.txt").write_text("nothing moves")
    (tmp_path / "clips/still.png").write_bytes(animation(frames[:1]))
    source = open_any(tmp_path / "clips", films=True)
    said = "Skipped 1 bad of 2 samples"
    whole = pack(source, tmp_path / "whole", limit_bad=0.5, clips=Clips())
    assert whole.count == 1 and whole.report.startswith(said)
    again = open_any(whole.name, films=True)
    assert again.encoded(0) == (tmp_path / "clips/a.gif").read_bytes()
    for fps, count, ms in ((None, 9, 450), (10.0, 4, 400), (40.0, 18, 450)):
        made = pack(source, tmp_path / f"at{fps}", 10, 8, 0.5, None, Clips(fps))
        strips = open_any(made.name, films=True)
        record = strips.record(0)
        assert (record["key"], record["frames"], record["ms"]) == ("a.gif", count, ms)
        greys = [frame.image.getpixel((3, 3))[0] for frame in sample_frames(strips, 0)]
        assert greys == [20 * min(int(i * 20 / (fps or 20)), 8) for i in range(count)]
        repacked = pack(strips, tmp_path / f"again{fps}", clips=Clips())
        assert open_any(repacked.name, films=True).record(0) == {**record, "key": "00000000"}
    with pytest.raises(DataError, match="a strip takes 5; thin them with --fps"):
        pack(source, tmp_path / "wide", 10, 3000, 1.0, None, Clips())
    with pytest.raises(ConfigError, match="fps must be above 0"):
        Clips(0.0)
