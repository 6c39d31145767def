"""The SEED tokenizer: the order of its codes, its two heads, its errors, its tower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_seed import QFORMER, V1, V2, tiny_seed
from torch import nn

from mmgen.errors import ConfigError, UserError
from mmgen.tokenizers_vis.eva import EvaConfig, build_eva
from mmgen.tokenizers_vis.protocol import Codes, VisualTokenizer
from mmgen.tokenizers_vis.seed import SeedConfig, SeedTokenizer

PIXELS = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("config", [V1, V2])
def test_pictures_to_codes_to_embeddings(config: SeedConfig, tmp_path: Path) -> None:
    tokenizer = tiny_seed(config)
    assert isinstance(tokenizer, VisualTokenizer)
    codes = tokenizer.encode(PIXELS)
    assert codes.indices is not None
    assert codes.indices.shape == (3, *tokenizer.grid_for((28, 28)))
    assert min(len(row.unique()) for row in codes.indices) > 1  # not one code for everything
    embedding = tokenizer.to_embedding(codes)
    assert embedding.shape == (3, *config.embedding_shape)
    tokenizer.save_pretrained(tmp_path)
    again = SeedTokenizer.from_pretrained(tmp_path)
    assert torch.equal(again.encode(PIXELS).indices, codes.indices)  # type: ignore[arg-type]
    assert torch.equal(again.to_embedding(codes), embedding)


def test_codes_are_ordered_from_left_to_right() -> None:
    tokenizer = tiny_seed()
    before = tokenizer.encode(PIXELS).indices
    with torch.no_grad():
        tokenizer.queries[:, 5] = 3 * torch.randn(24)
    after = tokenizer.encode(PIXELS).indices
    assert before is not None and after is not None
    assert torch.equal(before[..., :5], after[..., :5])
    assert not torch.equal(before[..., 5:], after[..., 5:])


def test_the_fingerprint_is_of_what_makes_the_codes() -> None:
    tokenizer = tiny_seed()
    known = tokenizer.fingerprint
    with torch.no_grad():
        tokenizer.head.get_parameter("out.bias").add_(1)
        tokenizer.decoder.position.add_(1)
    assert tokenizer.fingerprint == known
    with torch.no_grad():
        tokenizer.vision_norm.bias.add_(1)
    assert tokenizer.fingerprint != known


def test_half_precision() -> None:
    tokenizer = tiny_seed().to(torch.bfloat16)
    codes = tokenizer.encode(PIXELS)
    assert tokenizer.to_embedding(codes).dtype == torch.bfloat16


def test_what_cannot_be_is_refused() -> None:
    tokenizer = tiny_seed()
    with pytest.raises(UserError, match="32x28 does not fit this tokenizer; it takes 28x28"):
        tokenizer.encode(torch.zeros(1, 3, 28, 32))
    with pytest.raises(UserError, match=r"indices of the grid \(1, 1, 8\)"):
        tokenizer.to_embedding(Codes(torch.zeros(1, 1, 1, 7, dtype=torch.long)))
    with pytest.raises(UserError, match="diffusion"):
        tokenizer.decode(Codes(torch.zeros(1, 1, 1, 8, dtype=torch.long)))
    blind = tiny_seed(replace(V2, vision=None))
    with pytest.raises(UserError, match=r"no image tower; import it together with eva_vit_g\.pth"):
        blind.encode(PIXELS)
    assert blind.encode_features(torch.randn(2, 5, 20)).indices.shape == (2, 1, 1, 8)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="20 channels, its Q-Former reads 30"):
        replace(V2, qformer=replace(QFORMER, memory_width=30))
    with pytest.raises(ConfigError, match="must be 24 wide"):
        replace(V1, head=replace(V1.head, qformer=QFORMER))
    with pytest.raises(ConfigError, match="decoder_heads 5 do not divide 24"):
        replace(V2, decoder_heads=5)
    with pytest.raises(ConfigError, match="patches of 15 that divide"):
        EvaConfig(patch_size=15)
    with pytest.raises(ConfigError, match="at least 1"):
        EvaConfig(depth=0)


def test_the_published_norms() -> None:
    # The references do not see the epsilon inside the Q-Former; here it is read.
    with torch.device("meta"):
        network = SeedTokenizer(SeedConfig())
    found = {
        (name.split(".")[0], module.eps)
        for name, module in network.named_modules()
        if isinstance(module, nn.LayerNorm)
    }
    assert found == {
        ("vision", 1e-6),
        ("vision_norm", 1e-5),
        ("qformer", 1e-12),
        ("decoder", 1e-6),
        ("reconstructor", 1e-6),
    }


def test_the_tower_is_that_of_timm_without_its_end() -> None:
    import timm

    with torch.device("meta"):
        tower = build_eva(EvaConfig()).state_dict()
        whole = timm.create_model("eva_giant_patch14_clip_224", pretrained=False).state_dict()
    kept = {
        name: tensor.shape
        for name, tensor in whole.items()
        if not name.startswith(("blocks.39.", "norm.", "fc_norm.", "head."))
    }
    assert {name: tensor.shape for name, tensor in tower.items()} == kept
