"""The tokenizer of stills and clips that comes with the package."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmgen.components import load_component
from mmgen.errors import CheckpointError
from mmgen.pipeline_folder import locate_pipeline, shipped_tokenizers, tokenizer_folder
from mmgen.showing import shipped_cards, show
from mmgen.tokenizers_vis.causal_video import CausalVideoTokenizer
from mmgen.tokenizers_vis.metrics import psnr
from mmgen.train import pipelines
from mmgen.train.starting import Wish, generator_recipes
from mmgen.train.starting import tokenizer_recipe as started_tokenizer

NAME = "emoji-clips-64"


def _clip() -> Tensor:
    """A red ball that rises over white: (1, 3, 17, 64, 64)."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    frames = []
    for t in range(17):
        ball = ((x - 32) ** 2 + (y - 40 + t) ** 2 < 18**2).float()
        frames.append(torch.stack([torch.ones(64, 64), 1 - 1.6 * ball, 1 - 1.6 * ball]))
    return torch.stack(frames, dim=1)[None]


def test_it_is_told_as_it_is() -> None:
    vision = load_component(tokenizer_folder(NAME))
    assert isinstance(vision, CausalVideoTokenizer)
    told = show(NAME)
    assert told["weights"]["vision"] == sum(t.numel() for t in vision.state_dict().values())
    assert told["codes"] == vision.codebook_size and told["task"] == "video-tokenizer"
    assert vision.grid_for((17, 64, 64)) == (5, 8, 8)
    assert NAME in [card.name for card in shipped_cards()] and NAME in shipped_tokenizers()
    assert pipelines.tokenizer_folder(NAME) == tokenizer_folder(NAME)
    with pytest.raises(CheckpointError, match="is a tokenizer, not a pipeline"):
        locate_pipeline(NAME)


def test_it_keeps_a_ball_and_its_way() -> None:
    vision, clip = load_component(tokenizer_folder(NAME)).eval(), _clip()
    with torch.inference_mode():
        codes = vision.encode(clip)
        again = vision.decode(codes)
        still = vision.encode(clip[:, :, 0])
    assert torch.equal(codes.indices[:, :1], still.indices)
    quality = psnr(again[0].transpose(0, 1), clip[0].transpose(0, 1))
    assert quality.min() > 22
    height = torch.arange(64.0)[:, None]
    red = (again[0, 0] - again[0, 1]).clamp(min=0)  # (17, 64, 64)
    rows = (red * height).sum((1, 2)) / red.sum((1, 2))
    assert (rows - (40 - torch.arange(17.0))).abs().max() < 1.5


def test_training_starts_from_it(plain_pictures: str) -> None:
    first, recipe = generator_recipes(Wish(plain_pictures, tokenizer=NAME))
    assert first is None and (recipe.tokenizer, recipe.data.image_size) == (NAME, 64)
    assert (
        started_tokenizer(Wish(plain_pictures, start=NAME)).model
        == load_component(tokenizer_folder(NAME)).config
    )


@pytest.fixture
def plain_pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    from PIL import Image

    folder = tmp_path_factory.mktemp("plain")
    for i in range(4):
        Image.new("RGB", (64, 64), (60 * i, 0, 0)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"square {i}", encoding="utf-8")
    return str(folder)
