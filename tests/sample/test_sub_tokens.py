"""Decoding by sub-tokens, and under adaLN: the cache, guidance, seeds, settings of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.factorized import FactorizedModel, split
from mmgen.sample.draw import DrawSettings
from mmgen.sample.engine import DecodeSettings, decode, last_step
from mmgen.sample.factorized import FactorizedDecider
from mmgen.sample.guidance import Guidance, guide
from tests.tiny_networks import LABELS, adaptive, factorized, raster

SEEDS = torch.tensor([7, 8])
GREEDY = DrawSettings(temperature=0.0)


def each(*scales: float, draw: DrawSettings = GREEDY) -> tuple[DecodeSettings, ...]:
    return tuple(DecodeSettings(draw, Guidance(scale)) for scale in scales)


def drawn(
    model: FactorizedModel,
    settings: tuple[DecodeSettings, ...],
    labels: Tensor = LABELS,
    seeds: Tensor = SEEDS,
) -> tuple[Tensor, list[list[Tensor]]]:
    """Codes (B, N), and the guided logits of each sub-token, step by step."""
    seen: list[list[Tensor]] = [[] for _ in settings]
    decider = FactorizedDecider(
        model, seeds, settings, trace=lambda level, logits: seen[level].append(logits)
    )
    with torch.inference_mode():
        prefix = model.prefix(labels, any(own.guidance.enabled for own in settings))
    step = last_step(decode(model, prefix, raster(model), "", seeds, decider=decider))
    assert step.logits is None
    return step.codes.flatten(1), seen


@pytest.mark.parametrize("bits", [(2, 4), (3,), (1, 2, 3)])
def test_cached_decoding_says_what_one_pass_says(bits: tuple[int, ...]) -> None:
    model = factorized(bits)
    scales = (2.0, 1.0, 3.0)[: len(bits)]
    codes, seen = drawn(model, each(*scales))
    null = torch.full_like(LABELS, 5)
    with torch.no_grad():
        conditional = model(LABELS, codes, raster(model))
        unconditional = model(null, codes, raster(model))
    for level, scale in enumerate(scales):
        expected = guide(conditional[level], unconditional[level], scale)
        assert torch.allclose(torch.cat(seen[level], 1), expected, atol=1e-4)
        assert torch.equal(split(codes, bits)[level], expected.argmax(-1))


def test_without_guidance_there_is_one_branch() -> None:
    model = factorized()
    alone, _ = drawn(model, each(1.0, 1.0))
    beside, _ = drawn(model, each(1.0, 1.0 + 1e-9))
    assert torch.equal(alone, beside)


def test_a_sub_token_has_its_own_temperature() -> None:
    model, hot = factorized(), DecodeSettings(DrawSettings(temperature=3.0))
    (greedy,), plain = each(1.0), drawn(model, each(1.0, 1.0))[0]
    first = split(drawn(model, (greedy, hot))[0], (2, 4))
    assert torch.equal(first[0][:, 0], split(plain, (2, 4))[0][:, 0])
    assert not torch.equal(first[1], split(plain, (2, 4))[1])


def test_a_picture_depends_on_its_seed_and_not_on_its_batch() -> None:
    model = factorized()
    settings = each(2.0, 1.5, draw=DrawSettings())
    both, _ = drawn(model, settings)
    again, _ = drawn(model, settings)
    alone, _ = drawn(model, settings, LABELS[1:], SEEDS[1:])
    other, _ = drawn(model, settings, LABELS, SEEDS + 1)
    assert torch.equal(both, again) and torch.equal(both[1:], alone)
    assert not torch.equal(both, other)


def test_sub_tokens_do_not_share_their_noise() -> None:
    """With equal logits, equal noise would draw the same number twice."""
    model = factorized((3, 3))
    with torch.no_grad():
        for out in model.head.outs:
            out.weight.zero_()
    first, second = split(drawn(model, each(1.0, 1.0, draw=DrawSettings()))[0], (3, 3))
    assert not torch.equal(first, second)


def test_settings_are_one_for_each_sub_token() -> None:
    with pytest.raises(ConfigError, match="settings for 3 sub-tokens, but a code has 2"):
        FactorizedDecider(factorized(), SEEDS, each(1.0, 1.0, 1.0))


# -- adaLN ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [None, 6])
def test_under_adaln_each_branch_is_told_of_its_own_class(channels: int | None) -> None:
    model = adaptive(code_channels=channels)
    settings = DecodeSettings(GREEDY, Guidance(2.5))
    with torch.inference_mode():
        prefix = model.prefix(LABELS, guided=True)
    logits, codes = [], torch.zeros(0)
    for step in decode(model, prefix, raster(model), "", SEEDS, settings):
        assert step.logits is not None
        logits.append(step.logits)
        codes = step.codes.flatten(1)
    with torch.no_grad():
        conditional = model(LABELS, codes, raster(model))
        unconditional = model(torch.full_like(LABELS, 5), codes, raster(model))
    expected = guide(conditional, unconditional, 2.5)
    assert torch.allclose(torch.cat(logits, 1), expected, atol=1e-4)
    assert torch.equal(codes, expected.argmax(-1))


def test_the_published_guidance_interval_counts_for_each_sub_token() -> None:
    model = factorized()
    scales = each(3.0, 3.0)
    early = tuple(replace(own, guidance=Guidance(3.0, stop=4, unit="steps")) for own in scales)
    (codes, whole), (_, cut) = drawn(model, scales), drawn(model, early)
    assert torch.equal(torch.cat(whole[0][:1], 1), torch.cat(cut[0][:1], 1))
    with torch.no_grad():
        plain = model(LABELS, drawn(model, early)[0], raster(model))
    assert torch.allclose(torch.cat(cut[1], 1)[:, 4:], plain[1][:, 4:], atol=1e-4)
    assert codes.shape == (2, 9)
