"""PSNR and SSIM against their formulas in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmgen.tokenizers_vis.metrics import psnr, ssim


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004 over one plane in [-1, 1], pixel by pixel in float64.

    The same as scikit-image's `structural_similarity(x, y, data_range=2, gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False)`: it leaves out a border of 5 pixels and then averages.
    """
    window = np.array(
        [[math.exp(-(i * i + j * j) / (2 * 1.5**2)) for j in range(-5, 6)] for i in range(-5, 6)]
    )
    window /= window.sum()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a = x[top : top + 11, left : left + 11].astype(np.float64)
            b = y[top : top + 11, left : left + 11].astype(np.float64)
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a = (window * (a - mean_a) ** 2).sum()
            var_b = (window * (b - mean_b) ** 2).sum()
            both = (window * (a - mean_a) * (b - mean_b)).sum()
            top_part = (2 * mean_a * mean_b + c1) * (2 * both + c2)
            values.append(top_part / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(values))


def pictures(batch: int = 2, height: int = 14, width: int = 17) -> tuple[Tensor, Tensor]:
    """Smooth pictures and distorted ones."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phase = torch.rand(batch, 3, 1, 1) * 6
    clean = 0.7 * torch.sin(0.5 * x + 0.3 * y + phase)
    noise = (
        torch.randn(batch, 3, height, width) * torch.tensor([0.05, 0.4])[:batch, None, None, None]
    )
    return clean, (clean + noise + 0.1).clamp(-1, 1)


def test_ssim_equals_loops() -> None:
    one, two = pictures()
    fast = ssim(one, two)
    assert fast.shape == (2,)
    for i in range(2):
        slow = np.mean([slow_ssim(one[i, c].numpy(), two[i, c].numpy()) for c in range(3)])
        assert abs(float(fast[i]) - slow) < 1e-5
    assert fast[0] > fast[1] > 0  # the first one has less noise


def test_ssim_of_known_pairs() -> None:
    one, two = pictures()
    assert torch.allclose(ssim(one, one), torch.ones(2), atol=1e-6)
    assert torch.allclose(ssim(one, two), ssim(two, one), atol=1e-6)
    board = (torch.arange(14)[:, None] + torch.arange(14)) % 2 * 1.0 - 0.5  # no mean, only texture
    board = board.expand(1, 3, 14, 14)
    assert abs(float(ssim(board, -board)) - (-0.5 + 0.0036) / (0.5 + 0.0036)) < 1e-3
    # Without texture only the means speak: (2ab + c1) / (a² + b² + c1).
    a, b, c1 = 0.5, -0.25, 4e-4
    flat = ssim(torch.full((1, 3, 11, 11), a), torch.full((1, 3, 11, 11), b))
    assert abs(float(flat) - (2 * a * b + c1) / (a * a + b * b + c1)) < 1e-5


def test_psnr_is_its_formula() -> None:
    one, two = pictures()
    for i, value in enumerate(psnr(one, two).tolist()):
        error = np.mean((one[i].numpy().astype(np.float64) - two[i].numpy()) ** 2)
        assert abs(value - 10 * math.log10(2.0**2 / error)) < 1e-4


@pytest.mark.parametrize(("shift", "expected"), [(2.0, 0.0), (0.2, 20.0), (0.02, 40.0)])
def test_psnr_in_numbers(shift: float, expected: float) -> None:
    x = torch.rand(1, 3, 4, 4) - 1
    assert abs(float(psnr(x, x + shift)) - expected) < 1e-3


def test_psnr_of_equal_pictures_is_a_number() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert psnr(x, x).tolist() == [100.0, 100.0]
    half = x.to(torch.bfloat16)
    assert psnr(half, half + 0.5).dtype == torch.float32
