"""Folders of pictures: `x.txt` beside `x.png`, or one metadata.jsonl or metadata.csv."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmgen.data.index import Entry, Span, path_inside
from mmgen.data.pictures import EXTENSIONS
from mmgen.errors import DataError

METADATA = ("metadata.jsonl", "metadata.csv")
FIELD_BYTES = 16 << 20  # of a metadata.csv; what is too long for a caption is refused by its row

Row = tuple[str, tuple[object, ...]]  # (file name, captions)


def index_folder(folder: Path, also: tuple[str, ...] = ()) -> list[Entry]:
    """Index the pictures, and files with `also` endings, of a folder; keys are paths below it.

    With a metadata file the pictures are those it names (in its order; lines about the same file
    add captions to it). Else they are all pictures in the folder and below, each with the `.txt`
    beside it, sorted.

    Raises:
        DataError: the metadata cannot be used, or there are two metadata files.
    """
    present = [path for name in METADATA if (path := folder / name).is_file()]
    if len(present) > 1:
        raise DataError(f"{folder} has metadata.jsonl and metadata.csv; keep one of them.")
    if present:
        return _from_rows(folder, present[0])
    return [entry for path in sorted(folder.rglob("*")) if (entry := _found(folder, path, also))]


def texts_alone(folder: Path, also: tuple[str, ...] = ()) -> list[str]:
    """The .txt files of a folder without metadata that stand beside no picture, sorted."""
    if any((folder / name).is_file() for name in METADATA):
        return []
    paths = sorted(folder.rglob("*"))
    named = {path.with_suffix("") for path in paths if _is_named_so(path, also)}
    texts = [path for path in paths if path.suffix == ".txt" and path.is_file()]
    return [_key(folder, path) for path in texts if path.with_suffix("") not in named]


def _found(folder: Path, path: Path, also: tuple[str, ...]) -> Entry | None:
    """The entry of a picture, or of what may be taken for one or for some, but cannot be used."""
    if is_picture(path, also):
        return with_text(folder, path)
    name = _key(folder, path)
    if path.is_symlink() and path.is_dir():
        return Entry(name, flaw="it is a link to a folder, and those are not followed")
    if path.is_symlink() and _is_named_so(path, also) and not path.exists():
        return Entry(name, flaw="it is a link to a file that is not there")
    if _is_named_so(path, also) and path.exists() and not path.is_dir():
        return Entry(name, flaw="it is a pipe or device, not a file")
    return None


def is_picture(path: Path, also: tuple[str, ...] = ()) -> bool:
    """Whether a path is a file with a picture's ending, or one of `also`, and is not hidden."""
    return _is_named_so(path, also) and path.is_file()


def _key(folder: Path, path: Path) -> str:
    """The path below the folder; bytes that are no UTF-8 are spelled out, so it can be written."""
    name = path.relative_to(folder).as_posix()
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _is_named_so(path: Path, also: tuple[str, ...] = ()) -> bool:
    known = path.suffix.lower().removeprefix(".") in (*EXTENSIONS, *also)
    return known and not path.name.startswith(".")


def with_text(folder: Path, picture: Path) -> Entry:
    """The entry of a picture in `folder`, with the `.txt` beside it if there is one."""
    text = picture.with_suffix(".txt")
    return Entry(
        _key(folder, picture),
        picture=Span(picture),
        text=Span(text) if text.is_file() else None,
    )


def _from_rows(folder: Path, table: Path) -> list[Entry]:
    read = _jsonl_rows if table.suffix == ".jsonl" else _csv_rows
    captions: dict[str, list[object]] = {}
    for name, texts in read(table, _text_of(table)):
        captions.setdefault(name, []).extend(texts)
    return [_named(folder, name, tuple(texts)) for name, texts in captions.items()]


def _named(folder: Path, name: str, captions: tuple[object, ...]) -> Entry:
    """Make the entry of a picture that a metadata file names; it may not leave the folder."""
    path = path_inside(folder, name)
    if path is None:
        return Entry(name, captions=captions, flaw="its file_name leads out of the folder")
    return Entry(name, picture=Span(path), captions=captions)


def _text_of(table: Path) -> str:
    try:
        return table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{table} is not UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{table} cannot be read ({error.strerror}); check it.") from None


def _jsonl_rows(table: Path, text: str) -> Iterator[Row]:
    # Not splitlines(): JSON strings may hold U+2028 and its like.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"Line {number} of {table} is not JSON; mend it.") from None
        name = record.get("file_name") if isinstance(record, dict) else None
        if not isinstance(name, str) or not name:
            raise DataError(f"Line {number} of {table} has no 'file_name'; add it.")
        yield name, captions_of(record)


def _csv_rows(table: Path, text: str) -> list[Row]:
    usual = csv.field_size_limit(FIELD_BYTES)  # the module's own limit is a global, 128 KiB
    try:
        return list(_csv_lines(table, text))
    finally:
        csv.field_size_limit(usual)


def _csv_lines(table: Path, text: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        for needed in ("file_name", "text"):
            if needed not in columns:
                raise DataError(
                    f"{table} has no column '{needed}' (it has: {', '.join(columns) or 'none'}); "
                    "its first line must name the columns file_name and text."
                )
        for row in reader:
            if not row["file_name"]:
                raise DataError(f"Line {reader.line_num} of {table} has no file_name; add it.")
            yield row["file_name"], (row["text"],) if row["text"] else ()
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: {error}; mend it.") from None


def captions_of(record: dict[str, Any]) -> tuple[object, ...]:
    """Return the raw captions of a record: its "captions", else its "caption" or "text"."""
    captions = record.get("captions")
    if isinstance(captions, list):
        return tuple(captions)
    for name in ("captions", "caption", "text"):
        if isinstance(record.get(name), str):
            return (record[name],)
    return ()
