"""LARP: holistic tokens of clips, their tables, any arrangement of them, saving."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen.errors import ConfigError, UserError
from mmgen.tokenizers_vis.larp import LarpConfig, LarpTokenizer, clip_places, sine_table
from mmgen.tokenizers_vis.protocol import Codes, VisualTokenizer
from mmgen.tokenizers_vis.quantizers import VQConfig
from mmgen.tokenizers_vis.vit import ViTConfig

CONFIG = LarpConfig(
    quantizer=VQConfig(codebook_size=16, channels=4, normalize=True),
    encoder=ViTConfig(width=16, depth=1, heads=2),
    decoder=ViTConfig(width=8, depth=1, heads=2),
    tokens=12,
    frames=4,
    size=8,
    patch=(2, 4, 4),
    decoder_patch=(4, 2, 4),
)


@pytest.fixture(scope="module")
def tokenizer() -> LarpTokenizer:
    torch.manual_seed(0)
    return LarpTokenizer(CONFIG).eval()


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return torch.rand(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_clip_becomes_tokens_without_a_place(
    tokenizer: LarpTokenizer, clip: torch.Tensor
) -> None:
    assert isinstance(tokenizer, VisualTokenizer)
    codes = tokenizer.encode(clip)
    assert codes.indices is not None
    assert codes.indices.shape == (2, 1, 1, 12)
    assert tokenizer.grid_for((4, 8, 8)) == (1, 1, 12)
    assert tokenizer.decode(codes).shape == clip.shape


def test_any_arrangement_of_the_tokens_is_decoded(
    tokenizer: LarpTokenizer, clip: torch.Tensor
) -> None:
    codes = tokenizer.encode(clip)
    assert codes.indices is not None
    arranged = Codes(codes.indices.reshape(2, 2, 3, 2))
    assert torch.equal(tokenizer.decode(arranged), tokenizer.decode(codes))


def test_every_token_sees_the_whole_clip(tokenizer: LarpTokenizer, clip: torch.Tensor) -> None:
    other = clip.clone()
    other[:, :, -1, -1, -1] = 0
    changed = (tokenizer.features(clip) != tokenizer.features(other)).any(-1)
    assert changed.all()


def test_unpatchify_puts_every_patch_in_its_place(tokenizer: LarpTokenizer) -> None:
    clip = torch.arange(3 * 4 * 8 * 8).view(1, 3, 4, 8, 8)
    rows = torch.zeros(1, 8, math.prod(CONFIG.decoder_patch) * 3)
    for p, (i, j, k) in enumerate((i, j, k) for i in range(1) for j in range(4) for k in range(2)):
        cut = clip[0, :, i * 4 : i * 4 + 4, j * 2 : j * 2 + 2, k * 4 : k * 4 + 4]
        rows[0, p] = cut.permute(1, 2, 3, 0).flatten()
    assert torch.equal(tokenizer._unpatchify(rows), clip.float())


def test_the_tables(tokenizer: LarpTokenizer) -> None:
    row = sine_table(torch.tensor([3]), 4, 100.0)[0].tolist()
    assert row == pytest.approx([math.sin(3), math.sin(0.3), math.cos(3), math.cos(0.3)])
    places = clip_places((2, 3, 5), 8)
    time, column, line = (sine_table(torch.tensor([v]), w)[0] for v, w in ((1, 8), (4, 4), (2, 4)))
    expected = torch.cat([column, line]) + time
    torch.testing.assert_close(places[-1], expected.float())


def test_saving(tokenizer: LarpTokenizer, clip: torch.Tensor, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = LarpTokenizer.from_pretrained(tmp_path)
    codes = tokenizer.encode(clip)
    assert torch.equal(loaded.decode(codes), tokenizer.decode(codes))
    assert loaded.fingerprint == tokenizer.fingerprint


def test_training_has_gradients_on_both_sides(clip: torch.Tensor) -> None:
    tokenizer = LarpTokenizer(CONFIG).train()
    reconstruction, quantized = tokenizer(clip)
    loss = (reconstruction - clip).square().mean() + sum(quantized.losses.values())
    loss.backward()
    silent = [name for name, p in tokenizer.named_parameters() if p.grad is None]
    assert not silent


def test_mistakes(tokenizer: LarpTokenizer) -> None:
    with pytest.raises(UserError, match="4 frames of 8x8"):
        tokenizer.encode(torch.zeros(1, 3, 5, 8, 8))
    with pytest.raises(UserError, match="12 codes"):
        tokenizer.decode(Codes(torch.zeros(1, 1, 1, 11, dtype=torch.long)))
    with pytest.raises(ConfigError, match="does not tile"):
        replace(CONFIG, patch=(3, 4, 4))
    with pytest.raises(ConfigError, match="divide the width"):
        ViTConfig(width=16, heads=3)
    with pytest.raises(ConfigError, match="multiple of 4"):
        replace(CONFIG, encoder=ViTConfig(width=18, depth=1, heads=2))
