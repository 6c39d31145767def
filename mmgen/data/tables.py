"""Tables of pictures: parquet files, and data sets of HuggingFace's `datasets`.

The captions are read at once, a picture only when it is asked for.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from mmgen.data.index import Entry, Span, distinct_names, path_inside
from mmgen.data.pictures import BadSample
from mmgen.errors import DataError, first_line, suggestion

PICTURE_COLUMNS = ("image", "picture", "img", "jpg", "png", "file_name", "image_path", "path")
CAPTION_COLUMNS = ("captions", "caption", "text", "prompt", "description", "sentence", "title")
KEPT_BYTES = 512 << 20  # of decoded row groups that the parquet files of a source keep together


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold the picture and the caption; None: the first known name."""

    picture: str | None = None
    caption: str | None = None


ANY = Columns()


class NoCaptions(DataError):
    """A data set of pictures without captions."""


class Table(Protocol):
    """Rows with named columns.

    Attributes:
        name: for messages.
        names: of the columns.
        state: what changes when the table is written anew.
        root: folder in which the files lie that cells name; None: they may lie anywhere.
    """

    name: str
    names: list[str]
    state: object
    root: Path | None

    def __len__(self) -> int: ...

    def column(self, name: str) -> Iterator[object]:
        """All values of a column."""

    def cell(self, row: int, name: str) -> object:
        """One value: bytes, a path, or both as a mapping, where it is a picture."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The picture in one row of a table."""

    table: Table
    row: int
    column: str

    @property
    def origin(self) -> Hashable:
        """The table."""
        return self.table.name

    @property
    def state(self) -> object:
        """That of the table."""
        return self.table.state

    def read(self, key: str, limit: int) -> bytes:
        """The picture's bytes, from the cell or from the file that it names.

        Raises:
            BadSample: there are none, or more than `limit`.
        """
        try:
            value = self.table.cell(self.row, self.column)
        except Exception as error:  # the libraries meet damage with any kind of exception
            raise BadSample(key, f"its row cannot be read ({first_line(error)})") from None
        if isinstance(value, dict):
            value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if isinstance(value, str):
            return Span(self._file(key, value)).read(key, limit)
        if not isinstance(value, bytes):
            raise BadSample(key, f"its column '{self.column}' holds no picture")
        if len(value) > limit:
            raise BadSample(key, f"its picture is larger than {limit} bytes")
        return value

    def _file(self, key: str, name: str) -> Path:
        if self.table.root is None:
            return Path(name)
        path = path_inside(self.table.root, name)
        if path is None:
            raise BadSample(key, "its file name leads out of the folder")
        return path


def index_parquet(files: list[Path], columns: Columns, captioned: bool) -> list[Entry]:
    """Index parquet files, in their order; the keys are `NAME:ROW`, or `FOLDER/NAME:ROW`.

    Raises:
        DataError: pyarrow is not installed, a file is damaged, or a column is missing.
    """
    kept = _Kept(KEPT_BYTES)
    return [
        entry
        for file, name in zip(files, distinct_names(files))
        for entry in _entries(_Parquet(file, kept), name, columns, captioned)
    ]


def largest_group(files: list[Path], columns: Columns) -> tuple[int, int]:
    """Bytes of pictures in the largest row group of parquet files, and in all of them."""
    sizes = [size for file in files for size in _Parquet(file, _Kept(0)).sizes(columns.picture)]
    return max(sizes, default=0), sum(sizes)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` of HuggingFace's `datasets` wrote this folder."""
    names = ("state.json", "dataset_dict.json")
    return any((folder / name).is_file() for name in names)


def index_saved(folder: Path, columns: Columns, captioned: bool) -> list[Entry]:
    """Index a folder that `save_to_disk` wrote.

    Raises:
        DataError: `datasets` is not installed, the folder is damaged, or a column is missing.
    """
    try:
        import datasets
    except ImportError:
        raise _needed(str(folder), "datasets") from None
    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as error:  # as above
        raise DataError(f"{folder} is damaged ({first_line(error)}); save it again.") from None
    return index_dataset(data, columns, captioned, str(folder), folder)


def index_dataset(
    data: object,
    columns: Columns,
    captioned: bool,
    name: str = "the data set",
    root: Path | None = None,
) -> list[Entry]:
    """Index a `Dataset`, or the split `train` of a `DatasetDict` (or its only one).

    Args:
        data: of HuggingFace's `datasets`.
        columns: which to read.
        captioned: whether captions are needed.
        name: for messages.
        root: see `Table`.

    Raises:
        DataError: it is something else, has no such split, or a column is missing.
    """
    try:
        import datasets
    except ImportError:
        raise _needed(f"A {type(data).__name__}", "datasets") from None
    if isinstance(data, datasets.DatasetDict):
        splits = list(data)
        if "train" not in data and len(splits) != 1:
            raise DataError(f"{name} has the splits {', '.join(splits)}; give one of them.")
        data = data["train" if "train" in data else splits[0]]
    if not isinstance(data, datasets.Dataset):
        raise DataError(
            f"A {type(data).__name__} is no data set that can be read at random; give a path, or a "
            "Dataset of HuggingFace's datasets that is not streamed."
        )
    return _entries(_Dataset(data, name, root), "", columns, captioned)


def _entries(table: Table, prefix: str, columns: Columns, captioned: bool) -> list[Entry]:
    picture = _chosen(table, columns.picture, PICTURE_COLUMNS, "pictures")
    texts: Iterator[object] = iter(())
    if captioned:
        texts = table.column(_chosen(table, columns.caption, CAPTION_COLUMNS, "captions"))
    start = f"{prefix}:" if prefix else ""
    return [
        Entry(f"{start}{row}", Cell(table, row, picture), captions=_as_captions(next(texts, None)))
        for row in range(len(table))
    ]


def _chosen(table: Table, wanted: str | None, known: Sequence[str], what: str) -> str:
    """The column that was asked for, else the first one with a known name."""
    if wanted is not None:
        if wanted not in table.names:
            hint = suggestion(wanted, table.names)
            raise DataError(f"{table.name} has no column '{wanted}'{hint}")
        return wanted
    lower = {name.lower(): name for name in reversed(table.names)}
    for name in known:
        if name in lower:
            return lower[name]
    option = "image_column" if what == "pictures" else "caption_column"
    raise (DataError if what == "pictures" else NoCaptions)(
        f"{table.name} has no column of {what} by a known name ({', '.join(known)}); name one of "
        f"{', '.join(table.names)} with --{option.replace('_', '-')} (data.{option} in a recipe)."
    )


def _as_captions(value: object) -> tuple[object, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


class _Kept:
    """The row groups that were read last, of all files of a source, up to so many bytes."""

    def __init__(self, limit: int) -> None:
        self._groups: OrderedDict[Hashable, Any] = OrderedDict()
        self._room, self._lock = limit, threading.Lock()

    def find(self, key: Hashable) -> Any:
        """A group that is kept, or None."""
        with self._lock:
            if key in self._groups:
                self._groups.move_to_end(key)  # the newest stands last
            return self._groups.get(key)

    def keep(self, key: Hashable, values: Any) -> None:
        """Keep a group, and let the oldest go for it; the newest is kept whatever its size."""
        with self._lock:
            self._groups[key] = values
            self._room -= values.nbytes
            while self._room < 0 and len(self._groups) > 1:
                self._room += self._groups.popitem(last=False)[1].nbytes


class _Parquet:
    """One parquet file; the row groups read last stay in memory."""

    def __init__(self, file: Path, kept: _Kept) -> None:
        try:
            from pyarrow import parquet
        except ImportError:
            raise _needed(str(file), "pyarrow") from None
        self.name = str(file)
        self.root: Path | None = file.parent
        try:
            with parquet.ParquetFile(file) as opened:
                meta, self.names = opened.metadata, list(opened.schema_arrow.names)
        except Exception as error:  # as above
            why = f"{file} is no parquet file, or it is damaged ({first_line(error)})"
            raise DataError(f"{why}; fetch it again.") from None
        self.state = Span(file).state
        sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        self._starts: list[int] = [0, *accumulate(sizes)]
        self._meta = meta
        self._kept, self._lock = kept, threading.Lock()

    def __len__(self) -> int:
        return self._starts[-1]

    def column(self, name: str) -> Iterator[object]:
        for group in range(len(self._starts) - 1):
            try:
                values = self._read(group, name).to_pylist()
            except Exception as error:  # as above
                why = f"{self.name} is damaged ({first_line(error)})"
                raise DataError(f"{why}; fetch it again.") from None
            yield from values

    def cell(self, row: int, name: str) -> object:
        group = bisect_right(self._starts, row) - 1
        key = (self.name, group, name)
        with self._lock:  # several threads that want one group need not all read it
            values = self._kept.find(key)
            if values is None:
                values = self._read(group, name)
                self._kept.keep(key, values)
        return values[row - self._starts[group]].as_py()

    def sizes(self, picture: str | None) -> list[int]:
        """Bytes of the pictures in each row group."""
        column = _chosen(self, picture, PICTURE_COLUMNS, "pictures")
        groups = [self._meta.row_group(i) for i in range(self._meta.num_row_groups)]
        return [
            sum(
                part.total_uncompressed_size
                for part in map(group.column, range(group.num_columns))
                if part.path_in_schema.split(".")[0] == column
            )
            for group in groups
        ]

    def _read(self, group: int, name: str) -> Any:
        from pyarrow import parquet

        # Opened anew each time, as in `Span`. The column itself, not those inside it.
        with parquet.ParquetFile(self.name) as opened:
            return opened.read_row_group(group, columns=[name]).column(name)


class _Dataset:
    """A `Dataset`; its pictures come as bytes or a path, not decoded."""

    def __init__(self, data: Any, name: str, root: Path | None) -> None:
        import datasets

        for column, feature in data.features.items():
            if isinstance(feature, datasets.Image):
                data = data.cast_column(column, datasets.Image(decode=False))
        self.name, self.root, self.names = name, root, list(data.column_names)
        self.state: object = str(data._fingerprint)  # datasets' own hash of rows and changes
        # A view of each column, so that reading a cell does not decode its row.
        plain = data.with_format(None)
        self._columns = {column: plain.select_columns([column]) for column in self.names}
        self._rows = len(data)

    def __len__(self) -> int:
        return self._rows

    def column(self, name: str) -> Iterator[object]:
        yield from self._columns[name][:][name]

    def cell(self, row: int, name: str) -> object:
        return self._columns[name][row][name]


def _needed(name: str, package: str) -> DataError:
    return DataError(
        f"{name} needs the package {package} to be read; `pip install 'mmgen-ar[data]'`."
    )
