"""Pictures through a diffusion model: SEED with small diffusers pipelines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_seed import V1, V2, tiny_seed, tiny_stable_diffusion, tiny_unclip

from mmgen.errors import ConfigError, UserError
from mmgen.tokenizers_vis.diffusion import TEXT, UNCLIP, DiffusionSettings, DiffusionTokenizer
from mmgen.tokenizers_vis.protocol import VisualTokenizer

pytest.importorskip("transformers")
FAST = replace(UNCLIP, steps=2)


@pytest.fixture(scope="module")
def unclip(tmp_path_factory: pytest.TempPathFactory) -> DiffusionTokenizer:
    pipeline = tiny_unclip(tmp_path_factory.mktemp("unclip"))
    return DiffusionTokenizer(tiny_seed(), pipeline, FAST)


def test_picture_to_codes_to_picture(unclip: DiffusionTokenizer) -> None:
    assert isinstance(unclip, VisualTokenizer)
    pixels = torch.rand(2, 3, 28, 28) * 2 - 1
    codes = unclip.encode(pixels)
    drawn = unclip.decode(codes)
    assert drawn.shape == (2, 3, 16, 16)
    assert -1 <= drawn.min() < drawn.max() <= 1
    assert torch.equal(drawn, unclip.decode(codes))
    alone = unclip.decode(replace(codes, indices=codes.indices[1:]))  # type: ignore[index]
    assert torch.allclose(drawn[1:], alone, atol=1e-4)  # its place in the batch is no matter


@pytest.mark.parametrize("level", [0, 300])
@pytest.mark.parametrize("betas", [{}, {"beta_start": 0.00085, "beta_end": 0.012}], ids=str)
@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "linear", "scaled_linear"])
def test_labels_are_those_of_diffusers(
    tmp_path: Path, level: int, schedule: str, betas: dict[str, float]
) -> None:
    pipeline = tiny_unclip(tmp_path, beta_schedule=schedule, **betas)
    conditioner = DiffusionTokenizer(tiny_seed(), pipeline).conditioner
    assert conditioner is not None
    embedding, noise = torch.randn(2, 3, 16)
    expected = pipeline.noise_image_embeddings(embedding, level, noise)
    torch.testing.assert_close(conditioner(embedding, noise, level), expected)


@pytest.mark.parametrize(
    "more", [{"trained_betas": [0.01] * 1000}, {"rescale_betas_zero_snr": True}], ids=str
)
def test_other_noise_levels_are_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="noise levels of its own"):
        DiffusionTokenizer(tiny_seed(), tiny_unclip(tmp_path, **more))


def test_the_unet_is_told_the_labels(unclip: DiffusionTokenizer) -> None:
    embedding, seeds = torch.randn(1, 16), torch.tensor([5])
    labels = unclip.class_labels(embedding, seeds)
    stock = unclip.pipeline
    assert torch.equal(labels[0], torch.zeros(32))
    seen: list[torch.Tensor] = []
    stock.unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["class_labels"]), with_kwargs=True
    )
    drawn = unclip.draw(embedding, 5)
    assert len(seen) == 2
    assert torch.equal(seen[0], labels)
    assert "_encode_image" not in vars(stock)  # the caller's object is as it was
    assert not torch.equal(drawn, unclip.draw(embedding, 6))


def test_negative_embedding_replaces_the_zero_rows(unclip: DiffusionTokenizer) -> None:
    embedding, negative, seeds = torch.randn(2, 16), torch.randn(2, 16), torch.tensor([5, 6])
    labels = unclip.class_labels(embedding, seeds, negative)
    assert torch.equal(labels[2:], unclip.class_labels(embedding, seeds)[2:])
    assert not torch.equal(labels[:2], torch.zeros(2, 32))
    assert not torch.equal(unclip.draw(embedding, 5, negative), unclip.draw(embedding, 5))


def test_no_guidance_has_one_row_a_picture(unclip: DiffusionTokenizer) -> None:
    plain = DiffusionTokenizer(
        unclip.tokenizer, unclip.pipeline, DiffusionSettings(steps=1, guidance_scale=1.0)
    )
    assert plain.class_labels(torch.randn(2, 16), torch.tensor([1, 2])).shape == (2, 32)
    assert plain.draw(torch.randn(2, 16)).shape == (2, 3, 16, 16)


def test_v1_draws_through_text_features(tmp_path: Path) -> None:
    drawer = DiffusionTokenizer(tiny_seed(V1), tiny_stable_diffusion(tmp_path))
    assert drawer.settings == TEXT
    drawer.settings = replace(TEXT, steps=2)
    drawn = drawer.decode(drawer.encode(torch.rand(2, 3, 28, 28) * 2 - 1))
    assert drawn.shape == (2, 3, 16, 16)
    with pytest.raises(UserError, match="belong to unCLIP"):
        drawer.class_labels(torch.randn(1, 16), torch.tensor([1]))


def test_wrong_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="SEED v1 goes with Stable Diffusion 1"):
        DiffusionTokenizer(tiny_seed(V1), tiny_unclip(tmp_path))
    with pytest.raises(UserError, match="takes text features of 16 channels"):
        DiffusionTokenizer(tiny_seed(V2), tiny_stable_diffusion(tmp_path))
    with pytest.raises(ConfigError, match="at least 1 step"):
        DiffusionSettings(steps=0, guidance_scale=2)
