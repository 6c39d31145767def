"""Matrices stored as 8-bit integers: a quarter of the bytes that a decoding step reads.

Each row of a matrix has one scale; its numbers are rounded to -127 .. 127. That rounding is the
only loss: what is multiplied with them is split into two 8-bit digits, which keep 15 bits and a
sign, and sums of products of integers are exact, so a result is the same in any batch.

Shapes: M rows, K channels in, N channels out.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TOP = 127
_BASE = 2 * _TOP  # of the second digit
_SMALLEST = 1e-30  # stands for a row of zeros, whose scale would be one


def int8_weight(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Store a matrix (N, K) as integers (N, K) int8 and one scale a row (N,) float32."""
    matrix = matrix.detach().float()
    scale = matrix.abs().amax(1).clamp(min=_SMALLEST) / _TOP
    return (matrix / scale[:, None]).round().to(torch.int8), scale


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` with a matrix of `int8_weight`.

    Args:
        x: (..., K) of a float type; it carries no gradient.
        weight: (N, K) int8, K at most 130,000, so that no sum overflows.
        scale: (N,) float32.
        bias: (N,).

    Returns:
        (..., N) in the type of x.
    """
    if not (x.is_cpu and _is_exact()):
        return int8_linear_reference(x, weight, scale, bias)
    digits, unit = two_digits(x.reshape(-1, x.shape[-1]).float())
    sums = torch._int_mm(digits, weight.t()).float()  # (2 M, N)
    high, low = sums.chunk(2)
    out = torch.add(high, low, alpha=1 / _BASE).mul_(unit).mul_(scale)
    if bias is not None:
        out += bias
    return out.view(*x.shape[:-1], len(weight)).to(x.dtype)


def int8_linear_reference(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor:
    """What `int8_linear` computes, up to the last bits: the stored matrix in floats."""
    return F.linear(x, (weight * scale[:, None]).to(x.dtype), bias)


def two_digits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split rows into integers: `x = unit * (digits[:M] + digits[M:] / 254)`, to 1 in 64,000.

    Args:
        x: (M, K) float32.

    Returns:
        (2 M, K) int8, and the unit of each row (M, 1).
    """
    unit = x.abs().amax(1, keepdim=True).clamp_(min=_SMALLEST).div_(_TOP)
    x = x / unit
    high = x.round()
    low = x.sub_(high).mul_(_BASE).round_()
    return torch.cat([high, low]).to(torch.int8), unit


class Int8Linear(nn.Module):
    """A linear layer for inference whose matrix is stored as integers."""

    weight: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight, scale = int8_weight(layer.weight)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        return int8_linear(x, self.weight, self.scale, self.bias)


def store_as_int8(module: nn.Module) -> None:
    """Replace every linear layer in `module`, one after the other; no gradient flows any more."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            store_as_int8(child)


@cache
def _is_exact() -> bool:
    # Processors without instructions for it add pairs of products in 16 bits, which overflow.
    ends = torch.full((4, 64), _TOP, dtype=torch.int8)
    ends[1::2] = -_TOP
    exact = ends.int() @ ends.int().t()
    return torch.equal(torch._int_mm(ends, ends.t()), exact)
