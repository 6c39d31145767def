"""Finite scalar quantization: every channel is bounded and rounded (arXiv 2309.15505).

There is no codebook to learn and there are no losses. The code of a vector is its digits,
packed with the first channel fastest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.tokenizers_vis.protocol import Quantized
from mmgen.tokenizers_vis.quantizers.softmax import full_precision

EPS = 1e-3
MOST_LEVELS = 1000  # above, EPS would push the end digits out of range or out of reach


@dataclass(frozen=True)
class FSQConfig:
    """Finite scalar quantization.

    Args:
        levels: number of values of each channel; their product is the codebook size.
        variant: the bound for an even number of levels: "paper" as printed in the paper's
            appendix (shift by tan), "atanh" as in vector-quantize-pytorch. Same codes; some
            digits near a boundary differ.
    """

    kind: Literal["fsq"] = "fsq"
    levels: tuple[int, ...] = (8, 8, 8, 6, 5)
    variant: Literal["paper", "atanh"] = "atanh"

    def __post_init__(self) -> None:
        if not self.levels or not all(2 <= level <= MOST_LEVELS for level in self.levels):
            raise ConfigError(
                f"FSQ levels must be numbers from 2 to {MOST_LEVELS}, at least one, "
                f"not {self.levels}."
            )


class FSQ(nn.Module):
    """Bound, round, and pass the gradient through the rounding (not through the bound)."""

    half_range: Tensor
    shift: Tensor
    offset: Tensor
    width: Tensor
    basis: Tensor
    levels: Tensor

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_size, self.channels = math.prod(config.levels), len(config.levels)
        sign, curve = (-1, math.tan) if config.variant == "paper" else (1, math.atanh)
        half = [(level - 1) * (1 + sign * EPS) / 2 for level in config.levels]
        even = [level % 2 == 0 for level in config.levels]
        shift = [curve(0.5 / h) if e else 0.0 for h, e in zip(half, even)]
        basis = [math.prod(config.levels[:j]) for j in range(self.channels)]
        self._constant("half_range", torch.tensor(half))
        self._constant("shift", torch.tensor(shift))
        self._constant("offset", torch.tensor([0.5 if e else 0.0 for e in even]))
        self._constant("width", torch.tensor([level // 2 for level in config.levels]))
        self._constant("basis", torch.tensor(basis))
        self._constant("levels", torch.tensor(config.levels))

    def forward(self, z: Tensor) -> Quantized:
        """Quantize z (..., n) float; the losses are empty."""
        with full_precision(z):
            bounded = self._bound(z.float())
            digits = bounded.detach().round()
            quantized = (digits + (bounded - bounded.detach())) / self.width
        return Quantized(quantized.to(z.dtype), self._pack(digits.long() + self.width), {})

    @torch.no_grad()
    def assign(self, z: Tensor) -> Tensor:
        """Return the indices (...,) of z (..., n)."""
        with full_precision(z):
            return self._pack(self._bound(z.float()).round().long() + self.width)

    def embed(self, indices: Tensor) -> Tensor:
        """Return the codes (..., n) of indices (...,), each value in [-1, 1]."""
        return (self.digits(indices) - self.width) / self.width

    def digits(self, indices: Tensor) -> Tensor:
        """Return the digits (..., n) long of indices (...,), channel j from 0 to L_j - 1."""
        return indices[..., None] // self.basis % self.levels

    def indices_of(self, codes: Tensor) -> Tensor:
        """Return the indices (...,) of exact codes (..., n): the inverse of `embed`."""
        return self._pack((codes * self.width).round().long() + self.width)

    def _bound(self, z: Tensor) -> Tensor:
        return torch.tanh(z + self.shift) * self.half_range - self.offset

    def _pack(self, digits: Tensor) -> Tensor:
        return (digits * self.basis).sum(-1)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)
