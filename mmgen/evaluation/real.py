"""The real pictures of the emoji set, with their features: what generated ones are held against."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmgen.data.emoji import MANIFEST, SPLITS, Concept, Item, concepts, is_emoji_set
from mmgen.data.fit import fit_bytes
from mmgen.data.sources import open_source
from mmgen.errors import DataError
from mmgen.evaluation.features import (
    Extractor,
    Features,
    Pictures,
    features_of,
)
from mmgen.files import read_json
from mmgen.progress import Progress

FEATURES = "features.safetensors"
_MAKE = "make one with: mmgen data emoji --out FOLDER"
RESTYLE = ("flat", "3d", "ink")  # one maker's drawings of the same things


@dataclass(frozen=True)
class RealSet:
    """Every picture of the set.

    Args:
        items: concept, style and split of each.
        pictures: (N, size, size, 3) uint8. `features`: (N, 1280).
        hash: first 16 hexadecimal digits of the SHA-256 of ids and pictures.
    """

    items: tuple[Item, ...]
    pictures: Pictures
    features: Features
    hash: str

    def places(self, split: str) -> list[int]:
        """Indices of a split, in the order of the ids."""
        found = [i for i, item in enumerate(self.items) if item.split == split]
        return sorted(found, key=lambda i: self.items[i].id)


def open_real(
    folder: str | Path,
    size: int,
    extractor: Extractor,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> RealSet:
    """Read the shards that `mmgen data emoji` wrote, and look at every picture.

    Args:
        folder: of the shards; all four splits must be there.
        size: pixels a side that the pictures must have: figures of resized ones are others.
        extractor: the feature network.
        cache: file of features, see `features_of`.
        progress: called with pictures done and pictures in all, while looking.

    Raises:
        DataError: a split is missing, the pictures have another size, or one is none of the set.
    """
    there = size_of(folder)
    if there != size:
        raise DataError(
            f"{folder} holds pictures of {there}x{there} pixels, and {size}x{size} are needed; "
            f"write the set in that size to another folder with: mmgen data emoji --size {size} "
            "--out FOLDER"
        )
    known = {concept.key: concept for concept in concepts()}
    items: list[Item] = []
    pictures: list[Pictures] = []
    for split in SPLITS:
        source = open_source(shards_of(folder, split))
        for index in range(len(source)):
            sample = source.read(index)
            items.append(_item(sample.key, split, known))
            pictures.append(fit_bytes(sample.image, size).permute(1, 2, 0).numpy())
    stack = np.stack(pictures)
    features = features_of(stack, extractor, cache=cache, progress=progress)
    return RealSet(tuple(items), stack, features, _hash(items, stack))


def cache_of(folder: str | Path) -> Path:
    """Where the features of the set in a folder are kept, unless another file is named."""
    return Path(folder).absolute().parent / FEATURES


def size_of(folder: str | Path) -> int:
    """Pixels a side of the set in a folder.

    Raises:
        DataError: the folder is none of `mmgen data emoji`.
    """
    if not is_emoji_set(folder):
        raise DataError(f"{folder} is no folder that `mmgen data emoji` wrote; {_MAKE}")
    size = read_json(Path(folder) / MANIFEST).get("size")
    if not isinstance(size, int):
        raise DataError(
            f"{Path(folder) / MANIFEST} names no size; write the set again with: "
            f"mmgen data emoji --out {folder}"
        )
    return size


def shards_of(folder: str | Path, split: str) -> str:
    """What `open_source` takes for a split: its shard, or the range of them.

    Raises:
        DataError: there is none.
    """
    found = sorted(Path(folder).glob(f"{split}-*.tar"))
    if not found:
        raise DataError(f"{folder} has no shards of the split '{split}' of the emoji set; {_MAKE}")
    if len(found) == 1:
        return str(found[0])
    numbers = ",".join(path.stem.removeprefix(f"{split}-") for path in found)
    return str(Path(folder) / f"{split}-{{{numbers}}}.tar")


def _item(key: str, split: str, known: dict[str, Concept]) -> Item:
    style, _, code = key.partition("_")
    if code not in known or style not in known[code].styles:
        raise DataError(f"'{key}' is no picture of the emoji set; give a folder of that set.")
    return Item(known[code], style, split)


def _hash(items: list[Item], pictures: Pictures) -> str:
    digest = hashlib.sha256()
    for place in sorted(range(len(items)), key=lambda i: items[i].id):
        digest.update(items[place].id.encode())
        digest.update(np.ascontiguousarray(pictures[place]).tobytes())
    return digest.hexdigest()[:16]
