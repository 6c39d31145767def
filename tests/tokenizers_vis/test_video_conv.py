"""The clip tokenizer: shapes, causality, pictures as clips, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmgen.errors import ConfigError, UserError
from mmgen.tokenizers_vis.conv import ConvTokenizerConfig
from mmgen.tokenizers_vis.protocol import Codes, VisualTokenizer
from mmgen.tokenizers_vis.quantizers import KLConfig, VQConfig
from mmgen.tokenizers_vis.video_conv import VideoConvTokenizer, VideoConvTokenizerConfig

FRAMES = ConvTokenizerConfig(
    quantizer=VQConfig(codebook_size=20, channels=3),
    widths=(8, 16),
    res_blocks=1,
    decoder_res_blocks=2,
    attention_levels=(1,),
    z_channels=3,
    norm_groups=4,
    decoder_norm="spatial",
)


def tokenizer(stride: int = 4, **changes: Any) -> VideoConvTokenizer:
    torch.manual_seed(0)
    config = VideoConvTokenizerConfig(replace(FRAMES, **changes), stride, temporal_res_blocks=1)
    return VideoConvTokenizer(config).eval()


def clip(frames: int = 8, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(batch, 3, frames, 4, 6, generator=generator) * 2 - 1


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_shapes(stride: int) -> None:
    model, x = tokenizer(stride), clip(2 * stride)
    assert isinstance(model, VisualTokenizer)
    assert model.grid_for((2 * stride, 4, 6)) == (2, 2, 3) and model.grid_for((4, 6)) == (1, 2, 3)
    with torch.no_grad():
        codes = model.encode(x)
        pixels, quantized = model(x)
        assert codes.indices is not None and codes.indices.shape == (2, 2, 2, 3)
        assert model.decode(codes).shape == pixels.shape == x.shape
        assert torch.equal(quantized.indices, codes.indices)
        assert torch.allclose(model.decode(codes), pixels, atol=1e-5)


def test_a_picture_is_a_clip_that_stands_still() -> None:
    model, picture = tokenizer(), clip(1)[:, :, 0]
    still = picture.unsqueeze(2).repeat(1, 1, 4, 1, 1)
    with torch.no_grad():
        codes = model.encode(picture)
        assert codes.indices is not None
        assert torch.equal(codes.indices, model.encode(still).indices)  # type: ignore[arg-type]
        frames = model.decode_clip(codes)
        assert frames.shape == still.shape
        assert torch.equal(model.decode(codes), frames[:, :, 0])
        assert torch.allclose(model(picture)[0], frames[:, :, 0], atol=1e-5)


def test_codes_do_not_see_the_future() -> None:
    model, x = tokenizer(), clip(12)
    changed = x.clone()
    changed[:, :, 8:] = -changed[:, :, 8:]
    with torch.no_grad():
        one, other = model.features(x), model.features(changed)
    assert torch.allclose(one[:, :2], other[:, :2], atol=1e-6)
    assert not torch.allclose(one[:, 2], other[:, 2], atol=1e-3)


def test_the_code_conditions_the_decoder() -> None:
    model = tokenizer()
    with torch.no_grad():
        model.from_code.conv.weight.zero_()
        one, other = (model.decode_clip(Codes(torch.full((1, 1, 2, 2), k))) for k in (3, 4))
    assert not torch.allclose(one, other, atol=1e-4)


def test_files_and_gradients(tmp_path: Path) -> None:
    model = tokenizer().train()
    pixels, quantized = model(clip(4))
    (pixels.square().mean() + sum(quantized.losses.values())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval().save_pretrained(tmp_path)
    loaded = VideoConvTokenizer.from_pretrained(tmp_path)
    assert loaded.config == model.config and loaded.fingerprint == model.fingerprint
    with torch.no_grad():
        codes = model.encode(clip())
        assert torch.equal(loaded.encode(clip()).indices, codes.indices)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(3, 4, 6), (4, 5, 6), (4, 4, 7), (0, 4, 6), (4, 0, 6)])
def test_sizes_that_do_not_fit(size: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="do not fit this tokenizer"):
        tokenizer().grid_for(size)


def test_codes_without_indices_are_refused() -> None:
    with pytest.raises(UserError, match="decodes indices"):
        tokenizer().decode(Codes(None, torch.zeros(1, 1, 2, 2, 3)))


@pytest.mark.parametrize(
    ("stride", "changes"),
    [
        (3, {}),
        (0, {}),
        (4, {"z_channels": 4}),
        (4, {"quantizer": KLConfig(channels=3)}),
        (4, {"family": "magvit2"}),
    ],
    ids=str,
)
def test_what_makes_no_network(stride: int, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        tokenizer(stride, **changes)
