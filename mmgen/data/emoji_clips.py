"""The emoji clips: 555 captioned animations in the 3d style, with held-out splits.

The list is shipped (`clips.tsv`, and `clips_extra.tsv` for 1453 variants of skin tone and gender);
the animations come from four npm packages. A clip is written as a strip: all its frames, side by
side in one lossless WebP. A folder is complete only when its `manifest.json` names their size.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.data.captions import clip_captions
from mmgen.data.clips import strip_of
from mmgen.data.emoji import (
    MANIFEST,
    check_ids,
    concepts,
    make_room,
    mark_unfinished,
    published_facts,
    table_rows,
    write_mixed,
)
from mmgen.data.emoji_notices import CLIP_NOTICES
from mmgen.data.emoji_styles import CANVAS
from mmgen.data.films import timed_frames
from mmgen.data.npm import Package, obtain, obtain_all, read_members
from mmgen.errors import ConfigError, DataError
from mmgen.files import write_json, write_text
from mmgen.progress import Progress

CLIP_FORMAT = "mmgen-emoji-clips-1"
CLIP_SPLITS = ("train", "test_clip", "test_concept")
CLIP_SIZES = (16, 32, 64, 128)  # a strip of 97 frames, the longest clip, is 12416 pixels wide

PACKAGES = {
    number: Package(f"@lobehub/fluent-emoji-anim-{number}", "1.0.0", sha256)
    for number, sha256 in {
        "1": "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
        "2": "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0",
        "3": "3624d0c34c819c1794b74ccf6ae9034adff7c4cb6318dd2a645145f0196feb43",
        "4": "3d4c08f1e321f70808ef4996aba0ab575a9d97b6c56ffffc92cf6161a7836aa3",
    }.items()
}


@dataclass(frozen=True)
class ClipItem:
    """One clip of the set.

    Attributes:
        id: the concept's key, or a variant's own.
        key: of its concept.
        split: of `CLIP_SPLITS`.
        phrase: what it shows.
        motion: how that moves; None: not measured.
        file: name in the package, without its ending.
        package: a key of `PACKAGES`.
        frames: of the source.
        variant: of skin tone or gender.
    """

    id: str
    key: str
    split: str
    phrase: str
    motion: str | None
    file: str
    package: str
    frames: int
    variant: bool = False

    @property
    def shard(self) -> str:
        """What its shards are called."""
        return f"variants-{self.split}" if self.variant else self.split


def build_clips(
    out: Path,
    size: int = 64,
    packages: Path | None = None,
    variants: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write the emoji clips to `out` as shards of strips, LICENSES.md and manifest.json.

    Args:
        out: folder to write to.
        size: pixels a side of a frame; one of `CLIP_SIZES`.
        packages: folder with the four .tgz files; None fetches them by npm into the cache.
        variants: also those of skin tone and gender, as shards of their own.
        progress: is called with the number of clips done and of all.
        say: is told what is being fetched.

    Returns:
        The content of manifest.json.

    Raises:
        ConfigError: the size is not one of `CLIP_SIZES`.
        UserError: a package cannot be had, or `out` cannot be written to or holds something else.
        DataError: a package is damaged, or a split or a clip differs from the shipped facts.
    """
    if size not in CLIP_SIZES:
        sizes = ", ".join(map(str, CLIP_SIZES))
        raise ConfigError(f"The size of clips must be one of {sizes}, not {size}.")
    items = clip_items(variants)
    check_clip_ids(items)
    make_room(out, CLIP_FORMAT)
    obtain_all(list(PACKAGES.values()), packages, say)
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".partial-") as place:
        strips = Path(place)
        ms = _write_strips(strips, items, size, packages, progress)
        mark_unfinished(out, CLIP_FORMAT)
        shards = _write_shards(out, items, strips, ms)
    write_text(out / "LICENSES.md", CLIP_NOTICES)
    names = dict.fromkeys(item.shard for item in items)
    manifest = {
        "format": CLIP_FORMAT,
        "size": size,
        "splits": {name: {"count": sum(i.shard == name for i in items)} for name in names},
        "shards": shards,
        "packages": [package.spec for package in PACKAGES.values()],
        "licences": "LICENSES.md",
    }
    write_json(out / MANIFEST, manifest)
    return manifest


def clip_items(variants: bool = False) -> list[ClipItem]:
    """Every clip of the set in the order of the list; the variants behind."""
    phrases = {concept.key: concept.phrase for concept in concepts()}
    rows = table_rows("clips.tsv")
    motions = {row["key"]: row["motion"] for row in rows}
    items = [_item(row, row["key"], phrases[row["key"]], row["motion"]) for row in rows]
    if variants:
        for row in table_rows("clips_extra.tsv"):
            phrase = variant_phrase(phrases[row["key"]], row["gender"], row["tone"])
            items.append(_item(row, row["id"], phrase, motions.get(row["key"]), variant=True))
    return items


def variant_phrase(phrase: str, gender: str, tone: str) -> str:
    """What a variant shows.

    Args:
        phrase: of the concept.
        gender: "man", "woman" or "-": not told.
        tone: of the skin, such as "medium-light", or "-".
    """
    if gender != "-":
        many = {"man": "men", "woman": "women"}[gender]
        told = re.sub(r"\bperson\b", gender, re.sub(r"^people\b", many, phrase), count=1)
        phrase = re.sub(r"^(an?) ", f"a {gender} ", phrase) if told == phrase else told
    return phrase if tone == "-" else f"{phrase}, {tone} skin tone"


def check_clip_ids(items: list[ClipItem]) -> None:
    """Compare the ids of each split, and of the variants, with the published ones.

    Raises:
        DataError: they differ.
    """
    facts = published_facts()["clips"]
    for split in CLIP_SPLITS:
        ids = [item.id for item in items if item.split == split and not item.variant]
        check_ids(split, ids, facts[split])
    if variants := [item.id for item in items if item.variant]:
        check_ids("variants", variants, facts["extra"])


def _item(
    row: dict[str, str], id: str, phrase: str, motion: str | None, variant: bool = False
) -> ClipItem:
    return ClipItem(
        id,
        row["key"],
        row["split"],
        phrase,
        motion,
        row["file"],
        row["package"],
        int(row["source_frames"]),
        variant,
    )


def _write_strips(
    place: Path,
    items: list[ClipItem],
    size: int,
    packages: Path | None,
    progress: Progress | None,
) -> dict[str, int]:
    """Write `ID.webp` of each clip, package after package; return their milliseconds."""
    ms: dict[str, int] = {}
    for item, content in _sources(items, packages):
        frames = list(timed_frames(content, item.id))
        if len(frames) != item.frames:
            raise DataError(
                f"The clip {item.id} has {len(frames)} frames instead of {item.frames}: "
                f"{PACKAGES[item.package].spec} is not the published package; fetch it again."
            )
        strip = strip_of([frame.image.reduce(CANVAS // size) for frame in frames])
        strip.save(place / f"{item.id}.webp", "WEBP", lossless=True)
        ms[item.id] = round(1000 * frames[-1].end)
        if progress is not None:
            progress(len(ms), len(items))
    return ms


def _sources(items: list[ClipItem], packages: Path | None) -> Iterator[tuple[ClipItem, bytes]]:
    paths = {number: obtain(package, packages) for number, package in PACKAGES.items()}
    for number, package in PACKAGES.items():
        wanted = {f"assets/{item.file}.webp": item for item in items if item.package == number}
        files = read_members(paths[number], wanted.__contains__)
        for name, item in wanted.items():
            if name not in files:
                raise DataError(f"{package.spec} lacks {name}; fetch it again.")
            yield item, files[name]


def _write_shards(
    out: Path, items: list[ClipItem], strips: Path, ms: dict[str, int]
) -> dict[str, dict[str, Any]]:
    by_id = {item.id: item for item in items}

    def members(id: str) -> tuple[str, dict[str, bytes]]:
        item = by_id[id]
        captions = clip_captions(item.phrase, item.motion)
        record = {
            "id": id,
            "key": item.key,
            "phrase": item.phrase,
            "motion": item.motion,
            "split": item.split,
            "frames": item.frames,
            "ms": ms[id],
            "captions": [caption.text for caption in captions],
        }
        text = json.dumps(record, ensure_ascii=False).encode()
        return id, {"webp": (strips / f"{id}.webp").read_bytes(), "json": text}

    shards: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(item.shard for item in items):
        ids = [item.id for item in items if item.shard == name]
        shards |= write_mixed(out, name, ids, members)
    return shards
