"""Any picture to the square of pixels that networks see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from mmgen.data.pictures import to_rgb

if TYPE_CHECKING:
    from PIL import Image


SQUARE = 1.05  # sides that differ less make a square: nobody misses what is cut off


def is_square(size: tuple[int, int]) -> bool:
    """Whether hardly anything of a picture of that width and height is lost in a square."""
    return max(size) <= SQUARE * min(size)


def fit_bytes(image: Image.Image, size: int) -> Tensor:
    """Crop a picture to a centred square, then resize: (3, size, size) uint8, white behind it.

    Cropping comes first, since resizing a picture of 1 x 1000000 pixels would need terabytes.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    pixels: Tensor = transforms.pil_to_tensor(to_rgb(image))  # (3, H, W)
    side = min(pixels.shape[-2:])
    pixels = transforms.center_crop(pixels, [side, side])
    if side == size:
        return pixels
    bicubic = InterpolationMode.BICUBIC
    fitted: Tensor = transforms.resize(pixels, [size, size], bicubic, antialias=True)
    return fitted


def fit_pixels(image: Image.Image, size: int) -> Tensor:
    """Fit a picture and scale it: (3, size, size) float32 in [-1, 1]."""
    return as_float(fit_bytes(image, size))


def squash_pixels(
    image: Image.Image, size: int, interpolation: Literal["bilinear", "bicubic"] = "bilinear"
) -> Tensor:
    """Resize a whole picture to a square, its shape not kept: (3, size, size) float32 in [-1, 1].

    SEED's tokenizers were trained on such pictures: bilinear in SEED-LLaMA, bicubic in v1.
    """
    from PIL.Image import Resampling
    from torchvision.transforms.v2 import functional as transforms

    resample = Resampling.BILINEAR if interpolation == "bilinear" else Resampling.BICUBIC
    return as_float(transforms.pil_to_tensor(to_rgb(image).resize((size, size), resample)))


def as_float(pixels: Tensor) -> Tensor:
    """Bytes to float32 in [-1, 1], any shape."""
    return pixels.float().div_(127.5).sub_(1.0)
