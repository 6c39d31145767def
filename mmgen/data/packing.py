"""Any data set as WebDataset shards: the same pictures and captions, read in long strokes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from mmgen.data.captions import Caption
from mmgen.data.pictures import FORMATS, BadSample
from mmgen.data.reports import refuse_many_bad, report_bad
from mmgen.data.shards import write_shard
from mmgen.data.sources import Source
from mmgen.errors import ConfigError, DataError, UserError
from mmgen.files import replacing_folder

ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}


@dataclass(frozen=True)
class Packed:
    """What was written: pictures, shards, what names them all, and one line about bad samples."""

    count: int
    shards: int
    name: str
    report: str


def pack(
    source: Source,
    out: Path,
    shard_size: int = 1000,
    image_size: int | None = None,
    limit_bad: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> Packed:
    """Write `train-0000.tar` and so on into a new folder; the bytes depend on the data alone.

    Args:
        source: what is packed, in its order; what is bad is left out.
        out: the folder; it may not hold anything yet.
        shard_size: most pictures in a shard.
        image_size: pixels a side, cropped and resized as for training, PNG; None: as they are.
        limit_bad: share of bad samples above which nothing is written.
        progress: called with samples done and samples in all.

    Raises:
        ConfigError: a size below 1.
        DataError: too many samples are bad.
        UserError: the folder is not empty or cannot be written.
    """
    for name, size in (
        ("shard_size", shard_size),
        ("image_size", 1 if image_size is None else image_size),
    ):
        if size < 1:
            raise ConfigError(f"{name} must be at least 1, not {size}.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} is there and not empty; remove it, or choose another place.")
    bad: dict[str, str] = {}
    samples = _samples(source, image_size, bad, progress)
    count = shards = 0
    with replacing_folder(out) as place:
        while (first := next(samples, None)) is not None:
            counted = _Counted(chain([first], islice(samples, shard_size - 1)))
            write_shard(place / f"train-{shards:04d}.tar", counted)
            count, shards = count + counted.count, shards + 1
        refuse_many_bad(bad, len(source), source.name, limit_bad)
        if not shards:
            raise DataError(f"{report_bad(bad, len(source), source.name)} None is left to pack.")
    last = shards - 1
    name = "train-0000.tar" if not last else f"train-{{0000..{last:04d}}}.tar"
    return Packed(count, shards, str(out / name), report_bad(bad, len(source), source.name))


Member = tuple[str, dict[str, bytes]]


class _Counted:
    """Samples on their way into a shard, counted."""

    def __init__(self, samples: Iterator[Member]) -> None:
        self._samples, self.count = samples, 0

    def __iter__(self) -> Iterator[Member]:
        for sample in self._samples:
            self.count += 1
            yield sample


def _samples(
    source: Source,
    image_size: int | None,
    bad: dict[str, str],
    progress: Callable[[int, int], None] | None,
) -> Iterator[Member]:
    """The good samples under numbers for keys, since paths may hold dots and be too long."""
    for index in range(len(source)):
        try:
            yield f"{index:08d}", _members(source, index, image_size)
        except BadSample as error:
            bad[error.key] = error.reason
        if progress:
            progress(index + 1, len(source))


def _members(source: Source, index: int, image_size: int | None) -> dict[str, bytes]:
    captions = source.captions(index)
    ending, content = _picture(source, index, image_size)
    record: dict[str, object] = {"key": source.key(index)}
    if source.captioned:
        record["captions"] = [_raw(caption) for caption in captions]
    text = json.dumps(record, ensure_ascii=False).encode()
    return {ending: content, "json": text}


def _raw(caption: Caption) -> object:
    return caption.text if caption.weight == 1 else [caption.text, caption.weight]


def _picture(source: Source, index: int, image_size: int | None) -> tuple[str, bytes]:
    """Ending and bytes: as they are if they can be decoded, or cropped and resized."""
    from PIL import Image

    picture = source.picture(index)
    if image_size is None:
        encoded = source.encoded(index)
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
            return ENDINGS[str(opened.format)], encoded
    from mmgen.data.fit import fit_bytes

    buffer = io.BytesIO()
    pixels = fit_bytes(picture, image_size).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "png", buffer.getvalue()
