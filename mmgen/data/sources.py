"""Sources of captioned pictures: WebDataset shards and folders, read at random by number."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.data.captions import Caption
from mmgen.data.folders import captions_of, index_folder, is_picture, with_text
from mmgen.data.index import Entry, Span
from mmgen.data.pictures import BadSample, open_picture
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

    def __init__(self, name: str, entries: list[Entry], captioned: bool = True) -> None:
        """Take an index.

        Args:
            name: the path as the user wrote it, for messages.
            entries: where each sample's bytes lie.
            captioned: False: the pictures alone are read, and need no captions.

        Raises:
            DataError: there are no pictures, or none has captions.
        """
        if not any(entry.picture for entry in entries):
            raise DataError(f"{name} holds no pictures; check the path.")
        if captioned and not any(entry.captioned for entry in entries):
            raise DataError(
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
        seen: set[Path] = set()
        for entry in self._entries:
            digest.update(repr((entry.key, entry.captions)).encode())
            for span in (entry.picture, entry.json, entry.text):
                if span is not None and span.path not in seen:
                    seen.add(span.path)
                    state = span.path.stat() if span.path.exists() else None
                    facts = (span.path.name, state and (state.st_size, state.st_mtime_ns))
                    digest.update(repr(facts).encode())
        return digest.hexdigest()[:16]

    def read(self, index: int) -> Sample:
        """Read and decode one sample.

        Raises:
            BadSample: its picture or its captions cannot be used.
        """
        entry = self._entries[index]
        if entry.flaw:
            raise BadSample(entry.key, entry.flaw)
        if entry.picture is None:
            raise BadSample(entry.key, "it has no picture")
        # First the captions, since they cost less to refuse.
        captions = _captions(entry) if self._captioned else ()
        image = open_picture(entry.picture.read(entry.key, PICTURE_BYTES), entry.key)
        return Sample(entry.key, image, captions)


def open_source(path: str | Path, captioned: bool = True) -> Source:
    """Index shards, a folder or a picture.

    Args:
        path: a .tar, a brace range of them (`train-{0000..0003}.tar`), a folder of pictures, or
            one picture.
        captioned: False: the pictures alone are read, and need no captions.

    Raises:
        DataError: nothing is there, a shard is damaged, or there are no captioned pictures.
    """
    name = str(path)
    place = Path(path)
    if place.is_dir():
        if not (entries := index_folder(place)) and (tars := sorted(place.glob("*.tar"))):
            raise DataError(
                f"{name} is a folder of shards; name the shards, such as '{tars[0]}' or a range "
                "like 'train-{0000..0003}.tar'."
            )
        return Source(name, entries, captioned)
    if is_picture(place):
        return Source(name, [with_text(place.parent, place)], captioned)
    if place.is_file() or "{" not in name:
        shards = [place]
    else:
        shards = [Path(shard) for shard in expand_braces(name)]
    for shard in shards:
        if not shard.exists():
            raise DataError(f"There is no {shard}; name a folder, a .tar or a brace range of them.")
    return Source(name, index_shards(shards), captioned)


def _captions(entry: Entry) -> tuple[Caption, ...]:
    raw = entry.captions
    if entry.json is not None:
        raw = _json_captions(entry.key, entry.json)
    if not raw and entry.text is not None:
        raw = (_decode(entry.key, entry.text),)
    captions = tuple(_caption(entry.key, item) for item in raw)
    captions = tuple(caption for caption in captions if caption.text)
    if not captions:
        raise BadSample(entry.key, "it has no caption")
    return captions


def _json_captions(key: str, span: Span) -> tuple[object, ...]:
    try:
        record = json.loads(_decode(key, span))
    except (ValueError, RecursionError):
        raise BadSample(key, "its .json is not valid JSON") from None
    return captions_of(record) if isinstance(record, dict) else ()


def _decode(key: str, span: Span) -> str:
    try:
        return span.read(key, CAPTION_BYTES).decode("utf-8-sig")
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
        text.encode("utf-8")  # JSON may spell lone surrogates, which no tokenizer takes
    except UnicodeEncodeError:
        raise BadSample(key, "a caption of it is not valid Unicode") from None
    return Caption(text.strip(), weight)
