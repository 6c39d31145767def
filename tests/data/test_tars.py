from __future__ import annotations

import contextlib
import io
import math
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.data.index import distinct_names
from mmgen.data.shards import split_evenly, write_shard
from mmgen.data.tars import expand_braces, index_shard, index_shards
from mmgen.errors import DataError

plain = st.text("abc/-_.0", max_size=6)
ranges = st.tuples(st.integers(0, 120), st.integers(0, 30), st.integers(0, 5))
lists = st.lists(st.text("xyz", max_size=3), min_size=2, max_size=4)


def tar_bytes(members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@given(plain)
def test_names_without_braces_stay(text: str) -> None:
    assert expand_braces(text) == [text]


@given(plain, ranges, plain)
def test_ranges_count_up_with_the_width_of_padded_ends(
    before: str, spec: tuple[int, int, int], after: str
) -> None:
    first, more, width = spec
    low, high = str(first).zfill(width), str(first + more).zfill(width)
    names = expand_braces(f"{before}{{{low}..{high}}}{after}")
    assert names[0] == f"{before}{low}{after}" or len(low) < len(high)
    assert names[-1] == f"{before}{high}{after}"
    middles = [name[len(before) : len(name) - len(after)] for name in names]
    assert [int(middle) for middle in middles] == list(range(first, first + more + 1))
    if low.startswith("0") and len(low) > 1:
        assert {len(middle) for middle in middles} == {max(len(low), len(high))}


@given(plain, st.lists(lists, min_size=1, max_size=3))
def test_several_braces_multiply_leftmost_slowest(text: str, options: list[list[str]]) -> None:
    names = expand_braces(text.join("{" + ",".join(choice) + "}" for choice in options))
    assert len(names) == math.prod(len(choice) for choice in options)
    assert names[0] == text.join(choice[0] for choice in options)
    assert names[1][-1:] == text.join([*(c[0] for c in options[:-1]), options[-1][1]])[-1:]


@pytest.mark.parametrize(
    "pattern",
    [
        "a{0..3",
        "a}b",
        "{a{1..2}}",
        "{}",
        "{x}",
        "{3..1}",
        "{0..99999999999}",
        "{a..c}",
        "{1..}",
        "{0..999}{0..999}",
    ],
)
def test_bad_braces_are_one_error(pattern: str) -> None:
    with pytest.raises(DataError):
        expand_braces(pattern)


@given(st.integers(0, 5000), st.integers(1, 2000))
def test_shards_split_evenly(count: int, most: int) -> None:
    parts = split_evenly(count, most)
    assert [i for part in parts for i in part] == list(range(count))
    assert len(parts) == -(-count // most)
    assert not parts or (max(map(len, parts)) - min(map(len, parts)) <= 1 and len(parts[0]) <= most)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text("abé-_ 1", min_size=1, max_size=150), st.binary(max_size=1500)),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_every_member_is_found_where_it_lies(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, bytes], form: int
) -> None:
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    path.write_bytes(
        tar_bytes([(f"d/{key}.PNG", content) for key, content in samples.items()], form)
    )
    entries = index_shard(path)
    assert [entry.key for entry in entries] == [f"d/{key}" for key in samples]
    for entry, content in zip(entries, samples.values()):
        assert entry.picture is not None
        assert entry.picture.read(entry.key, 1 << 20) == content


def test_bytes_of_a_shard_depend_on_its_content_alone(tmp_path: Path) -> None:
    samples = [(f"k{i}", {"png": bytes([i]) * i, "json": b"{}"}) for i in range(9)]
    write_shard(tmp_path / "a.tar", samples)
    write_shard(tmp_path / "b.tar", iter(samples))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar} == {(0, 0, 0, "")}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_cut_tar_is_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = tar_bytes([(f"{i}.png", bytes(300 * i)) for i in range(1, 5)] + [("long" * 60, b"x")])
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    cut = data.draw(st.integers(0, end + 511) | st.integers(0, end // 512).map(lambda n: n * 512))
    path = tmp_path_factory.mktemp("tar") / "cut.tar"
    path.write_bytes(whole[:cut])
    with pytest.raises(DataError, match=r"cut\.tar"):
        index_shard(path)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_tar_is_read_or_refused_but_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(tar_bytes([("long" * 60 + ".png", b"x"), ("b.png", b"y"), ("b.txt", b"z")]))
    for place, value in changes:
        content[place] = value
    path = tmp_path_factory.mktemp("tar") / "bad.tar"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        index_shard(path)


@pytest.mark.parametrize("size", [-512, -1024, 1 << 60])
def test_a_header_with_a_senseless_size_is_refused(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = size
    before = tar_bytes([("b.png", b"x")])[:1024]
    (tmp_path / "a.tar").write_bytes(before + info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(DataError):
        index_shard(tmp_path / "a.tar")


def test_damaged_second_header_joined_and_compressed_tars_are_refused(tmp_path: Path) -> None:
    one = tar_bytes([("a.png", b"1"), ("b.png", b"2")])
    damaged = bytearray(one)
    damaged[1024] ^= 1
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            tar.addfile(tarfile.TarInfo("a.png"))
        packed = buffer.getvalue()
    for content in (bytes(damaged), one + one, packed, b"", b"hello", bytes(100)):
        (tmp_path / "x.tar").write_bytes(content)
        with pytest.raises(DataError):
            index_shard(tmp_path / "x.tar")


def test_names_that_climb_are_only_names(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.tar"
    path.parent.mkdir()
    names = ["../../evil.png", "/etc/evil.png", "..", ".hidden.png", "dir/.png", "x/../y.png"]
    path.write_bytes(tar_bytes([(name, b"data") for name in names]))
    entries = index_shard(path)
    assert [entry.key for entry in entries] == ["../../evil", "/etc/evil", "x/../y"]
    assert all(entry.picture and entry.picture.path == path for entry in entries)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "in"]


def test_links_and_folders_are_not_samples(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind!r}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert index_shard(tmp_path / "a.tar") == []


def test_a_member_that_occurs_twice_makes_its_sample_bad(tmp_path: Path) -> None:
    members = [("a.png", b"1"), ("a.png", b"2"), ("b.png", b"3"), ("b.jpg", b"4"), ("c.png", b"5")]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    flaws = {entry.key: entry.flaw for entry in index_shard(tmp_path / "a.tar")}
    assert "twice" in flaws["a"]
    assert "several pictures" in flaws["b"]
    assert flaws["c"] == ""


def test_keys_of_several_shards_are_unique(tmp_path: Path) -> None:
    paths = [tmp_path / "s0.tar", tmp_path / "s1.tar"]
    for path in paths:
        path.write_bytes(tar_bytes([("same.png", b"1"), (f"{path.stem}only.png", b"2")]))
    keys = [entry.key for entry in index_shards(paths)]
    assert keys == ["s0/same", "s0only", "s1/same", "s1only"]
    with pytest.raises(DataError, match="twice"):
        index_shards([paths[0], paths[0]])


def test_shards_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / part / "x/train.tar" for part in ("a", "b")]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(tar_bytes([("k.png", b"1")]))
    keys = [entry.key for entry in index_shards(paths)]
    assert keys == ["a/x/train/k", "b/x/train/k"]


names = st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=3)


@given(st.lists(names, min_size=1, max_size=6, unique_by=tuple))
def test_distinct_names_are_distinct_and_no_longer_than_needed(parts: list[list[str]]) -> None:
    paths = [Path("/", *each) for each in parts]
    found = distinct_names(paths)
    assert len(set(found)) == len(paths)
    assert all(path.as_posix().endswith(name) for path, name in zip(paths, found))
    most = max(len(name.split("/")) for name in found)
    if most > 1:
        assert len({path.parts[1 - most :] for path in paths}) < len(paths)
