"""Sources of captioned pictures: shards, folders and tables, read at random by number."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.data.captions import Caption
from mmgen.data.folders import captions_of, index_folder, is_picture, with_text
from mmgen.data.index import Entry, Piece
from mmgen.data.pictures import FILMS, BadSample, open_picture
from mmgen.data.tables import (
    ANY,
    Columns,
    NoCaptions,
    index_dataset,
    index_parquet,
    index_saved,
    is_saved_dataset,
)
from mmgen.data.tars import expand_braces, index_shards
from mmgen.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

PICTURE_BYTES = 512 << 20
CAPTION_BYTES = 1 << 20


@dataclass
class Sample:
    """A picture (RGB) with its captions: at least one, none if the source was opened without."""

    key: str
    image: Image.Image
    captions: tuple[Caption, ...]


class Source:
    """An indexed list of samples; reading one opens its file, so threads and forks may share it."""

    def __init__(self, name: str, entries: list[Entry], *, captioned: bool = True) -> None:
        """Take an index.

        Args:
            name: the path as the user wrote it, for messages.
            entries: where each sample's bytes lie.
            captioned: False: the pictures alone are read, and need no captions.

        Raises:
            DataError: there are no pictures; `NoCaptions`: none has captions.
        """
        if not any(entry.picture for entry in entries):
            raise DataError(f"{name} holds no pictures; check the path.")
        keys = Counter(entry.key for entry in entries)
        if len(keys) < len(entries):
            twice = next(key for key, times in keys.items() if times > 1)
            raise DataError(f"{name} has several samples called '{twice}'; name each file once.")
        if captioned and not any(map(_may_be_captioned, entries)):
            raise NoCaptions(
                f"{name} holds no captions; give each picture a .txt (or a .json with 'caption') "
                "of the same name, or the folder a metadata.jsonl with file_name and text."
            )
        self.name = name
        self._entries, self._captioned = entries, captioned

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def keys(self) -> list[str]:
        """The keys of all samples, in order; each is unique."""
        return [entry.key for entry in self._entries]

    @property
    def stamp(self) -> str:
        """Hash of the keys, of the files' sizes and times, and of the captions in tables."""
        digest = hashlib.sha256()
        seen: set[Hashable] = set()
        for entry in self._entries:
            digest.update(repr((entry.key, entry.captions)).encode())
            for piece in (entry.picture, entry.json, entry.text):
                if piece is not None and piece.origin not in seen:
                    seen.add(piece.origin)
                    digest.update(repr(piece.state).encode())
        return digest.hexdigest()[:16]

    def read(self, index: int) -> Sample:
        """Read and decode one sample.

        Raises:
            BadSample: its picture or its captions cannot be used.
        """
        # First the captions, since they cost less to refuse.
        captions = self.captions(index)
        return Sample(self.key(index), self.picture(index), captions)

    def key(self, index: int) -> str:
        """The key of one sample."""
        return self._entries[index].key

    @property
    def captioned(self) -> bool:
        """Whether captions are read."""
        return self._captioned

    def captions(self, index: int) -> tuple[Caption, ...]:
        """The captions of one sample; none if the source was opened without.

        Raises:
            BadSample: they cannot be used.
        """
        return _captions(self._good(index)) if self._captioned else ()

    def picture(self, index: int) -> Image.Image:
        """The picture of one sample, RGB.

        Raises:
            BadSample: it cannot be used.
        """
        return open_picture(self.encoded(index), self.key(index))

    def encoded(self, index: int) -> bytes:
        """The picture of one sample as it was written.

        Raises:
            BadSample: it has none.
        """
        entry = self._good(index)
        if entry.picture is None:
            raise BadSample(entry.key, "it has no picture")
        return entry.picture.read(entry.key, PICTURE_BYTES)

    def record(self, index: int) -> dict[str, object]:
        """What the .json of one sample holds; empty if it has none, or not a usable one."""
        entry = self._good(index)
        if entry.json is None:
            return {}
        try:
            return _record(entry.key, entry.json)
        except BadSample:
            return {}

    def split(self, share: float) -> tuple[Source, Source]:
        """Two sources: the most samples, and a share held out, at least one.

        Which ones depends on the keys alone, so most stay where they are when pictures are added.

        Args:
            share: in (0, 1).

        Raises:
            DataError: there is one sample only.
        """
        if len(self) < 2:
            raise DataError(f"{self.name} has one sample only, too few to hold some out; add more.")
        hashes = [hashlib.sha256(key.encode(errors="replace")).digest() for key in self.keys]
        order = sorted(range(len(self)), key=lambda i: hashes[i])
        held = set(order[: min(len(self) - 1, max(1, round(share * len(self))))])
        kept = [entry for i, entry in enumerate(self._entries) if i not in held]
        out = [self._entries[i] for i in sorted(held)]
        name = f"{self.name} (held out)"
        return (
            Source(self.name, kept, captioned=self._captioned),
            Source(name, out, captioned=self._captioned),
        )

    def _good(self, index: int) -> Entry:
        entry = self._entries[index]
        if entry.flaw:
            raise BadSample(entry.key, entry.flaw)
        return entry


def open_source(
    path: object, *, captioned: bool = True, columns: Columns = ANY, films: bool = False
) -> Source:
    """Index shards, a folder, a picture or a table.

    Args:
        path: a .tar or .parquet, a brace range of them (`train-{0000..0003}.tar`), a folder of
            pictures or of one series of shards or tables, one picture, a folder that HuggingFace's
            `save_to_disk` wrote, or a `Dataset` or `DatasetDict` itself.
        captioned: False: the pictures alone are read, and need no captions.
        columns: of a table.
        films: for clips: what ends in .mp4, .webm and so on counts as pictures do.

    Raises:
        DataError: nothing is there, a shard is damaged, or there are no pictures.
        NoCaptions: none of the pictures has captions.
    """
    if not isinstance(path, (str, Path)):
        return Source("the data set", index_dataset(path, columns, captioned), captioned=captioned)
    name, place = str(path), Path(path)
    if place.is_dir() and is_saved_dataset(place):
        return Source(name, index_saved(place, columns, captioned), captioned=captioned)
    files = files_of(place, FILMS if films else ())
    if all(file.suffix.lower() == ".parquet" for file in files):
        return Source(name, index_parquet(files, columns, captioned), captioned=captioned)
    if columns != ANY:
        raise DataError(f"{name} is no table, so no columns of it can be chosen; leave that out.")
    entries = _of_files(place, files, FILMS if films else ())
    if films and not entries:
        raise DataError(
            f"{name} holds no clips; give animations (.gif, .webp) or films (.mp4 ...)."
        )
    return Source(name, entries, captioned=captioned)


def open_any(path: object, columns: Columns = ANY, films: bool = False) -> Source:
    """Index what `open_source` takes, without captions where it holds none."""
    try:
        return open_source(path, columns=columns, films=films)
    except NoCaptions:
        return open_source(path, captioned=False, columns=columns, films=films)


def files_of(place: Path, also: tuple[str, ...] = ()) -> list[Path]:
    """The files that a path names: itself, those of a brace range, or a folder's shards or tables.

    Args:
        place: as `open_source` takes it.
        also: endings that count as pictures do; a folder of pictures is one place.

    Raises:
        DataError: one is missing, or a folder's shards are of several series.
    """
    if place.is_dir():
        return _series_in(place, also) or [place]
    name = str(place)
    files = [place] if place.exists() or "{" not in name else list(map(Path, expand_braces(name)))
    for file in files:
        if not file.exists():
            raise DataError(
                f"There is no {file}; name a folder, a .tar, a .parquet or a brace range of them."
            )
    return files


def _series_in(folder: Path, also: tuple[str, ...]) -> list[Path]:
    """The shards or tables of a folder without pictures, in the order of their numbers."""
    for ending, what in (("tar", "shards"), ("parquet", "tables")):
        found = sorted(folder.glob(f"*.{ending}"), key=_numbered)
        series = list(dict.fromkeys(_numbered(file)[0] for file in found))
        if not series or any(is_picture(path, also) for path in folder.rglob("*")):
            continue
        if len(series) == 1:
            return found
        # A folder of splits, and nobody wants to train on all of them unasked.
        first = [file for file in found if _numbered(file)[0] == series[0]]
        numbers = ",".join(file.stem.removeprefix(series[0]) for file in first)
        one = first[0] if len(first) == 1 else folder / f"{series[0]}{{{numbers}}}.{ending}"
        names = ", ".join(name.rstrip("-_.") for name in series)
        raise DataError(
            f"{folder} holds {what} of several series ({names}); name one, such as '{one}'."
        )
    return []


def _numbered(file: Path) -> tuple[str, int]:
    """What a shard is called before its number, and that."""
    stem = re.match(r"(.*?)([0-9]*)$", file.stem.split("-of-")[0], re.DOTALL)
    assert stem is not None
    return stem[1], int(stem[2] or 0)


def _of_files(place: Path, files: list[Path], also: tuple[str, ...]) -> list[Entry]:
    if files == [place] and place.is_dir():
        return index_folder(place, also)
    if is_picture(place, also):
        return [with_text(place.parent, place)]
    return index_shards(files, also)


def _may_be_captioned(entry: Entry) -> bool:
    """Whether captions may be expected; a record that cannot be read may hold some."""
    if entry.text or entry.captions:
        return True
    try:
        return entry.json is not None and bool(captions_of(_record(entry.key, entry.json)))
    except BadSample:
        return True


def _captions(entry: Entry) -> tuple[Caption, ...]:
    raw = entry.captions
    if entry.json is not None:
        raw = captions_of(_record(entry.key, entry.json))
    if not raw and entry.text is not None:
        raw = (_decode(entry.key, entry.text),)
    captions = tuple(_caption(entry.key, item) for item in raw)
    captions = tuple(caption for caption in captions if caption.text)
    if not captions:
        raise BadSample(entry.key, "it has no caption")
    return captions


def _record(key: str, piece: Piece) -> dict[str, object]:
    try:
        record = json.loads(_decode(key, piece))
    except (ValueError, RecursionError):
        raise BadSample(key, "its .json is not valid JSON") from None
    return record if isinstance(record, dict) else {}


def _decode(key: str, piece: Piece) -> str:
    try:
        return piece.read(key, CAPTION_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadSample(key, "its caption file is not UTF-8") from None


def _caption(key: str, item: object) -> Caption:
    """Check one raw caption: a string, or a list of a string and a weight above 0."""
    match item:
        case str(text):
            weight = 1.0
        case [str(text), int(number) | float(number)] if not isinstance(number, bool):
            weight = float(number) if abs(number) < 1e30 else math.inf
        case _:
            raise BadSample(key, "a caption of it is neither a text nor a [text, weight] pair")
    if not (math.isfinite(weight) and weight > 0):
        raise BadSample(key, f"a caption of it has the weight {weight}, which must be above 0")
    try:
        size = len(text.encode("utf-8"))  # JSON may spell lone surrogates, which no tokenizer takes
    except UnicodeEncodeError:
        raise BadSample(key, "a caption of it is not valid Unicode") from None
    if size > CAPTION_BYTES:
        raise BadSample(key, f"a caption of it is larger than {CAPTION_BYTES} bytes")
    return Caption(text.strip(), weight)
