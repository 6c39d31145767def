"""The scale that brings a KL tokenizer's latents to unit variance, measured when it is trained.

A generator by flow matching starts from noise of unit variance, and its times mean what they mean
elsewhere only if what it learns is as wide. The scale is part of the tokenizer's configuration: it
is stored beside the weights, and token caches and generators carry it in the fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from mmgen.data.dataset import ImageTextDataset
from mmgen.errors import UserError
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.latents import LatentStatistics
from mmgen.tokenizers_vis.quantizers import KLConfig

Config = TypeVar("Config")

MOST = 20_000  # pictures that are measured; more would move the scale by a thousandth


@torch.no_grad()
def with_unit_variance(
    tokenizer: ConvTokenizer, batches: Iterable[Tensor]
) -> tuple[ConvTokenizer, list[str]]:
    """The same tokenizer with another scale, and what was found in words.

    Args:
        tokenizer: with a KL bottleneck, in evaluation mode; it stays as it is.
        batches: pixels (B, 3, H, W) to measure on.

    Raises:
        UserError: the latents do not vary, or not within what a number can hold.
    """
    bottleneck = tokenizer.config.quantizer
    assert isinstance(bottleneck, KLConfig)
    statistics = LatentStatistics(bottleneck.scale)
    device = next(tokenizer.parameters()).device
    for pixels in batches:
        statistics.add(tokenizer.encode(pixels.to(device)))
    if not 0 < statistics.std < float("inf"):
        raise UserError(
            f"The latents have the standard deviation {statistics.std}, which no scale can mend; "
            "train with a lower learning rate."
        )
    scale = float(f"{bottleneck.scale / statistics.std:.6g}")
    with torch.random.fork_rng():
        twin = ConvTokenizer(rescaled(tokenizer.config, scale))
    twin.load_state_dict(tokenizer.state_dict())
    said = (
        f"Latents are multiplied by {scale} to have unit variance (measured on "
        f"{statistics.pictures} pictures)."
    )
    return twin.to(device).eval(), [said]


def shuffled_pixels(
    dataset: ImageTextDataset, batch_size: int, seed: int, progress: Callable[[int, int], None]
) -> Iterator[Tensor]:
    """Whole batches (B, 3, H, W) of the first epoch of a run, of `MOST` pictures at most.

    Args:
        dataset: of the run.
        batch_size: of the run.
        seed: of the run.
        progress: called with pictures done and pictures in all.
    """
    count = min(dataset.batches_per_epoch(batch_size), max(1, MOST // batch_size))
    epoch = dataset.epoch(0, batch_size, seed=seed)
    for done, batch in enumerate(islice(epoch, count)):
        yield batch.pixels
        progress((done + 1) * batch_size, count * batch_size)


def rescaled(config: Config, scale: float = 1.0) -> Config:
    """A configuration with another scale of its latents, if it has any.

    At the scale 1 the configurations of two tokenizers are equal if their networks are.
    """
    if not (isinstance(config, ConvTokenizerConfig) and isinstance(config.quantizer, KLConfig)):
        return config
    return replace(config, quantizer=replace(config.quantizer, scale=scale))
