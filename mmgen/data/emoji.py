"""The emoji set: 7782 captioned pictures of 1372 concepts in six styles, with held-out splits.

The list of concepts is shipped (`concepts.tsv`); the drawings come from npm packages. The result
is a folder of WebDataset shards whose splits and pixels are checked against shipped facts. A
folder is complete only when its `manifest.json` names their size: that is written last.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.data.captions import emoji_captions
from mmgen.data.emoji_notices import NOTICES
from mmgen.data.emoji_styles import CANVAS, STYLES, Style, open_style
from mmgen.data.npm import obtain_all
from mmgen.data.shards import split_evenly, write_shard
from mmgen.errors import ConfigError, DataError, UserError
from mmgen.files import read_json, sha256_of, write_json, write_text
from mmgen.progress import Progress

if TYPE_CHECKING:
    from PIL import Image

FORMAT = "mmgen-emoji-1"
MANIFEST = "manifest.json"
SPLITS = ("train", "val", "test_pair", "test_concept")
SIZES = (16, 32, 64, 128, 256)
SHARD_ITEMS = 2000
PIXEL_TOLERANCE = 1.0  # of 255, in means over 16x16 pixels


@dataclass(frozen=True)
class Concept:
    """One line of concepts.tsv."""

    key: str
    split: str
    phrase: str
    label: str
    group: str
    subgroup: str
    styles: tuple[str, ...]
    held: tuple[str, ...]
    keywords: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One picture of the set: a concept in a style, and its split."""

    concept: Concept
    style: str
    split: str

    @property
    def id(self) -> str:
        """`STYLE/KEY`."""
        return f"{self.style}/{self.concept.key}"


def build_emoji(
    out: Path,
    size: int = 64,
    packages: Path | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Draw the emoji set and write it to `out` as shards, LICENSES.md and manifest.json.

    Args:
        out: folder to write to.
        size: pixels a side of a picture; divides 256.
        packages: folder with the six .tgz files; None fetches them by npm into the cache.
        progress: is called with the number of pictures done and of all.
        say: is told what is being fetched.

    Returns:
        The content of manifest.json.

    Raises:
        ConfigError: the size is not one of `SIZES`.
        UserError: a package cannot be had, or `out` cannot be written to or holds something else.
        DataError: a package is damaged, or a split or a picture differs from the shipped facts.
    """
    if size not in SIZES:
        raise ConfigError(f"The size must be one of {', '.join(map(str, SIZES))}, not {size}.")
    facts = published_facts()
    items = all_items()
    check_splits(items, facts["splits"])
    make_room(out, FORMAT)
    obtain_all([style.package for style in STYLES], packages, say)
    pictures = _draw_all(items, size, packages, facts["pixels64"], progress)
    mark_unfinished(out, FORMAT)
    shards = _write_shards(out, items, pictures)
    write_text(out / "LICENSES.md", NOTICES)
    manifest = {
        "format": FORMAT,
        "size": size,
        "splits": facts["splits"],
        "shards": shards,
        "packages": {style.word: style.package.spec for style in STYLES},
        "licences": "LICENSES.md",
    }
    write_json(out / MANIFEST, manifest)
    return manifest


def is_emoji_set(folder: str | Path, form: str = FORMAT) -> bool:
    """Whether `mmgen data emoji` wrote a folder, or began to."""
    try:
        manifest = read_json(Path(folder) / MANIFEST)
    except UserError:
        return False
    return isinstance(manifest, dict) and manifest.get("format") == form


def make_room(out: Path, form: str) -> None:
    """Make the folder of a set, and refuse one that holds anything but a set of this format.

    Raises:
        UserError: it does, or the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = any(out.iterdir())
    except OSError as error:
        raise UserError(f"Cannot write to {out}: {error.strerror}; choose another place.") from None
    if taken and not is_emoji_set(out, form):
        raise UserError(f"{out} holds something else; choose another place, or empty it first.")


def mark_unfinished(out: Path, form: str) -> None:
    """Say in the manifest whose folder it is, and no more, since its shards are about to change."""
    write_json(out / MANIFEST, {"format": form})


def concepts() -> list[Concept]:
    """Read the shipped list of concepts."""
    return [_concept(row) for row in table_rows("concepts.tsv")]


def table_rows(name: str) -> list[dict[str, str]]:
    """The lines of a shipped table, by column."""
    table = resources.files("mmgen.data").joinpath(name).read_text(encoding="utf-8")
    header, *lines = (line.split("\t") for line in table.splitlines())
    return [dict(zip(header, line)) for line in lines]


def all_items() -> list[Item]:
    """Return every picture of the set in the order of the list, with its split."""
    return [
        Item(concept, style, _split(concept, style))
        for concept in concepts()
        for style in concept.styles
    ]


def check_splits(items: list[Item], expected: dict[str, dict[str, Any]]) -> None:
    """Compare count and SHA-256 of the sorted ids of each split with the shipped facts.

    Raises:
        DataError: a split differs.
    """
    for split in SPLITS:
        check_ids(split, [item.id for item in items if item.split == split], expected[split])


def check_ids(split: str, ids: list[str], expected: dict[str, Any]) -> None:
    """Compare the ids of one split with their published count and hash.

    Raises:
        DataError: they differ.
    """
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
    if {"count": len(ids), "sha256": digest} != expected:
        raise DataError(
            f"The ids of the split '{split}' are not the published ones: a table of mmgen was "
            "changed; install mmgen again."
        )


def check_pixels(name: str, picture: Image.Image, expected: dict[str, list[float]]) -> None:
    """Compare a picture's colour means and its 4x4 grid of grey means with the shipped facts.

    Args:
        name: the picture's id, for the error.
        picture: RGB, 64x64.
        expected: "rgb" (3 means) and "grey4" (16 means, row by row), 0 to 255.

    Raises:
        DataError: a number is off by more than `PIXEL_TOLERANCE`.
    """
    import numpy as np

    pixels = np.asarray(picture, dtype=np.float64)  # (64, 64, 3)
    cells = pixels.reshape(4, 16, 4, 16, 3).mean(axis=(1, 3, 4)).ravel()
    measured = np.concatenate([pixels.mean(axis=(0, 1)), cells])
    worst = float(np.abs(measured - [*expected["rgb"], *expected["grey4"]]).max())
    if worst > PIXEL_TOLERANCE:
        raise DataError(
            f"The picture {name} is off by {worst:.1f} of 255 from the published one; "
            "install resvg_py 0.5.0 and fetch the packages again."
        )


def _concept(row: dict[str, str]) -> Concept:
    return Concept(
        row["key"],
        row["split"],
        row["phrase"],
        row["label"],
        row["group"],
        row["subgroup"],
        styles=_list(row["styles"]),
        held=_list(row["held"]),
        keywords=_list(row["keywords"]),
    )


def _list(column: str) -> tuple[str, ...]:
    return () if column == "-" else tuple(part.strip() for part in column.split(","))


def _split(concept: Concept, style: str) -> str:
    if concept.split == "test_concept":
        return "test_concept"
    if style in concept.held:
        return "test_pair"
    return "val" if _fraction(f"mmgen-val-v1:{style}/{concept.key}") < 0.02 else "train"


def _fraction(text: str) -> float:
    """Hash a text to [0, 1)."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def published_facts() -> dict[str, Any]:
    """Counts, hashes and pixel means that were published with the lists."""
    text = resources.files("mmgen.data").joinpath("emoji_checks.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts


def _draw_all(
    items: list[Item],
    size: int,
    packages: Path | None,
    expected: dict[str, dict[str, list[float]]],
    progress: Progress | None,
) -> dict[str, bytes]:
    """Draw every item, style after style; return its PNG by id."""
    pictures: dict[str, bytes] = {}
    for style in STYLES:
        for item, master in _draw_style(style, items, packages):
            if item.id in expected:
                check_pixels(item.id, master.reduce(CANVAS // 64), expected[item.id])
            pictures[item.id] = _png(master.reduce(CANVAS // size) if size < CANVAS else master)
            if progress is not None:
                progress(len(pictures), len(items))
    return pictures


def _draw_style(
    style: Style, items: list[Item], packages: Path | None
) -> Iterator[tuple[Item, Image.Image]]:
    draw = open_style(style, packages)
    for item in items:
        if item.style == style.word:
            yield item, draw(item.concept.key, item.concept.label)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _write_shards(
    out: Path, items: list[Item], pictures: dict[str, bytes]
) -> dict[str, dict[str, Any]]:
    """Write the shards of every split; return count, bytes and SHA-256 of each."""
    by_id = {item.id: item for item in items}
    shards: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        ids = [item.id for item in items if item.split == split]
        shards |= write_mixed(out, split, ids, lambda id: _members(by_id[id], pictures))
    return shards


def write_mixed(
    out: Path, name: str, ids: list[str], members: Callable[[str], tuple[str, dict[str, bytes]]]
) -> dict[str, dict[str, Any]]:
    """Write `NAME-0000.tar` and so on; return count, bytes and SHA-256 of each."""
    shards = {}
    # Order by hash: readers that stream a shard then meet styles and concepts well mixed.
    mixed = sorted(ids, key=lambda id: _fraction(f"mmgen-order-v1:{id}"))
    for number, part in enumerate(split_evenly(len(mixed), SHARD_ITEMS)):
        path = out / f"{name}-{number:04d}.tar"
        write_shard(path, (members(mixed[i]) for i in part))
        shards[path.name] = {
            "count": len(part),
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
    return shards


def _members(item: Item, pictures: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
    concept = item.concept
    captions = emoji_captions(concept.phrase, item.style, concept.group, concept.keywords)
    record = {
        "id": item.id,
        "key": concept.key,
        "style": item.style,
        "phrase": concept.phrase,
        "label": concept.label,
        "group": concept.group,
        "keywords": list(concept.keywords),
        "split": item.split,
        "captions": [[caption.text, caption.weight] for caption in captions],
    }
    text = json.dumps(record, ensure_ascii=False).encode("utf-8")
    return f"{item.style}_{concept.key}", {"png": pictures[item.id], "json": text}
