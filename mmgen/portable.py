"""A logarithm and an exponential with the same bits on every device.

They are made of float32 operations that are each rounded on their own. IEEE 754 fixes every one of
them, so CPU and GPU agree. Never run this file through `torch.compile`: it contracts a multiply and
an add into one rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_ATANH = [2.0 / n for n in (15, 13, 11, 9, 7, 5, 3)] + [2.0]
_EXP = [1.0 / math.factorial(n) for n in (6, 5, 4, 3, 2, 1, 0)]
_LN2_HIGH = 0.693145751953125  # 16 significant bits: a product with an exponent is exact
_LN2_LOW = 1.428606765330187e-06
_LOG2_E = 1.4426950
_ONE = 0x3F800000  # the bits of float32 1.0
_SQRT_HALF = 0x3F3504F4  # the bits of the float32 after sqrt(1/2)
_EXP_FLOOR = -86.0  # below it `pexp` is 0: the result would leave the normal numbers


def plog(x: Tensor) -> Tensor:
    """Natural logarithm of positive normal float32 numbers, the same bits on every device."""
    bits, exponent = split(x)
    f = bits.view(torch.float32)
    return join(two_atanh((f - 1.0) / (f + 1.0)), exponent.float())


def pexp(x: Tensor) -> Tensor:
    """Exponential of float32 numbers up to 0, the same bits on every device; 0 below -86."""
    safe = x.clamp(min=_EXP_FLOOR)  # before any conversion to an integer: x may be -inf
    n = (safe * _LOG2_E).round_()  # to even, as rint
    r = (safe - n * _LN2_HIGH).sub_(n * _LN2_LOW)
    power = (n.to(torch.int32) << 23).add_(_ONE).view(torch.float32)  # 2**n
    return _horner(_EXP, r).mul_(power).masked_fill_(x < _EXP_FLOOR, 0.0)


def two_atanh(s: Tensor) -> Tensor:
    """2 artanh(s) for |s| <= 1/3 in float32, the same bits on every device."""
    return _horner(_ATANH, s * s).mul_(s)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Positive x as f * 2**e: the bits of f, in (sqrt(1/2), sqrt(2)], and e, both int32."""
    # A mantissa above float32(1.41421356) is halved.
    bits = x.view(torch.int32) + (_ONE - _SQRT_HALF)
    e = (bits >> 23).sub_(127)
    return bits.bitwise_and_(0x7FFFFF).add_(_SQRT_HALF), e


def join(log: Tensor, e: Tensor) -> Tensor:
    """`log + e * log(2)`; overwrites `log`."""
    return (e * _LN2_HIGH).add_(log.add_(e * _LN2_LOW))


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    total = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        total.add_(coefficient).mul_(x)
    return total.add_(coefficients[-1])
