"""Drawing tokens from logits: temperature, top-k, top-p, min-p, then the Gumbel maximum.

The largest of `logit + Gumbel noise` is a draw from the softmax (Gumbel 1954). The noise comes
from `mmgen.noise`, so that a token depends on its picture's seed and its position, not on the
batch around it. Every sum is one of integers, exact in any order: the same logits give the same
token on every device (specs/kernels 3.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.noise import Purpose, gumbel_argmax, gumbel_at
from mmgen.portable import pexp

_MIN_TEMPERATURE = 1e-5
_DENSE_SHARE = 0.05  # of the tokens: above it, noise for all is cheaper than for the kept alone
_LOW_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class DrawSettings:
    """How a token is drawn; the filters apply in the order of the fields.

    Args:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keep this many most likely tokens, and those tied with the last; 0 keeps all.
        top_p: keep the most likely tokens until their share exceeds this; 1 keeps all.
        min_p: keep tokens at least this fraction as likely as the most likely one; 0 keeps all.

    Raises:
        ConfigError: a value outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a value outside its range.
        """
        if not 0.0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature must be 0 or more, not {self.temperature}.")
        if self.top_k < 0:
            raise ConfigError(f"top_k must be 0 (off) or more, not {self.top_k}.")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p must be above 0 and at most 1 (off), not {self.top_p}.")
        if not 0.0 <= self.min_p < 1.0:
            raise ConfigError(f"min_p must be 0 (off) or more and below 1, not {self.min_p}.")


def draw(
    logits: Tensor,
    seeds: Tensor,
    positions: Tensor,
    settings: DrawSettings | None = None,
    *,
    noise: Tensor | None = None,
    purpose: Purpose = Purpose.TOKEN,
    visit: int = 0,
    segment: int = 0,
    level: int = 0,
) -> Tensor:
    """Draw one token for each position; among equals the lowest index wins.

    Args:
        logits: (B, P, V) of any float type; -inf forbids a token.
        seeds: (B,) int64, the pictures' seeds.
        positions: (P,) or (B, P) int64, indices in decode order.
        settings: temperature and filters.
        noise: (B, P, V) Gumbel noise to use instead of the counter-based one (reference runs).
        purpose, visit, segment, level: the stream of random numbers, see `mmgen.noise`.

    Returns:
        (B, P) int64 token ids.

    Raises:
        ValueError: the largest logit of a position is not finite.
    """
    settings = settings or DrawSettings()
    z = _over_temperature(logits.detach().float(), settings.temperature)
    positions = positions.to(z.device).expand(z.shape[:2])
    _refuse_broken(z, positions)
    if settings.temperature == 0.0:
        return _first_maximum(z)
    z = filter_logits(z, settings.top_k, settings.top_p, settings.min_p)
    if noise is not None:
        return _first_maximum(z + noise)
    stream = _Stream(purpose, visit, segment, level)
    return _noisy_maximum(z, seeds.to(z.device), positions, stream)


def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Tensor:
    """Set the logits of the tokens that may not be drawn to -inf.

    Args:
        logits: (..., V) already divided by the temperature; the largest of each row is finite.
        top_k: keep every logit that reaches the k-th largest; 0 or at least V keeps all.
        top_p: of what top-k left, in order (logit descending, index ascending), keep a token if
            the mass strictly before it is at most this share; 1 keeps all.
        min_p: of what is left, keep tokens at least this fraction as likely as the most likely.

    Returns:
        (..., V) float32.
    """
    z = logits.detach().float()
    by_rank = 0 < top_k < z.shape[-1]
    if by_rank and top_p == 1.0:
        z = z.masked_fill(z < _kth_largest(z, top_k), -math.inf)
    elif top_p < 1.0:
        ordered = _descending(z)
        if by_rank:
            last = ordered[..., top_k - 1 : top_k]
            z = z.masked_fill(z < last, -math.inf)
            longest = int((ordered >= last).sum(-1).max())  # more than top_k where logits tie
            ordered = ordered[..., :longest]
            ordered = ordered.masked_fill(ordered < last, -math.inf)
        z = _nucleus(z, ordered, top_p)
    if min_p > 0.0:
        z = z.masked_fill(pexp(z - z.amax(-1, keepdim=True)) < min_p, -math.inf)
    return z


class _Stream(NamedTuple):
    purpose: Purpose
    visit: int
    segment: int
    level: int


def _over_temperature(z: Tensor, temperature: float) -> Tensor:
    if temperature in (0.0, 1.0):
        return z
    # A tensor on the same device: CUDA would turn a number into a product with its reciprocal.
    return z / torch.tensor(max(temperature, _MIN_TEMPERATURE), dtype=z.dtype, device=z.device)


def _nucleus(z: Tensor, ordered: Tensor, top_p: float) -> Tensor:
    # A token's mass is floor(exp(z - max) * 2**31), so the sums below are exact (V < 2**32).
    mass = (pexp(ordered - ordered[..., :1]) * 2.0**31).long()
    total = mass.cumsum(-1)
    limit = _share(total[..., -1:], int(top_p * 2.0**32))
    count = (total - mass <= limit).sum(-1, keepdim=True)  # at least 1: nothing precedes the first
    last = ordered.gather(-1, count - 1)
    # Equal logits have equal masses, so the first `quota` of those tied with the last are kept.
    quota = count - (ordered > last).sum(-1, keepdim=True)
    tied = z == last
    return z.masked_fill((z < last) | (tied & (tied.cumsum(-1) > quota)), -math.inf)


def _share(total: Tensor, part: int) -> Tensor:
    # floor(total * part / 2**32) without overflow. The low product may exceed 2**63: int64 wraps
    # and keeps its bits, and the mask removes the sign that >> spreads.
    low = (((total & _LOW_WORD) * part) >> 32) & _LOW_WORD
    return (total >> 32) * part + low


def _kth_largest(z: Tensor, k: int) -> Tensor:
    # (..., V) to (..., 1)
    if z.device.type == "cpu":  # NumPy selects about ten times faster here
        place = z.shape[-1] - k
        return torch.from_numpy(np.partition(z.numpy(), place, axis=-1)[..., place : place + 1])
    return z.topk(k).values[..., -1:]


def _descending(z: Tensor) -> Tensor:
    if z.device.type == "cpu":  # NumPy sorts float32 values about ten times faster here
        return torch.from_numpy(np.sort(z.numpy(), axis=-1)).flip(-1)
    return z.sort(dim=-1, descending=True).values


def _noisy_maximum(z: Tensor, seeds: Tensor, positions: Tensor, stream: _Stream) -> Tensor:
    # Forbidden tokens need no noise: they cannot win.
    kept = z > -math.inf
    if int(kept.sum()) > _DENSE_SHARE * z.numel():
        return gumbel_argmax(z, seeds, positions, **stream._asdict())
    picture, place, token = kept.nonzero(as_tuple=True)  # (M,) each
    noise = gumbel_at(
        seeds[picture],
        positions[picture, place, None],
        token[:, None, None],
        **stream._asdict(),
    )
    return _first_maximum(z.index_put((picture, place, token), noise.view(-1), accumulate=True))


def _first_maximum(keys: Tensor) -> Tensor:
    # `argmax` does not promise the lowest index among equals on every device.
    ids = torch.arange(keys.shape[-1], device=keys.device)
    best = keys.amax(-1, keepdim=True)
    return torch.where(keys == best, ids, keys.shape[-1]).amin(-1)


def _refuse_broken(z: Tensor, positions: Tensor) -> None:
    best = z.amax(-1)  # (B, P); NaN anywhere in a row is its maximum
    broken = ~best.isfinite()
    if not broken.any():
        return
    picture, place = broken.nonzero()[0].tolist()
    value = best[picture, place].item()
    position = int(positions[picture, place])
    fault = "NaN" if math.isnan(value) else "infinite" if value > 0 else "all -inf"
    raise ValueError(
        f"the logits of picture {picture} at position {position} are {fault}; "
        "the weights or the activations are broken, or every token was forbidden"
    )
