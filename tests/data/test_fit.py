"""Squares of pixels from pictures of any shape."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from mmgen.data.fit import is_square, squash_pixels


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squashing_keeps_the_whole_picture(interpolation: str) -> None:
    picture = Image.new("RGB", (60, 20), "black")
    picture.paste("white", (0, 0, 30, 20))
    pixels = squash_pixels(picture, 8, interpolation)  # type: ignore[arg-type]
    assert pixels.shape == (3, 8, 8)
    assert torch.equal(pixels[:, :, 0], torch.ones(3, 8))
    assert torch.equal(pixels[:, :, -1], -torch.ones(3, 8))


def test_the_two_interpolations_differ() -> None:
    picture = Image.effect_noise((40, 30), 90).convert("RGB")
    assert not torch.equal(squash_pixels(picture, 8), squash_pixels(picture, 8, "bicubic"))


def test_a_hair_more_is_still_a_square() -> None:
    assert is_square((100, 100)) and is_square((105, 100)) and is_square((100, 104))
    assert not is_square((106, 100)) and not is_square((100, 200))
