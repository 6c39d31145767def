"""PSNR and SSIM of pictures in [-1, 1], one number a picture.

SSIM: Wang et al. 2004, Gaussian window of 11 pixels with sigma 1.5, valid positions only, averaged
over colours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PEAK = 2.0  # the range of [-1, 1]
SSIM_WINDOW = 11  # pixels a side


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of x against y, both (B, 3, H, W): (B,), at most 100."""
    return psnr_of((x - y).double().square().flatten(1).mean(1))


def psnr_of(error: Tensor) -> Tensor:
    """The same of mean squared errors, float64 of any shape."""
    ratio = PEAK**2 / error.clamp(min=PEAK**2 * 1e-10)
    return (10 * ratio.log10()).float()


def ssim(x: Tensor, y: Tensor, window: int = SSIM_WINDOW, sigma: float = 1.5) -> Tensor:
    """Structural similarity of x and y, both (B, 3, H, W) with sides of `window` at least: (B,)."""
    channels = x.shape[1]
    distance = torch.arange(window, dtype=x.dtype, device=x.device) - window // 2
    line = torch.exp(-(distance**2) / (2 * sigma**2))
    line = line / line.sum()
    kernel = (line[:, None] * line[None]).expand(channels, 1, window, window)

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(image, kernel, groups=channels)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    same = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (same / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).flatten(1).mean(1)
