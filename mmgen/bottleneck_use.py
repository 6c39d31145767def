"""How a tokenizer uses its bottleneck on a data set: the codebook, or continuous latents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mmgen.tokenizers_vis.latents import LatentStatistics
from mmgen.tokenizers_vis.protocol import Codes
from mmgen.tokenizers_vis.usage import CodebookUsage

IN_A_LINE = 16  # channels whose deviations stand side by side


@dataclass
class CodeUse:
    """How a discrete tokenizer uses its codebook.

    Args:
        used: share of the codebook that occurs.
        perplexity: exp of the entropy of the code frequencies.
        codebook_size: K.
        tokens: codes a picture or a frame, each of which costs log2 K bits.
        each: "picture" or "frame".
    """

    used: float
    perplexity: float
    codebook_size: int
    tokens: float
    each: str = "picture"

    def lines(self) -> list[str]:
        """The figures in words."""
        bits = self.tokens * math.log2(self.codebook_size)
        codes = round(self.used * self.codebook_size)
        return [
            f"code use    {self.used:.1%} ({codes} of {self.codebook_size})",
            f"perplexity  {self.perplexity:.0f}",
            f"bits        {bits:.0f} a {self.each} ({round(self.tokens, 1):g} tokens)",
        ]


@dataclass
class LatentUse:
    """How wide the latents of a continuous tokenizer are, and how much they say.

    Args:
        mean: of all numbers, in the tokenizer's scale; a generator wants 0.
        std: of all numbers, of latents drawn from their posteriors; a generator wants 1.
        channel_std: of each channel about its own mean.
        deviation: root of the mean variance of the posteriors.
        nats: divergence from a standard normal, before the scale, a picture or a frame.
        idle: channels that say nothing: less than 0.01 nats a place.
        tokens: latents a picture or a frame.
        scale: what the network's latents are multiplied by.
        each: "picture" or "frame".
    """

    mean: float
    std: float
    channel_std: tuple[float, ...]
    deviation: float
    nats: float
    idle: int
    tokens: float
    scale: float
    each: str = "picture"

    def lines(self) -> list[str]:
        """The figures in words."""
        channels = len(self.channel_std)
        each = [f"{std:.2f}" for std in self.channel_std]
        rows = [" ".join(each[i : i + IN_A_LINE]) for i in range(0, channels, IN_A_LINE)]
        idle = f"; {self.idle} of {channels} channels say nothing" if self.idle else ""
        tokens = f"{round(self.tokens, 1):g}"
        return [
            f"latents     {tokens} a {self.each}, {channels} channels, scale {self.scale:g}",
            f"mean        {self.mean:.3f}",
            f"std         {self.std:.3f} (of posteriors alone {self.deviation:.3f})",
            *(f"{'' if i else 'by channel':12}{row}" for i, row in enumerate(rows)),
            f"KL          {self.nats:.0f} nats a {self.each}{idle}",
        ]


class CodeCounter:
    """Counts codes; see `counter_of`."""

    def __init__(self, codebook_size: int, batches: int) -> None:
        self._usage = CodebookUsage(codebook_size, window=batches)

    def add(self, codes: Codes) -> None:
        """Take in what `encode` returned."""
        assert codes.indices is not None
        self._usage.update(codes.indices)

    def use(self, count: int, each: str) -> CodeUse:
        """The figures of `count` pictures or frames, one of which is called `each`."""
        usage, tokens = self._usage, int(self._usage.counts.sum()) / count
        return CodeUse(usage.used, usage.perplexity, usage.codebook_size, tokens, each)


class LatentCounter:
    """Adds up latents; see `counter_of`."""

    def __init__(self, scale: float) -> None:
        self._sums = LatentStatistics(scale)

    def add(self, codes: Codes) -> None:
        """Take in what `encode` returned."""
        self._sums.add(codes)

    def use(self, count: int, each: str) -> LatentUse:
        """The figures of `count` pictures or frames, one of which is called `each`."""
        sums, tokens = self._sums, self._sums.places / count
        return LatentUse(
            mean=sums.mean,
            std=sums.std,
            channel_std=tuple(sums.channel_std.tolist()),
            deviation=sums.deviation,
            nats=float(sums.nats.sum()) * tokens,
            idle=sums.idle,
            tokens=tokens,
            scale=sums.scale,
            each=each,
        )


def counter_of(tokenizer: Any, batches: int) -> CodeCounter | LatentCounter:
    """What counts the use of a tokenizer's bottleneck.

    Args:
        tokenizer: discrete, or with a KL bottleneck.
        batches: most of them that will be added.
    """
    if tokenizer.codebook_size is None:
        return LatentCounter(tokenizer.config.quantizer.scale)
    return CodeCounter(tokenizer.codebook_size, batches)
