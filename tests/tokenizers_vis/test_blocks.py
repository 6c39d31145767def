"""Pieces that published networks need: the other family, conditioned norms, the KL bottleneck."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mmgen.errors import ConfigError, UserError
from mmgen.tokenizers_vis.blocks import AdaptiveNorm, DepthToSpace, Downsample, SpatialNorm
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.protocol import Codes, number_of_codes
from mmgen.tokenizers_vis.quantizers import KL, FSQConfig, KLConfig, LFQConfig

SMALL = ConvTokenizerConfig(
    quantizer=FSQConfig(levels=(4, 3, 3)),
    widths=(8, 16),
    res_blocks=1,
    decoder_res_blocks=2,
    attention_levels=(1,),
    z_channels=3,
    norm_groups=4,
)


def tokenizer(**changes: Any) -> ConvTokenizer:
    return ConvTokenizer(replace(SMALL, **changes)).eval()


def magvit2(**changes: Any) -> ConvTokenizer:
    plain: dict[str, Any] = {"attention_levels": (), "family": "magvit2"}
    return tokenizer(quantizer=LFQConfig(channels=3), **plain, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"stem_width": 12},
        {"decoder_widths": (4, 8)},
        {"decoder_attention_levels": ()},
        {"attention_levels": (), "decoder_attention_levels": (0,)},
        {"decoder_norm": "spatial"},
        {"quantizer": KLConfig(channels=5)},
    ],
    ids=str,
)
def test_options_make_networks_that_can_be_saved(changes: dict[str, Any], tmp_path: Path) -> None:
    model, x = tokenizer(**changes), torch.rand(2, 3, 4, 8)
    model.save_pretrained(tmp_path)
    loaded = ConvTokenizer.from_pretrained(tmp_path)
    assert loaded.config == model.config
    with torch.no_grad():
        codes = model.encode(x)
        assert torch.equal(loaded.decode(codes), model.decode(codes))
        assert model.decode(codes).shape == x.shape


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decoder_widths": (8,)}, "another number of levels"),
        ({"decoder_widths": (8, 6)}, "Width 6"),
        ({"stem_width": 6}, "Width 6"),
        ({"decoder_attention_levels": (2,)}, "levels that exist"),
        ({"family": "magvit"}, "family"),
    ],
    ids=str,
)
def test_options_that_make_no_network(changes: dict[str, Any], said: str) -> None:
    from mmgen.config import from_dict, to_dict

    with pytest.raises(ConfigError, match=said):
        from_dict(ConvTokenizerConfig, {**to_dict(SMALL), **changes})


def test_options_at_their_defaults_leave_the_fingerprint_alone() -> None:
    from mmgen.config import to_dict, without_later

    old = {"quantizer", "patch_size", "widths", "res_blocks", "decoder_res_blocks"}
    old |= {"attention_levels", "middle_attention", "z_channels", "norm_groups"}
    assert without_later(SMALL).keys() == old < to_dict(SMALL).keys()
    assert without_later(replace(SMALL, stem_width=8)).keys() == old | {"stem_width"}


# -- Open-MAGVIT2 --------------------------------------------------------------------------------


def test_the_other_family_has_other_pieces() -> None:
    names = magvit2().state_dict()
    assert not any("attention" in name or name.startswith(("to_", "from_")) for name in names)
    assert "encoder.levels.0.blocks.0.conv1.bias" not in names
    assert "decoder.levels.0.adapt.scale.weight" in names


def test_depth_to_space_takes_places_from_the_outer_factor() -> None:
    layer = DepthToSpace(2)
    x = torch.rand(1, 2, 3, 3)
    with torch.no_grad():
        wide, out = layer.conv(x), layer(x)
    for dy in (0, 1):
        for dx in (0, 1):
            first = (dy * 2 + dx) * 2
            assert torch.equal(out[:, :, dy::2, dx::2], wide[:, first : first + 2])


def test_symmetric_downsampling_pads_all_sides() -> None:
    layer, x = Downsample(2, symmetric=True), torch.rand(1, 2, 4, 6)
    with torch.no_grad():
        expected = F.conv2d(x, layer.conv.weight, layer.conv.bias, stride=2, padding=1)
        assert torch.equal(layer(x), expected) and expected.shape == (1, 2, 2, 3)


def test_the_adaptive_norm_uses_the_codes_statistics() -> None:
    layer, x, code = AdaptiveNorm(2, 4, 3), torch.randn(1, 4, 6, 6), torch.randn(1, 3, 2, 2)
    with torch.no_grad():
        layer.scale.weight.copy_(torch.eye(4, 3))
        layer.shift.weight.copy_(2 * torch.eye(4, 3))
        layer.scale.bias.zero_()
        layer.shift.bias.zero_()
        out = layer(x, code)
        shuffled = layer(x, code.flatten(2)[:, :, [2, 0, 3, 1]].view(1, 3, 2, 2))
    normal = F.group_norm(x, 2, eps=1e-6)
    deviation = (code.flatten(2).var(-1, unbiased=True) + 1e-6).sqrt()
    for channel in range(3):
        expected = normal[0, channel] * deviation[0, channel] + 2 * code[0, channel].mean()
        assert torch.allclose(out[0, channel], expected, atol=1e-5)
    assert torch.allclose(out, shuffled, atol=1e-6)


def test_one_code_has_no_statistics() -> None:
    model = magvit2()
    with torch.no_grad(), pytest.raises(UserError, match="2 codes or more"):
        model.decode(model.encode(torch.zeros(1, 3, 2, 2)))


def test_the_spatial_norm_follows_the_code_place_by_place() -> None:
    layer, x, code = SpatialNorm(2, 4, 3), torch.randn(1, 4, 4, 4), torch.randn(1, 3, 2, 2)
    changed = code.clone()
    changed[:, :, 0, 0] += 1
    with torch.no_grad():
        moved = (layer(x, changed) - layer(x, code)).abs().amax(1)[0] > 0
    assert moved.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


# -- KL ------------------------------------------------------------------------------------------


def test_latents_are_scaled_samples_of_the_posterior() -> None:
    model = tokenizer(quantizer=KLConfig(channels=5, scale=0.25))
    assert isinstance(model.quantizer, KL) and model.codebook_size is None and model.channels == 5
    x, noise = torch.rand(2, 3, 4, 8), torch.randn(2, 1, 2, 4, 5)
    with torch.no_grad():
        mean, log_variance = model.features(x).split(5, dim=-1)
        sample, mode = model.encode(x, noise), model.encode(x)
        assert sample.latents is not None and mode.latents is not None and mode.indices is None
        assert torch.allclose(mode.latents[:, 0], 0.25 * mean)
        expected = 0.25 * (mean + (0.5 * log_variance).exp() * noise[:, 0])
        assert torch.allclose(sample.latents[:, 0], expected, atol=1e-6)
        assert torch.allclose(model.decode(mode), model(x)[0], atol=1e-5)


def test_log_variances_are_clamped() -> None:
    bottleneck = KL(KLConfig(channels=1))
    deviations = bottleneck.posterior(torch.tensor([[0.0, -99.0], [0.0, 99.0]]))[1]
    assert torch.allclose(deviations[:, 0].log(), torch.tensor([-15.0, 10.0]))


def test_there_are_no_codes_in_latents() -> None:
    model = tokenizer(quantizer=KLConfig(channels=5))
    for fails in (
        lambda: model.decode(Codes(torch.zeros(1, 1, 2, 2, dtype=torch.long))),
        lambda: model.embed(torch.zeros(1, dtype=torch.long)),
        lambda: model.quantizer.assign(torch.zeros(1, 10)),
        lambda: number_of_codes(model),
    ):
        with pytest.raises(UserError, match="latents"):
            fails()
    with pytest.raises(ConfigError, match="KL bottleneck"):
        KLConfig(channels=0)
    with pytest.raises(ConfigError, match="KL bottleneck"):
        KLConfig(scale=0.0)
