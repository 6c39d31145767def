"""Products of a few rows with a matrix, which is most of a decoding step.

A float32 product takes MKL on a CPU, which from 4 rows on is slower than one row at a time: 8 rows
take as long as 32. oneDNN, the other library that PyTorch ships, has no such valley, but is slower
for 1 to 3 rows (docs/benchmarks.md has the figures).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = range(4, 33)  # rows for which oneDNN is the faster library


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, to the rounding of sums; without gradients a few rows take the faster library.

    Args:
        x: (..., K).
        weight: (N, K).
        bias: (N,).

    Returns:
        (..., N).
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not _is_few(x):
        return F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class Linear(nn.Linear):
    """`nn.Linear` through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        return linear(x, self.weight, self.bias)


def _is_few(x: Tensor) -> bool:
    plain = x.is_cpu and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and x.numel() // x.shape[-1] in FEW and _has_onednn()


def _has_onednn() -> bool:
    # The operation is PyTorch's own, for compiled models; builds without oneDNN lack it.
    available: Any = torch.backends.mkldnn.is_available
    return bool(available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
