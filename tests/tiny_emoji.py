"""A small part of the emoji set with patterns for drawings, and a stand-in for the network."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_pipeline import SIZE

from mmgen.data.emoji import FORMAT, SPLITS, Item, all_items
from mmgen.data.shards import write_shard


class Small:
    """Stands in for the feature network: the pixels of a reduced picture."""

    hash, protocol = "small", "mean of parts"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        small = pictures.reshape(len(pictures), 4, SIZE // 4, 4, SIZE // 4, 3).mean((2, 4))
        return (small.reshape(len(pictures), -1) / 255).astype(np.float32)


def few_items() -> list[Item]:
    """All pictures of some concepts, so that every split has a few."""
    items = all_items()
    wanted: list[str] = []
    for split, count in (("val", 4), ("test_pair", 4), ("test_concept", 3), ("train", 6)):
        keys = dict.fromkeys(item.concept.key for item in items if item.split == split)
        wanted += list(keys)[:count]
    return [item for item in items if item.concept.key in wanted]


def picture_of(item: Item) -> Image.Image:
    """A pattern that says the concept, on a ground that says the style."""
    generator = np.random.default_rng(list(item.concept.key.encode()))
    pattern = generator.integers(0, 200, (4, 4, 3))
    pattern = pattern + 9 * len(item.style)
    return Image.fromarray(pattern.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.NEAREST)


def write_emoji(folder: Path) -> Path:
    """Shards of `few_items`, as `mmgen data emoji` writes them."""
    for split in SPLITS:
        samples = []
        for item in few_items():
            if item.split == split:
                buffer = io.BytesIO()
                picture_of(item).save(buffer, "PNG")
                record = json.dumps({"captions": [item.concept.phrase]}).encode()
                key = f"{item.style}_{item.concept.key}"
                samples.append((key, {"png": buffer.getvalue(), "json": record}))
        half = len(samples) // 2 if split == "train" else len(samples)
        for number, part in enumerate([samples[:half], samples[half:]]):
            if part:
                write_shard(folder / f"{split}-{number:04}.tar", part)
    manifest = {"format": FORMAT, "size": SIZE}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
