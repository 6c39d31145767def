"""What is in a data set: sizes, formats, captions, duplicates, and what is bad and why."""

from __future__ import annotations

import hashlib
import io
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmgen.data.captions import Caption
from mmgen.data.clips import STILL, sample_frames, strip_of
from mmgen.data.films import Limits, format_of
from mmgen.data.pictures import FORMATS, BadSample, open_picture
from mmgen.data.sources import Source

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 48  # pictures on the contact sheet
THUMBNAIL = 96  # pixels a side
NAMED = 20  # bad samples and duplicates that the lines name; JSON has all
WORKERS = 4

_UPRIGHT = 0x0112  # EXIF's tag of the orientation


@dataclass(frozen=True)
class Look:
    """One sample.

    Args:
        key: of the sample.
        reason: why it is bad; "": it is not, and the rest is known.
        size: width and height, upright.
        format: such as "PNG".
        notes: what is done to it before training sees it.
        captions: of it.
        digest: hash of its pixels.
        thumbnail: the middle square, small; of a clip those of its first, middle and last frame
            side by side; None: not asked for.
        frames: of a clip; a picture has 1.
        seconds: that a clip lasts.
    """

    key: str
    reason: str = ""
    size: tuple[int, int] = (0, 0)
    format: str = ""
    notes: tuple[str, ...] = ()
    captions: tuple[Caption, ...] = ()
    digest: str = ""
    thumbnail: Image.Image | None = None
    frames: int = 1
    seconds: float = 0.0


class Findings:
    """What was seen of a whole data set.

    Args:
        name: of the data set.
        looks: at every sample, in order.
        captioned: whether captions were read.
        clips: whether the samples are clips.
    """

    def __init__(
        self, name: str, looks: Sequence[Look], captioned: bool, clips: bool = False
    ) -> None:
        self.clips = clips
        self.name, self.captioned, self.count = name, captioned, len(looks)
        self.good = [look for look in looks if not look.reason]
        self.bad = {look.key: look.reason for look in looks if look.reason}
        self.notes = Counter(note for look in self.good for note in look.notes)
        self.formats = Counter(look.format for look in self.good)
        self.duplicates = _duplicates(self.good)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "name": self.name,
            "count": self.count,
            "usable": len(self.good),
            "sizes": self._sizes(),
            "formats": dict(self.formats),
            **self._lengths(),
            "notes": dict(self.notes),
            "captions": self._captions(),
            "duplicates": self.duplicates,
            "bad": self.bad,
        }

    def lines(self) -> list[str]:
        """All of it in words."""
        lines = [f"{self.name}: {self.count} samples, {len(self.good)} usable"]
        if self.good:
            sizes = {name: "x".join(map(str, size)) for name, size in self._sizes().items()}
            lines += [
                f"sizes       {sizes['smallest']} to {sizes['largest']}, median {sizes['median']}",
                f"formats     {_counted(self.formats)}",
                *(
                    f"{name:<11} {of['least']:.4g} to {of['most']:.4g}, median {of['median']:.4g}"
                    for name, of in self._lengths().items()
                ),
                *(f"note        {count} {note}" for note, count in self.notes.most_common()),
                *self._caption_lines(),
            ]
        lines.append(_named("duplicates", [f"{k!r} is {v!r}" for k, v in self.duplicates.items()]))
        lines.append(_named("bad", [f"{key!r} ({why})" for key, why in self.bad.items()]))
        return lines

    def _sizes(self) -> dict[str, list[int]]:
        sizes = sorted((look.size for look in self.good), key=lambda size: size[0] * size[1])
        if not sizes:
            return {}
        chosen = {"smallest": sizes[0], "median": sizes[len(sizes) // 2], "largest": sizes[-1]}
        return {name: list(size) for name, size in chosen.items()}

    def _lengths(self) -> dict[str, dict[str, float]]:
        """Frames and seconds of clips."""
        if not self.clips or not self.good:
            return {}
        return {
            "frames": _spread([look.frames for look in self.good]),
            "seconds": _spread([round(look.seconds, 3) for look in self.good]),
        }

    def _captions(self) -> dict[str, Any] | None:
        texts = [caption.text for look in self.good for caption in look.captions]
        if not texts:
            return None
        lengths = sorted(map(len, texts))
        return {
            "count": len(texts),
            "distinct": len(set(texts)),
            "most_of_a_picture": max(len(look.captions) for look in self.good),
            "characters": {
                "shortest": lengths[0],
                "median": lengths[len(lengths) // 2],
                "longest": lengths[-1],
            },
            "scripts": dict(Counter(s for text in texts for s in scripts_of(text)).most_common()),
        }

    def _caption_lines(self) -> Iterator[str]:
        facts = self._captions()
        if facts is None:
            yield "captions    none: enough for a tokenizer, and a generator needs them"
            return
        length, each = facts["characters"], "clip" if self.clips else "picture"
        yield (
            f"captions    {facts['count']}, {facts['distinct']} of them distinct, up to "
            f"{facts['most_of_a_picture']} a {each}; {length['shortest']} to {length['longest']} "
            f"characters, median {length['median']}"
        )
        yield f"scripts     {_counted(Counter(facts['scripts'])) or 'none'}"


def inspect(
    source: Source, progress: Callable[[int, int], None] | None = None, clips: bool = False
) -> Findings:
    """Look at every sample of a data set.

    Args:
        source: an opened data set.
        progress: called with samples done and samples in all.
        clips: look at whole clips, not at first frames.
    """
    look_at = look_at_clip if clips else look_at_picture
    count = len(source)
    shown = set(range(0, count, max(1, -(-count // SHOWN))))
    looks = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for look in pool.map(lambda i: look_at(source, i, i in shown), range(count)):
            looks.append(look)
            if progress:
                progress(len(looks), count)
    return Findings(source.name, looks, source.captioned, clips)


def look_at_picture(source: Source, index: int, thumbnail: bool = False) -> Look:
    """Look at one picture."""
    from PIL import ImageOps

    try:
        captions = source.captions(index)
        encoded = source.encoded(index)
        picture = open_picture(encoded, source.key(index))
    except BadSample as error:
        return Look(error.key, error.reason)
    form, notes = _facts(encoded)
    if picture.width != picture.height:
        notes.append("not square: only the middle is used")
    digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()
    small = ImageOps.fit(picture, (THUMBNAIL, THUMBNAIL)) if thumbnail else None
    key = source.key(index)
    return Look(key, "", picture.size, form, tuple(notes), captions, digest, small)


def look_at_clip(source: Source, index: int, thumbnail: bool = False) -> Look:
    """Look at all frames of one clip."""
    from PIL import ImageOps

    digest, small, size, count, end = hashlib.sha256(), [], (0, 0), 0, 0.0
    try:
        captions = source.captions(index)
        form = ""
        for frame in sample_frames(source, index, Limits()):
            form = form or format_of(source.encoded(index))
            size, count, end = frame.image.size, count + 1, frame.end
            digest.update(repr(size).encode() + frame.image.tobytes())
            if thumbnail:
                small.append(ImageOps.fit(frame.image, (THUMBNAIL, THUMBNAIL)))
        if count == 1:
            raise BadSample(source.key(index), STILL)
    except BadSample as error:
        return Look(error.key, error.reason)
    notes = () if size[0] == size[1] else ("not square: only the middle is used",)
    shown = strip_of([small[0], small[count // 2], small[-1]]) if small else None
    key = source.key(index)
    return Look(key, "", size, form, notes, captions, digest.hexdigest(), shown, count, end)


def scripts_of(text: str) -> list[str]:
    """The scripts of a text, such as "latin", "arabic", "cjk" or "emoji", in order of their use."""
    return [name for name, _ in Counter(filter(None, map(_script, text))).most_common()]


def _script(letter: str) -> str:
    if unicodedata.category(letter) == "So":
        return "emoji"
    if not letter.isalpha():
        return ""
    return unicodedata.name(letter, "unknown").split()[0].split("-")[0].lower()


def _facts(encoded: bytes) -> tuple[str, list[str]]:
    """Format of a picture that has been opened before, and what that did to it."""
    from PIL import Image

    notes = []
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as picture:
        if getattr(picture, "is_animated", False):
            notes.append("animated: only the first frame is used")
        if picture.getexif().get(_UPRIGHT, 1) != 1:
            notes.append("turned upright as their EXIF says")
        if picture.mode.startswith("I"):
            notes.append("of 16 bits: reduced to 8")
        if picture.mode == "CMYK":
            notes.append("in CMYK: converted to RGB")
        if picture.has_transparency_data:
            notes.append("transparent: laid over white")
        return str(picture.format), notes


def _duplicates(looks: Sequence[Look]) -> dict[str, str]:
    """The key of each picture whose pixels were there before, and the key where."""
    first: dict[str, str] = {}
    found = {}
    for look in looks:
        if (there := first.setdefault(look.digest, look.key)) != look.key:
            found[look.key] = there
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"least": ordered[0], "median": ordered[len(ordered) // 2], "most": ordered[-1]}


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _named(what: str, items: list[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    said = f"{len(items)}: {', '.join(items[:NAMED])}{more}" if items else "none"
    return f"{what:<11} {said}"
