"""The `data` part of a recipe, and the data sets that it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.data.dataset import ImageTextDataset, Item
from mmgen.data.pictures import BadSample
from mmgen.errors import ConfigError, DataError


@dataclass(frozen=True)
class DataConfig:
    """Where pictures and captions come from.

    Args:
        train: folder, tar shard or brace range (`data/emoji/train-{0000..0003}.tar`).
        val: held-out pictures of the same kinds; none: nothing is evaluated.
        image_size: pixels a side after resizing and cropping.
        drop_caption: probability of an empty caption, for guidance.
        limit_bad: share of samples that may be unusable; above it, training stops.
    """

    train: str
    val: str | None = None
    image_size: int = 64
    drop_caption: float = 0.1
    limit_bad: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for name in ("drop_caption", "limit_bad"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"data.{name} must be in [0, 1], not {getattr(self, name)}.")


def open_split(config: DataConfig, place: str) -> ImageTextDataset:
    """Open one split of a recipe's data."""
    return ImageTextDataset(
        place,
        image_size=config.image_size,
        drop_caption=config.drop_caption,
        limit_bad=config.limit_bad,
    )


def readable(dataset: ImageTextDataset) -> Iterator[Item]:
    """Yield all samples that can be used, in order; the others are counted in `dataset.bad`.

    Raises:
        DataError: more are bad than the data set allows.
    """
    for index in range(len(dataset)):
        try:
            item = dataset[index]
        except BadSample as error:
            dataset.bad[error.key] = error.reason
            if len(dataset.bad) > dataset.limit_bad * len(dataset):
                raise DataError(
                    f"{dataset.report()} These are the ones met so far, already more than "
                    f"{dataset.limit_bad:.0%}; mend the data or raise data.limit_bad."
                ) from None
            continue
        yield item


def held_out_pixels(dataset: ImageTextDataset, size: int = 32) -> Iterator[Tensor]:
    """All readable pictures in order, in batches of (at most `size`, 3, H, W)."""
    batch: list[Tensor] = []
    for item in readable(dataset):
        batch.append(item.pixels)
        if len(batch) == size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)
