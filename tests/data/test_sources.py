from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmgen.data.captions import Caption
from mmgen.data.index import Entry, Span
from mmgen.data.pictures import BadSample
from mmgen.data.sources import Source, open_any, open_source
from mmgen.data.tables import NoCaptions
from mmgen.errors import DataError


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def json_shard(tmp_path: Path, record: object) -> str:
    content = record if isinstance(record, bytes) else json.dumps(record).encode()
    write_tar(tmp_path / "a.tar", {"k.png": png(), "k.json": content})
    return str(tmp_path / "a.tar")


def test_brace_ranges_of_shards_are_read_in_order(tmp_path: Path) -> None:
    for shard in range(3):
        members = {}
        for i in range(2):
            members[f"{shard}{i}.png"] = png(10 * shard + i)
            members[f"{shard}{i}.txt"] = f"picture {shard}{i}\n".encode()
        write_tar(tmp_path / f"t-{shard:04d}.tar", members)
    source = open_source(f"{tmp_path}/t-{{0000..0002}}.tar")
    assert len(source) == 6
    assert source.keys == ["00", "01", "10", "11", "20", "21"]
    for place in (5, 0, 3):
        sample = source.read(place)
        assert sample.key == source.keys[place]
        assert sample.captions == (Caption(f"picture {sample.key}"),)
        assert sample.image.getpixel((0, 0)) == (int(sample.key), 0, 0)


@pytest.mark.parametrize(
    ("record", "captions"),
    [
        ({"captions": ["a", ["b", 2], ["c", 0.5]]}, [("a", 1), ("b", 2), ("c", 0.5)]),
        ({"caption": "a", "text": "b"}, [("a", 1)]),
        ({"text": " b "}, [("b", 1)]),
        ({"captions": "one"}, [("one", 1)]),
        ({"captions": ["", "  ", "x"]}, [("x", 1)]),
    ],
)
def test_captions_of_a_record(
    tmp_path: Path, record: object, captions: list[tuple[str, float]]
) -> None:
    sample = open_source(json_shard(tmp_path, record)).read(0)
    assert [(c.text, c.weight) for c in sample.captions] == captions


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"\xff\xfe\x00", "UTF-8"),
        (b"{", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"captions": [["a", NaN]]}', "weight"),
        (b'{"text": "\\ud800"}', "Unicode"),
        (b" " * (1 << 20) + b"{} ", "larger"),
        ({}, "no caption"),
        ([], "no caption"),
        ({"captions": []}, "no caption"),
        ({"captions": None, "text": 3}, "no caption"),
        ({"captions": ["", " "]}, "no caption"),
        ({"captions": [1]}, "neither"),
        ({"captions": [["a", 1, 2]]}, "neither"),
        ({"captions": [["a", True]]}, "neither"),
        ({"captions": [["a", "1"]]}, "neither"),
        ({"captions": [["a", 0]]}, "weight"),
        ({"captions": [["a", -1]]}, "weight"),
        ({"captions": [["a", 10**400]]}, "weight"),
    ],
)
def test_bad_records_are_bad_samples(tmp_path: Path, record: object, reason: str) -> None:
    content = record if isinstance(record, bytes) else json.dumps(record).encode()
    members = {"k.png": png(), "k.json": content, "good.png": png(), "good.txt": b"x"}
    write_tar(tmp_path / "a.tar", members)
    source = open_source(tmp_path / "a.tar")
    with pytest.raises(BadSample, match=reason):
        source.read(0)


@pytest.mark.parametrize("record", [{}, [], {"captions": []}, {"id": 1, "text": None}])
def test_records_without_any_caption_are_no_captions(tmp_path: Path, record: object) -> None:
    place = json_shard(tmp_path, record)
    with pytest.raises(NoCaptions, match="holds no captions"):
        open_source(place)
    source = open_any(place)
    assert not source.captioned and source.read(0).captions == ()


@settings(max_examples=40, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=6))
def test_any_json_is_captions_or_a_bad_sample(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    source = open_any(json_shard(tmp_path_factory.mktemp("json"), {"captions": value}))
    with contextlib.suppress(BadSample):
        assert all(c.text and c.weight > 0 for c in source.read(0).captions)


def test_a_text_member_stands_in_for_a_record_without_captions(tmp_path: Path) -> None:
    members = {"k.png": png(), "k.json": b'{"id": 1}', "k.txt": b"\xef\xbb\xbfhello"}
    write_tar(tmp_path / "a.tar", members)
    assert open_source(tmp_path / "a.tar").read(0).captions == (Caption("hello"),)


def test_samples_without_picture_or_with_text_for_one_are_bad(tmp_path: Path) -> None:
    members = {"a.txt": b"x", "b.png": b"not a picture", "b.txt": b"x", "c.png": png()}
    write_tar(tmp_path / "a.tar", members)
    source = open_source(tmp_path / "a.tar")
    for place, reason in enumerate(["no picture", "not a picture", "no caption"]):
        with pytest.raises(BadSample, match=reason):
            source.read(place)


def test_a_shard_that_shrinks_after_opening_gives_bad_samples(tmp_path: Path) -> None:
    source = open_source(json_shard(tmp_path, {"text": "x"}))
    with (tmp_path / "a.tar").open("r+b") as file:
        file.truncate(520)
    with pytest.raises(BadSample, match="shorter"):
        source.read(0)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(BadSample, match="cannot be read"):
        source.read(0)


def test_a_folder_pairs_pictures_with_the_text_beside(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    for name in ("b", "cats/a", "cats/c.d"):
        (tmp_path / f"{name}.png").write_bytes(png())
        (tmp_path / f"{name}.txt").write_text(f"about {name}\n", encoding="utf-8")
    (tmp_path / "b.JPG").write_bytes(png())
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._b.png").write_bytes(b"resource fork")
    source = open_source(tmp_path)
    assert source.keys == ["b.JPG", "b.png", "cats/a.png", "cats/c.d.png"]
    assert source.read(3).captions == (Caption("about cats/c.d"),)


def test_a_caption_that_is_not_utf8_makes_one_bad_sample(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(BadSample, match="UTF-8"):
        open_source(tmp_path).read(0)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_metadata_files(tmp_path: Path, form: str) -> None:
    (tmp_path / "x").mkdir()
    for name in ("x/a.png", "b.png", "unnamed.png"):
        (tmp_path / name).write_bytes(png())
    rows = [("x/a.png", "first, \u2028 with\ncomma"), ("b.png", "bé"), ("x/a.png", 'second "a"')]
    if form == "jsonl":
        lines = [json.dumps({"file_name": n, "text": t}, ensure_ascii=False) for n, t in rows]
        text = "\r\n".join(lines) + "\n\n"
    else:
        quoted = [(n, t.replace('"', '""')) for n, t in rows]
        text = "id,text,file_name\n" + "".join(f'1,"{t}",{n}\n' for n, t in quoted)
    (tmp_path / f"metadata.{form}").write_text(text, encoding="utf-8-sig")
    source = open_source(tmp_path)
    assert source.keys == ["x/a.png", "b.png"]
    assert [c.text for c in source.read(0).captions] == [rows[0][1], rows[2][1]]


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "/etc/passwd",
        "a/../../secret.png",
        "..\\secret.png",
        "c:x.png",
        "a\x00.png",
        ".",
        "missing.png",
        "folder",
    ],
)
def test_metadata_cannot_name_files_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    inside = tmp_path / "in"
    (inside / "folder").mkdir(parents=True)
    (inside / "good.png").write_bytes(png())
    rows = [{"file_name": name, "text": "x"}, {"file_name": "good.png", "text": "x"}]
    (inside / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source(inside)
    with pytest.raises(BadSample, match=r"leads out|cannot be read"):
        source.read(0)
    assert source.read(1).key == "good.png"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("metadata.csv", b"name,text\na.png,x\n", "no column 'file_name'.*name, text"),
        ("metadata.csv", b"file_name,label\na.png,x\n", "no column 'text'"),
        ("metadata.csv", b"", "no column"),
        ("metadata.csv", b'file_name,text\n"a.png,x\n', "line"),
        ("metadata.csv", b"file_name,text\n,x\n", "Line 2"),
        ("metadata.csv", b"file_name,text\na.png," + b"x" * (17 << 20), "line"),
        ("metadata.csv", b"file_name,text\na.png,\xff\n", "UTF-8"),
        ("metadata.csv", b"file_name,text\na.png,\n", "no captions"),
        ("metadata.csv", b"file_name,text\n", "no pictures"),
        ("metadata.jsonl", b'{"file_name": "a.png", "text": "x"}\n{oops\n', "Line 2"),
        ("metadata.jsonl", b'{"text": "x"}\n', "Line 1.*file_name"),
        ("metadata.jsonl", b'["a.png"]\n', "Line 1.*file_name"),
        ("metadata.jsonl", b"\xff\xfe", "UTF-8"),
        ("metadata.jsonl", b"", "no pictures"),
        ("metadata.jsonl", b'{"file_name": "a.png"}\n', "no captions"),
    ],
)
def test_unusable_metadata_is_one_error(
    tmp_path: Path, file: str, content: bytes, words: str
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_source(tmp_path)


def test_a_pipe_that_a_table_names_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\nfifo.png,x\n")
    with pytest.raises(BadSample, match="is a pipe"):
        open_source(tmp_path).read(0)


def test_long_captions_in_a_table_are_used_or_named(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    texts = {"long.png": "x" * 200_000, "endless.png": "x" * 2_000_000}
    rows = "".join(f"{name},{text}\n" for name, text in texts.items())
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{rows}")
    for name in texts:
        (tmp_path / name).write_bytes(png())
    source = open_source(tmp_path)
    assert source.read(0).captions == (Caption(texts["long.png"]),)
    with pytest.raises(BadSample, match=r"'endless\.png' .* larger than"):
        source.read(1)
    assert csv.field_size_limit() == limit


def test_two_samples_of_one_key_are_refused(tmp_path: Path) -> None:
    entry = Entry("a", picture=Span(tmp_path / "a.png"), captions=("x",))
    with pytest.raises(DataError, match="my has several samples called 'a'"):
        Source("my", [entry, entry])


def test_useless_places_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no"):
        open_source(tmp_path / "none")
    with pytest.raises(DataError, match="There is no"):
        open_source(f"{tmp_path}/t-{{0..2}}.tar")
    with pytest.raises(DataError, match="no pictures"):
        open_source(tmp_path)
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(DataError, match="no captions"):
        open_source(tmp_path)
    for name in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match="keep one"):
        open_source(tmp_path)


def test_a_folder_of_shards_is_read_if_they_are_of_one_series(tmp_path: Path) -> None:
    for i in range(11):  # of two widths: the tenth stands behind the ninth
        write_tar(tmp_path / f"t-{i}.tar", {f"k{i}.png": png(i), f"k{i}.txt": b"x"})
    source = open_source(tmp_path)
    assert source.keys == [f"k{i}" for i in range(11)]
    assert source.keys == open_source(f"{tmp_path}/t-{{0..10}}.tar").keys
    write_tar(tmp_path / "val-0000.tar", {"v.png": png(), "v.txt": b"x"})
    with pytest.raises(DataError, match=r"several series \(t, val\); name one, such as '.*t-\{0"):
        open_source(tmp_path)


def test_places_without_usable_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "empty.tar", {"a.cls": b"1"})
    with pytest.raises(DataError, match="no pictures"):
        open_source(tmp_path / "empty.tar")
    write_tar(tmp_path / "mute.tar", {"a.png": png()})
    with pytest.raises(DataError, match="no captions"):
        open_source(tmp_path / "mute.tar")
    write_tar(tmp_path / "odd{1}.tar", {"a.png": png(), "a.txt": b"x"})
    assert len(open_source(tmp_path / "odd{1}.tar")) == 1
