"""What `mmgen data check` finds, in a folder with everything that people's folders hold."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from bad_pictures import BAD, GOOD, write_bad_pictures

from mmgen.data.dataset import ImageTextDataset
from mmgen.data.inspect import Findings, inspect, scripts_of
from mmgen.data.pictures import BadSample
from mmgen.data.reports import refuse_many_bad
from mmgen.data.sources import open_any, open_source
from mmgen.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bad")
    return write_bad_pictures(place / "folder", place / "outside")


@pytest.fixture(scope="module")
def found(folder: Path) -> Findings:
    return inspect(open_any(folder))


@pytest.mark.parametrize("name", GOOD)
def test_what_is_odd_is_used_and_said(name: str, found: Findings) -> None:
    (look,) = [look for look in found.good if look.key == name]
    assert not GOOD[name] or GOOD[name] in look.notes
    assert look.captions


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_skipped_and_named(name: str, found: Findings, folder: Path) -> None:
    assert BAD[name] in found.bad[name]
    source = open_source(folder)
    with pytest.raises(BadSample, match=BAD[name]):
        source.read(source.keys.index(name))


def test_nothing_is_lost(found: Findings) -> None:
    assert {look.key for look in found.good} == set(GOOD) and set(found.bad) == set(BAD)
    assert found.count == len(GOOD) + len(BAD)
    said = "\n".join(found.lines())
    assert all(name in said for name in BAD)
    assert "arabic 1" in said and "emoji 1" in said and "1 animated" in said
    assert found.to_dict()["captions"]["scripts"]["latin"] == len(GOOD)
    assert json.dumps(found.to_dict(), ensure_ascii=False).encode("utf-8") and said.encode("utf-8")


def test_each_picture_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, read = open_any(folder), Counter[int]()
    encoded = source.encoded
    monkeypatch.setattr(source, "encoded", lambda i: read.update([i]) or encoded(i))
    inspect(source)
    assert set(read.values()) == {1}


def test_odd_pictures_look_as_they_should(folder: Path) -> None:
    source = open_source(folder)
    colours = {
        "animated.gif": (255, 0, 0),
        "cmyk.jpg": (255, 0, 0),
        "palette.png": (255, 255, 255),
        "sixteen.png": (128, 128, 128),
    }
    for name, colour in colours.items():
        pixel = source.read(source.keys.index(name)).image.getpixel((4, 4))
        assert np.abs(np.subtract(pixel, colour)).max() <= 3, (name, pixel)
    turned = source.read(source.keys.index("turned.jpg")).image
    assert turned.size == (8, 16)
    assert turned.getpixel((4, 2))[0] > 200 and turned.getpixel((4, 13))[2] > 200


def test_a_training_uses_the_good_ones_if_it_may(folder: Path) -> None:
    with pytest.raises(DataError, match=r"more than 1%; .* --allow-bad"):
        list(ImageTextDataset(folder, 8).epoch(0, 2, seed=0))
    data = ImageTextDataset(folder, 8, limit_bad=0.6, drop_caption=0.0)
    seen = {key for e in range(6) for batch in data.epoch(e, 2, seed=0) for key in batch.keys}
    assert seen == set(GOOD) and set(data.bad) == set(BAD)


def test_duplicates_and_captions_are_counted(tmp_path: Path) -> None:
    for i, colour in enumerate(("red", "blue", "red")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(colour)
    found = inspect(open_any(tmp_path)).to_dict()
    assert found["duplicates"] == {"2.png": "0.png"}
    assert (found["captions"]["count"], found["captions"]["distinct"]) == (3, 2)
    assert found["captions"]["characters"] == {"shortest": 3, "median": 3, "longest": 4}
    for file in tmp_path.glob("*.txt"):
        file.unlink()
    bare = inspect(open_any(tmp_path))
    assert bare.to_dict()["captions"] is None and not bare.bad
    assert any("a generator needs them" in line for line in bare.lines())


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("a cat 2", ["latin"]),
        ("кот", ["cyrillic"]),
        ("猫が", ["cjk", "hiragana"]),
        ("🍎", ["emoji"]),
        ("12!", []),
    ],
)
def test_scripts(text: str, scripts: list[str]) -> None:
    assert scripts_of(text) == scripts


def test_a_refusal_says_how_much_was_looked_at() -> None:
    bad = {"a": "it is empty"}
    with pytest.raises(DataError, match=r"1 bad of 9 .* That is more than 1%; mend") as all_:
        refuse_many_bad(bad, 9, "my", 0.01)
    assert "so far" not in str(all_.value) and "rest" not in str(all_.value)
    with pytest.raises(DataError, match=r"the 3 seen of 9 .* already .*`mmgen data check` name"):
        refuse_many_bad(bad, 9, "my", 0.01, seen=3)
    refuse_many_bad(bad, 9, "my", 0.2, seen=3)
