"""FSQ: identities of the specification (C2) and the oracle library."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.tokenizers_vis.quantizers import FSQ, FSQConfig


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


Variant = Literal["paper", "atanh"]
LEVELS = [(8, 6, 5), (3,), (4, 4, 3, 2), (7, 5, 5)]


@pytest.mark.parametrize("variant", ["paper", "atanh"])
@pytest.mark.parametrize("levels", LEVELS)
def test_codes_and_indices(levels: tuple[int, ...], variant: Variant) -> None:
    quantizer = FSQ(FSQConfig(levels=levels, variant=variant))
    indices = torch.arange(quantizer.codebook_size)
    codes = quantizer.embed(indices)
    assert torch.equal(quantizer.indices_of(codes), indices)
    assert len(codes.unique(dim=0)) == quantizer.codebook_size
    assert codes.abs().max() <= 1
    digits = list(itertools.product(*(range(level) for level in reversed(levels))))
    expected = torch.tensor([row[::-1] for row in digits])  # the first channel is the fastest
    assert torch.equal(quantizer.digits(indices), expected)
    half = torch.tensor([level // 2 for level in levels])
    torch.testing.assert_close(codes, (expected - half) / half)


@pytest.mark.parametrize("variant", ["paper", "atanh"])
@pytest.mark.parametrize("level", [2, 3, 4, 5, 8, 9, 255, 1000])
def test_digits_rise_from_one_end_to_the_other(level: int, variant: Variant) -> None:
    quantizer = FSQ(FSQConfig(levels=(level,), variant=variant))
    z = torch.cat([torch.tensor([-1e4]), torch.linspace(-5, 5, 2001), torch.tensor([1e4])])
    digits = quantizer.assign(z[:, None])
    assert int(digits[0]) == 0
    assert int(digits[-1]) == level - 1
    assert (digits.diff() >= 0).all()
    assert int(quantizer.assign(torch.zeros(1, 1))) == level // 2  # zero is the code 0


@pytest.mark.parametrize("levels", [(8, 6, 5), (7, 5, 5, 5, 5), (8, 5, 5, 5)])
def test_agrees_with_the_library(levels: tuple[int, ...]) -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    other, quantizer = library.FSQ(list(levels)), FSQ(FSQConfig(levels=levels))
    z = (2 * torch.randn(4, 500, len(levels))).requires_grad_()
    codes, indices = other(z)
    out = quantizer(z)
    assert torch.equal(out.indices, indices.long())
    torch.testing.assert_close(out.quantized, codes)
    torch.testing.assert_close(quantizer.embed(out.indices), other.indices_to_codes(indices))
    g = torch.randn_like(z)
    ours = torch.autograd.grad((out.quantized * g).sum(), z)[0]
    theirs = torch.autograd.grad((codes * g).sum(), z)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_the_variants_differ_in_few_digits() -> None:
    levels = (8, 6, 4)
    z = 2 * torch.randn(20000, 3, generator=torch.Generator().manual_seed(0))
    digits = []
    for variant in ("paper", "atanh"):
        quantizer = FSQ(FSQConfig(levels=levels, variant=variant))
        digits.append(quantizer.digits(quantizer.assign(z)))
    share = (digits[0] != digits[1]).double().mean()
    assert 1e-4 < share < 5e-3


@settings(max_examples=25, deadline=None)
@given(levels=st.lists(st.integers(2, 12), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_forward_value_is_the_embedding_of_its_index(levels: list[int], seed: int) -> None:
    quantizer = FSQ(FSQConfig(levels=tuple(levels)))
    z = 3 * torch.randn(20, len(levels), generator=torch.Generator().manual_seed(seed))
    out = quantizer(z)
    assert torch.equal(out.quantized, quantizer.embed(out.indices))
    assert torch.equal(quantizer.assign(z), out.indices)
    assert out.losses == {}
    assert list(quantizer.parameters()) == []
    assert not quantizer.state_dict()
