"""Any data set as WebDataset shards: the same pictures and captions, read in long strokes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

from mmgen.data.captions import Caption
from mmgen.data.clips import STILL, frames_at_rate, sample_frames, strip_of
from mmgen.data.films import Limits, format_of
from mmgen.data.pictures import FORMATS, BadSample, open_picture
from mmgen.data.reports import refuse_many_bad, report_bad
from mmgen.data.shards import write_shard
from mmgen.data.sources import Source
from mmgen.errors import ConfigError, DataError
from mmgen.files import refuse_taken, replacing_folder

ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
STRIP_WIDTH = 16383  # the most pixels that a WebP has


@dataclass(frozen=True)
class Packed:
    """What was written: samples, shards, what names them all, and one line about bad samples."""

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
    clips: Clips | None = None,
) -> Packed:
    """Write `train-0000.tar` and so on into a new folder; the bytes depend on the data alone.

    Args:
        source: what is packed, in its order; what is bad is left out.
        out: the folder; it may not hold anything yet.
        shard_size: most samples in a shard.
        image_size: pixels a side, cropped and resized as for training, PNG (of clips a lossless
            strip, see `mmgen.data.clips.sample_frames`); None: as they are.
        limit_bad: share of bad samples above which nothing is written.
        progress: called with samples done and samples in all.
        clips: the samples are clips.

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
    refuse_taken(out)
    bad: dict[str, str] = {}
    if clips is None:
        members = partial(_members, _picture, source, image_size)
    else:
        members = partial(_members, partial(_clip, clips.fps), source, image_size)
    samples = _samples(source, members, bad, progress)
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


@dataclass(frozen=True)
class Clips:
    """How clips are packed: `fps` frames of a second are kept, None: all."""

    fps: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no rate, and a rate of frames that are not decoded."""
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ConfigError(f"fps must be above 0 and at most 1000, not {self.fps:g}.")


Member = tuple[str, dict[str, bytes]]
Encoded = tuple[str, bytes, dict[str, object]]  # ending, content, what else the .json says
Encode = Callable[[Source, int, int | None], Encoded]


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
    members: Callable[[int], dict[str, bytes]],
    bad: dict[str, str],
    progress: Callable[[int, int], None] | None,
) -> Iterator[Member]:
    """The good samples under numbers for keys, since paths may hold dots and be too long."""
    for index in range(len(source)):
        try:
            yield f"{index:08d}", members(index)
        except BadSample as error:
            bad[error.key] = error.reason
        if progress:
            progress(index + 1, len(source))


def _members(
    encode: Encode, source: Source, image_size: int | None, index: int
) -> dict[str, bytes]:
    captions = source.captions(index)
    ending, content, facts = encode(source, index, image_size)
    record: dict[str, object] = {"key": source.key(index), **facts}
    if source.captioned:
        record["captions"] = [_raw(caption) for caption in captions]
    text = json.dumps(record, ensure_ascii=False).encode()
    return {ending: content, "json": text}


def _raw(caption: Caption) -> object:
    return caption.text if caption.weight == 1 else [caption.text, caption.weight]


def _picture(source: Source, index: int, image_size: int | None) -> Encoded:
    """Ending and bytes: as they are if they can be decoded, or cropped and resized."""
    from PIL import Image

    encoded = source.encoded(index)
    picture = open_picture(encoded, source.key(index))
    if image_size is None:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
            return ENDINGS[str(opened.format)], encoded, {}
    from mmgen.data.fit import fit_bytes

    buffer = io.BytesIO()
    pixels = fit_bytes(picture, image_size).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "png", buffer.getvalue(), {}


def _clip(fps: float | None, source: Source, index: int, image_size: int | None) -> Encoded:
    """Ending, bytes and what tells a strip: as it is if it can be decoded, or as a strip."""
    encoded, key = source.encoded(index), source.key(index)
    if image_size is None:
        count = sum(1 for _ in sample_frames(source, index, Limits()))
        if count == 1:
            raise BadSample(key, STILL)
        form = format_of(encoded)
        told = {name: v for name, v in source.record(index).items() if name in ("frames", "ms")}
        return ENDINGS.get(form, form.lower()), encoded, told
    import numpy as np
    from PIL import Image

    from mmgen.data.fit import fit_bytes

    fitted, ends = [], []
    for frame in sample_frames(source, index, Limits()):
        fitted.append(fit_bytes(frame.image, image_size).permute(1, 2, 0).contiguous().numpy())
        ends.append(frame.end)
    if len(fitted) == 1:
        raise BadSample(key, STILL)
    if fps is None:
        chosen = np.arange(len(ends))
    else:
        chosen = frames_at_rate(np.array(ends), 0.0, max(1, round(ends[-1] * fps)), fps)
    if len(chosen) * image_size > STRIP_WIDTH:
        most = STRIP_WIDTH // image_size
        raise BadSample(
            key, f"it has {len(chosen)} frames, and a strip takes {most}; thin them with --fps"
        )
    buffer = io.BytesIO()
    strip = strip_of([Image.fromarray(fitted[i]) for i in chosen])
    strip.save(buffer, "WEBP", lossless=True)
    ms = 1000 * (ends[-1] if fps is None else len(chosen) / fps)
    return "webp", buffer.getvalue(), {"frames": len(chosen), "ms": round(ms)}
