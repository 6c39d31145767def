"""The `data` part of a recipe, and the data sets that it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmgen.data.dataset import ImageTextDataset, Item, TextDataset
from mmgen.data.pictures import BadSample
from mmgen.data.sources import Source, open_source
from mmgen.data.tables import Columns
from mmgen.errors import ConfigError, DataError


@dataclass(frozen=True)
class DataConfig:
    """Where pictures and captions come from.

    Args:
        train: folder, tar shards (`data/emoji/train-{0000..0003}.tar`), parquet files, or a folder
            of HuggingFace's `save_to_disk`.
        val: held-out pictures of the same kinds; none: see `held_out`.
        image_size: pixels a side after resizing and cropping.
        drop_caption: probability of an empty caption, for guidance.
        limit_bad: share of samples that may be unusable; above it, training stops.
        held_out: share of `train` that is kept for evaluation where there is no `val`; 0: nothing
            is evaluated.
        image_column: of a table; none: the first known name.
        caption_column: of a table; none: the first known name.
    """

    train: str
    val: str | None = None
    image_size: int = 64
    drop_caption: float = 0.1
    limit_bad: float = 0.01
    held_out: float = 0.0
    image_column: str | None = None
    caption_column: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no share, and two sources of held-out pictures."""
        for name in ("drop_caption", "limit_bad"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"data.{name} must be in [0, 1], not {getattr(self, name)}.")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"data.held_out must be in [0, 1), not {self.held_out}.")
        if self.val is not None and self.held_out:
            raise ConfigError("data.val and data.held_out both name pictures; leave one out.")


def open_train(config: DataConfig, captioned: bool = True) -> ImageTextDataset:
    """The pictures that a recipe trains on.

    Args:
        config: of the recipe.
        captioned: False: the pictures alone are read, and need no captions.
    """
    source = _source(config, config.train, captioned)
    return _dataset(config, source.split(config.held_out)[0] if config.held_out else source)


def open_held_out(config: DataConfig, captioned: bool = True) -> ImageTextDataset | None:
    """The pictures that a recipe evaluates on, if there are any; arguments as in `open_train`."""
    if config.val is not None:
        return _dataset(config, _source(config, config.val, captioned))
    if not config.held_out:
        return None
    source = _source(config, config.train, captioned)
    held = source.split(config.held_out)[1]
    # As many as in the whole: of two pictures one would be half.
    return _dataset(config, held, min(1.0, config.limit_bad * len(source) / len(held)))


def _source(config: DataConfig, place: str, captioned: bool) -> Source:
    columns = Columns(config.image_column, config.caption_column if captioned else None)
    return open_source(place, captioned=captioned, columns=columns)


def _dataset(
    config: DataConfig, source: Source, limit_bad: float | None = None
) -> ImageTextDataset:
    return ImageTextDataset(
        source,
        image_size=config.image_size,
        drop_caption=config.drop_caption,
        limit_bad=config.limit_bad if limit_bad is None else limit_bad,
    )


def readable(dataset: TextDataset[Any], views: int = 1) -> Iterator[Item]:
    """Yield all samples that can be used, in order; the others are counted in `dataset.bad`.

    Args:
        dataset: what is read.
        views: how many drawn versions of each (`TextDataset.view`), the plain one first.

    Raises:
        DataError: more are bad than the data set allows, or all.
    """
    for index in range(len(dataset)):
        try:
            items = [dataset.view(index, number) for number in range(views)]
        except BadSample as error:
            dataset.bad[error.key] = error.reason
            dataset.refuse_many_bad()
            continue
        yield from items
    if len(dataset.bad) == len(dataset):
        raise DataError(f"{dataset.report()} None is left; mend the data.")


def held_out_pixels(dataset: TextDataset[Any], size: int = 32) -> Iterator[Tensor]:
    """All readable samples in order, in batches of (at most `size`, 3, ..., H, W)."""
    batch: list[Tensor] = []
    for item in readable(dataset):
        batch.append(item.pixels)
        if len(batch) == size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)
