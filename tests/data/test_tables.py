"""Parquet files and data sets of HuggingFace's `datasets` as sources."""

from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmgen.data import remarks, tables
from mmgen.data.dataset import ImageTextDataset
from mmgen.data.inspect import inspect
from mmgen.data.pictures import BadSample
from mmgen.data.remarks import remarks_on
from mmgen.data.sources import open_any, open_source
from mmgen.data.tables import Columns
from mmgen.errors import DataError

pa = pytest.importorskip("pyarrow")
datasets = pytest.importorskip("datasets")
from pyarrow import parquet  # noqa: E402

COUNT = 7


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def texts() -> list[str]:
    return [f"picture {i}" for i in range(COUNT)]


def write(path: Path, rows_in_group: int = 3, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), path, row_group_size=rows_in_group)
    return path


def pictures(form: str, folder: Path) -> list[Any]:
    if form == "bytes":
        return [png(i) for i in range(COUNT)]
    if form == "struct":
        return [{"bytes": png(i), "path": None} for i in range(COUNT)]
    for i in range(COUNT):
        (folder / f"{i}.png").write_bytes(png(i))
    return [f"{i}.png" for i in range(COUNT)]


@pytest.mark.parametrize("form", ["bytes", "struct", "path"])
@pytest.mark.parametrize("caption", ["caption", "text", "Prompt"])
def test_parquet_files_are_sources(form: str, caption: str, tmp_path: Path) -> None:
    columns = {"id": list(range(COUNT)), "image": pictures(form, tmp_path), caption: texts()}
    source = open_source(write(tmp_path / "a.parquet", **columns))
    assert source.keys == [f"a.parquet:{i}" for i in range(COUNT)]
    for i in (6, 0, 3, 2, 5):
        sample = source.read(i)
        assert [c.text for c in sample.captions] == [f"picture {i}"]
        assert sample.image.getpixel((0, 0)) == (i, 0, 0)


def test_several_files_and_several_captions(tmp_path: Path) -> None:
    for part in range(2):
        image = pictures("bytes", tmp_path)
        write(tmp_path / f"t-{part}.parquet", image=image, captions=[[t, "b"] for t in texts()])
    source = open_source(f"{tmp_path}/t-{{0..1}}.parquet")
    assert len(source) == 2 * COUNT and len(set(source.keys)) == 2 * COUNT
    assert [c.text for c in source.read(COUNT).captions] == ["picture 0", "b"]
    assert open_source(tmp_path).keys == source.keys
    write(tmp_path / "val-0.parquet", image=image, caption=texts())
    with pytest.raises(DataError, match=r"tables of several series \(t, val\)"):
        open_source(tmp_path)


def test_row_groups_that_fit_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = parquet.ParquetFile.read_row_group

    def counted(file: Any, group: int, **words: Any) -> Any:
        read.append(group)
        return real(file, group, **words)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", counted)
    for name in ("a", "b"):
        columns = {"image": pictures("bytes", tmp_path), "text": texts()}
        write(tmp_path / f"t-{name}.parquet", 1, **columns)
    place = f"{tmp_path}/t-{{a,b}}.parquet"
    size = len(png(0))

    def decoded(limit: int) -> int:
        monkeypatch.setattr(tables, "KEPT_BYTES", limit)
        source = open_source(place)
        read.clear()
        for i in [*range(2 * COUNT)] * 3:
            assert source.picture(i).getpixel((0, 0)) == (i % COUNT, 0, 0)
        return len(read)

    assert decoded(1 << 20) == 2 * COUNT
    # The files share the room; what does not fit goes, the oldest first.
    assert decoded(size * COUNT) == decoded(0) == 6 * COUNT


def test_large_tables_are_said_to_be_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("bytes", "struct"):
        file = write(tmp_path / f"{form}.parquet", image=pictures(form, tmp_path), text=texts())
        assert remarks_on(str(file), Columns()) == []
        monkeypatch.setattr(remarks, "KEPT_BYTES", COUNT * len(png(0)) - 1)
        (said,) = remarks_on(str(file), Columns())
        assert "mmgen data pack" in said and "row groups of up to 0 MiB" in said
        monkeypatch.undo()


def test_rows_of_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        image = pictures("bytes", tmp_path)
        image[0] = b"no picture"
        write(tmp_path / part / "t.parquet", image=image, caption=texts())
    source = open_source(f"{tmp_path}/{{a,b}}/t.parquet")
    assert source.keys[::COUNT] == ["a/t.parquet:0", "b/t.parquet:0"]
    assert len(inspect(source).bad) == 2


def test_columns_may_be_chosen(tmp_path: Path) -> None:
    thing, other = pictures("bytes", tmp_path), [png(99)] * COUNT
    file = write(tmp_path / "a.parquet", image=other, thing=thing, text=["x"] * COUNT, note=texts())
    sample = open_source(file, columns=Columns("thing", "note")).read(4)
    assert sample.image.getpixel((0, 0)) == (4, 0, 0) and sample.captions[0].text == "picture 4"
    with pytest.raises(DataError, match="no column 'nott'; did you mean 'note'"):
        open_source(file, columns=Columns(caption="nott"))
    (tmp_path / "p.png").write_bytes(png(1))
    with pytest.raises(DataError, match="is no table"):
        open_source(tmp_path / "p.png", columns=Columns(caption="note"))


def test_columns_that_cannot_be_found(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", image=pictures("bytes", tmp_path), label=texts())
    with pytest.raises(DataError, match=r"no column of captions .* image, label with --caption"):
        open_source(file)
    assert not open_any(file).captioned and len(open_any(file)) == COUNT
    file = write(tmp_path / "b.parquet", x=pictures("bytes", tmp_path), text=texts())
    with pytest.raises(DataError, match=r"no column of pictures .* x, text with --image-column"):
        open_any(file)


def test_bad_rows_are_bad_samples(tmp_path: Path) -> None:
    (tmp_path.parent / "secret.png").write_bytes(png(0))
    cells = [{"bytes": None, "path": None}, {"bytes": b"text", "path": None}]
    cells += [{"bytes": None, "path": p} for p in ("/etc/passwd", "../secret.png", "gone.png")]
    cells += [{"bytes": png(5), "path": None}, {"bytes": png(6), "path": None}]
    captions = [*["x"] * 5, None, "x" * (2 << 20)]
    source = open_source(write(tmp_path / "a.parquet", image=cells, text=captions))
    reasons = ["holds no picture", "not a picture", "leads out", "leads out", "cannot be read"]
    for i, reason in enumerate([*reasons, "no caption", "larger than"]):
        with pytest.raises(BadSample, match=reason):
            source.read(i)


def test_damaged_parquet_is_one_sentence(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", image=pictures("bytes", tmp_path), text=texts())
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no parquet file, or it is damaged"):
        open_source(file)
    file.write_bytes(whole[:100] + bytes(len(whole) - 1100) + whole[-1000:])
    with pytest.raises(DataError, match="damaged"):  # the captions, or every picture
        list(ImageTextDataset(file, 8).epoch(0, 2, seed=0))


def test_datasets_objects_are_sources(tmp_path: Path) -> None:
    images = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(COUNT)]
    features = datasets.Features(image=datasets.Image(), text=datasets.Value("string"))
    data = datasets.Dataset.from_dict({"image": images, "text": texts()}, features=features)
    split = datasets.DatasetDict(test=data.select([0]), train=data)
    saved = tmp_path / "saved"
    split.save_to_disk(str(saved))
    for given in (data, split, saved, str(saved / "train")):
        source = open_source(given)
        assert len(source) == COUNT
        assert source.read(3).image.getpixel((0, 0)) == (3, 0, 0)
        assert source.read(3).captions[0].text == "picture 3"
    assert len(open_source(saved / "test")) == 1
    assert open_source(data).stamp == open_source(data).stamp != open_source(data.select([1])).stamp
    batch = next(ImageTextDataset(data, 8).epoch(0, 4, seed=0))
    assert batch.pixels.shape == (4, 3, 8, 8)
    halves = datasets.DatasetDict(a=data, b=data)
    with pytest.raises(DataError, match="has the splits a, b; give one"):
        open_source(halves)
    with pytest.raises(DataError, match="A int is no data set"):
        open_source(3)
    (saved / "train/state.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        open_source(saved)


@pytest.mark.parametrize("package", ["pyarrow", "datasets"])
def test_without_the_package_it_is_one_sentence(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.parquet", image=pictures("bytes", tmp_path), text=texts())
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/state.json").write_text("{}")
    real = builtins.__import__

    def refuse(name: str, *words: Any, **more: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == package:
            raise ImportError(name)
        return real(name, *words, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    place = file if package == "pyarrow" else tmp_path / "saved"
    with pytest.raises(DataError, match=rf"needs the package {package}.*mmgen-ar\[data\]"):
        open_source(place)
