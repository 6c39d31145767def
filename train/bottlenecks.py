"""What is watched of a tokenizer's bottleneck while it trains: codes in use, or a posterior.

Both can fail behind a reconstruction that still looks fine: a codebook of which most codes mean
nothing, and a posterior that has become the prior and tells the decoder nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.tokenizers_vis.latents import LatentStatistics
from mmgen.tokenizers_vis.protocol import Codes, Quantized
from mmgen.tokenizers_vis.quantizers import KL
from mmgen.tokenizers_vis.usage import CodebookUsage


class Watch(Protocol):
    """The bottleneck's health over the last batches."""

    def see(self, features: Tensor, quantized: Quantized) -> None:
        """Take in what one batch fed to the bottleneck, (..., C), and what came out."""

    def metrics(self) -> dict[str, float]:
        """Scalars to log."""

    def warning(self) -> str | None:
        """One sentence if it fails, else None."""

    def state(self) -> dict[str, Tensor]:
        """What an exact resume needs, by name."""

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` returned, among other things."""


def watch_of(tokenizer: Any, window: int) -> Watch:
    """The watch of a tokenizer's bottleneck.

    Args:
        tokenizer: discrete or continuous.
        window: batches over which the use of a codebook is counted.
    """
    if isinstance(tokenizer, ConvTokenizer) and isinstance(tokenizer.quantizer, KL):
        return PosteriorWatch(tokenizer.quantizer)
    return CodeWatch(tokenizer.codebook_size, window)


class CodeWatch:
    """How much of a codebook is in use."""

    def __init__(self, codebook_size: int, window: int) -> None:
        self.usage = CodebookUsage(codebook_size, window)

    def see(self, features: Tensor, quantized: Quantized) -> None:
        """Count the codes."""
        assert quantized.indices is not None
        self.usage.update(quantized.indices)

    def metrics(self) -> dict[str, float]:
        """Share of the codebook, perplexity, and how many codes do not occur."""
        dead = float(len(self.usage.dead))
        used, perplexity = self.usage.used, self.usage.perplexity
        return {"code_use": used, "perplexity": perplexity, "dead_codes": dead}

    def warning(self) -> str | None:
        """See `CodebookUsage.warning`."""
        return self.usage.warning()

    def state(self) -> dict[str, Tensor]:
        """The window."""
        saved = self.usage.state_dict()
        state = {f"usage.codes.{i:05d}": codes for i, codes in enumerate(saved["codes"])}
        return state | {f"usage.counts.{i:05d}": n for i, n in enumerate(saved["counts"])}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take back the window."""
        parts: dict[str, Any] = {"codebook_size": self.usage.codebook_size}
        for kind in ("codes", "counts"):
            names = sorted(name for name in tensors if name.startswith(f"usage.{kind}."))
            parts[kind] = [tensors[name] for name in names]
        self.usage.load_state_dict(parts)


class PosteriorWatch:
    """How wide the latents of the last batch are, and what they say."""

    def __init__(self, quantizer: KL) -> None:
        self.quantizer, self.statistics = quantizer, LatentStatistics()

    @torch.no_grad()
    def see(self, features: Tensor, quantized: Quantized) -> None:
        """Measure the moments (..., 2C)."""
        means, deviations = self.quantizer.posterior(features.detach().float())
        self.statistics = LatentStatistics()
        self.statistics.add(Codes(None, means, deviations))

    def metrics(self) -> dict[str, float]:
        """Width without the scale, that of the posteriors, nats a place, idle channels."""
        seen = self.statistics
        return {
            "latent_std": seen.std,
            "posterior_std": seen.deviation,
            "nats": float(seen.nats.sum()),
            "idle_channels": float(seen.idle),
        }

    def warning(self) -> str | None:
        """Speak up if half of the channels or more say nothing."""
        idle, channels = self.statistics.idle, self.quantizer.channels
        if 2 * idle < channels:
            return None
        return (
            f"{idle} of {channels} channels of the latents say nothing about the picture (less "
            "than 0.01 nats a place): lower model.quantizer.weight, or take fewer channels."
        )

    def state(self) -> dict[str, Tensor]:
        """Nothing: only the last batch counts."""
        return {}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Nothing."""
