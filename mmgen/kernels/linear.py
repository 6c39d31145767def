"""Products of a few rows with a matrix, which is most of a decoding step.

A float32 product takes MKL on a CPU, in a form that reads the matrix slowly from 2 rows on. With
the operands exchanged it reads 2 or 3 rows' matrix two or three times as fast; from 4 rows on
oneDNN, the other library that PyTorch ships, is the faster one (docs/benchmarks.md).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXCHANGED = range(2, 4)  # rows for which W x^T is faster than x W^T
ONEDNN = range(4, 257)  # rows for which oneDNN is the faster library; more were not measured


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, to the rounding of sums; without gradients a few rows take the faster library.

    Args:
        x: (..., K).
        weight: (N, K).
        bias: (N,).

    Returns:
        (..., N).
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not _is_plain(x):
        return F.linear(x, weight, bias)
    rows = x.numel() // x.shape[-1]
    if rows in EXCHANGED:
        out = torch.mm(weight, x.reshape(rows, -1).t()).t().contiguous()
        return (out if bias is None else out.add_(bias)).view(*x.shape[:-1], -1)
    if rows in ONEDNN and _has_onednn():
        few: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return few
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        return linear(x, self.weight, self.bias)


def _is_plain(x: Tensor) -> bool:
    return x.is_cpu and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


@cache
def _has_onednn() -> bool:
    # The operation is PyTorch's own, for compiled models; builds without oneDNN lack it.
    available: Any = torch.backends.mkldnn.is_available
    return bool(available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
