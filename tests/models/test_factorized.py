"""Codes in sub-tokens, and classes that speak through adaLN: who hears whom, training, saving."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmgen.components import load_component
from mmgen.errors import ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.conditional import Tap
from mmgen.models.conditions import FeatureConfig
from mmgen.models.factorized import FactorizedModel, join, split
from tests.tiny_networks import LABELS, adaptive, codes_of, factorized, raster


@pytest.mark.parametrize("bits", [(6, 12), (2, 4), (3,), (1, 2, 3)])
def test_sub_tokens_are_bits_the_lowest_first(bits: tuple[int, ...]) -> None:
    codes = torch.arange(min(2 ** sum(bits), 5000))
    parts = split(codes, bits)
    assert torch.equal(join(parts, bits), codes)
    assert torch.equal(parts[0], codes % 2 ** bits[0])
    assert all(int(part.max()) < 2**count for part, count in zip(parts, bits))


@pytest.mark.parametrize("bits", [(2, 4), (3,), (1, 2, 3)])
def test_a_sub_token_hears_what_came_before_it(bits: tuple[int, ...]) -> None:
    model = factorized(bits)
    codes, plan = codes_of(model), raster(model)
    with torch.no_grad():
        before = model(LABELS, codes, plan)
        for slot in range(9):
            for level, count in enumerate(bits):
                moved = [part.clone() for part in split(codes, bits)]
                moved[level][:, slot] = (moved[level][:, slot] + 1) % 2**count
                after = model(LABELS, join(tuple(moved), bits), plan)
                for heard, (a, b) in enumerate(zip(after, before)):
                    change = (a - b).abs().amax((0, 2))
                    assert change[:slot].sum() < 1e-5
                    assert (change[slot] > 1e-5) == (heard > level)
                    assert (change[slot + 1 :] > 1e-6).all()


def test_the_loss_is_the_sum_over_sub_tokens_and_counts_pictures() -> None:
    model = factorized()
    codes, plan = codes_of(model), raster(model)
    logits, targets = model(LABELS, codes, plan), split(codes, (2, 4))
    each = [F.cross_entropy(z.transpose(1, 2), t) for z, t in zip(logits, targets)]
    assert torch.allclose(model.loss(LABELS, codes, plan), torch.stack(each).sum())
    alone = model.loss(LABELS[1:], codes[1:], plan)
    assert torch.allclose(model.loss(LABELS, codes, plan, torch.tensor([0.0, 1.0])), alone)
    model.loss(LABELS, codes, plan).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused


def test_outputs_begin_at_zero() -> None:
    torch.manual_seed(0)
    config = factorized().config
    model = FactorizedModel(config)
    logits = model(LABELS, codes_of(model), raster(model))
    assert not any(z.any() for z in logits)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"codebook_size": 32}, r"the 32 codes together, not \(2, 4\)"),
        ({"bits": ()}, "1 or more each"),
        ({"bits": (0, 6)}, "1 or more each"),
        ({"taps": (Tap("x", 2), Tap("y", 2))}, "one tap"),
        ({"backbone": BackboneConfig(width=32, depth=2, heads=2, adaln=True)}, "no adaLN"),
    ],
)
def test_wrong_sizes_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        factorized(**changes)  # type: ignore[arg-type]


def test_a_code_has_no_logits() -> None:
    with pytest.raises(ConfigError, match="sub-tokens"):
        factorized().logits(torch.zeros(1, 1, 32))


@pytest.mark.parametrize("make", [factorized, adaptive, lambda: adaptive(code_channels=6)])
def test_a_saved_model_says_the_same(make, tmp_path: Path) -> None:
    model = make()
    codes, plan = codes_of(model), raster(model)
    model.save_pretrained(tmp_path / "transformer")
    again = load_component(tmp_path / "transformer")
    assert again.config == model.config and again.fingerprint == model.fingerprint
    with torch.no_grad():
        one, other = again(LABELS, codes, plan), model(LABELS, codes, plan)
    assert all(torch.equal(a, b) for a, b in zip(one, other))


# -- adaLN ---------------------------------------------------------------------------------------


def test_the_class_reaches_every_row_through_adaln_alone() -> None:
    model = adaptive()
    codes, plan = codes_of(model), raster(model)
    with torch.no_grad():
        rows = model.sequence(LABELS, codes, plan)
        other = model.sequence(LABELS.flip(0), codes, plan)
        rows.told = other.told  # the rows of one class, told of another
        change = model.run(rows)["x"] - model.run(model.sequence(LABELS, codes, plan))["x"]
    assert (change.abs().amax(2) > 1e-3).all()


def test_a_model_without_adaln_has_no_weights_for_it() -> None:
    names = set(factorized().state_dict())
    assert not [name for name in names if "modulation" in name or "last_norm" in name]
    assert {"last_norm.norm.weight", "backbone.blocks.0.attention_norm.weight"} <= set(
        adaptive().state_dict()
    )


def test_codes_enter_as_vectors_of_a_codebook() -> None:
    model = adaptive(code_channels=6)
    embed = model.code_embedding
    hidden = F.linear(embed.codebook.weight, embed.inner.weight, embed.inner.bias)
    expected = F.linear(F.gelu(hidden, approximate="tanh"), embed.out.weight, embed.out.bias)
    assert torch.allclose(embed(torch.arange(20)), expected)


def test_adaln_needs_classes() -> None:
    with pytest.raises(ConfigError, match="kind 'class'"):
        adaptive(condition=FeatureConfig(channels=8, rows=2))
