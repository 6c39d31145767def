"""LFQ: identities of the specification (C3) and the oracle library."""

from __future__ import annotations

import pytest
import torch

from mmgen.tokenizers_vis.quantizers import LFQ, LFQConfig


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_round_trip_of_every_code_and_little_endian_order() -> None:
    quantizer = LFQ(LFQConfig(channels=9))
    indices = torch.arange(512)
    codes = quantizer.embed(indices)
    assert torch.equal(quantizer.assign(codes), indices)
    assert torch.equal(quantizer(codes).indices, indices)
    only_first = torch.tensor([1.0] + [-1.0] * 8)
    assert int(quantizer.assign(only_first)) == 1  # channel 0 is the lowest bit
    assert torch.equal(quantizer.embed(torch.tensor(256)), only_first.flip(0))
    order = torch.randperm(9)
    bits = codes[:, order].gt(0)
    assert torch.equal(quantizer.assign(codes[:, order]), (bits * 2 ** torch.arange(9)).sum(1))


def test_zero_becomes_minus_one_and_the_gradient_passes() -> None:
    quantizer = LFQ(LFQConfig(channels=3))
    z = torch.tensor([[0.0, 0.5, -2.0]], requires_grad=True)
    out = quantizer(z)
    assert out.quantized.tolist() == [[-1.0, 1.0, -1.0]]
    assert torch.equal(torch.autograd.grad(out.quantized.sum(), z)[0], torch.ones_like(z))
    assert quantizer.eval()(z).losses == {}


def test_losses_agree_with_the_library() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    options = {"entropy_loss_weight": 1.0, "commitment_loss_weight": 1.0, "diversity_gamma": 1.0}
    other = library.LFQ(dim=5, codebook_size=32, **options).train()
    x = 0.02 * torch.randn(2, 300, 5, generator=torch.Generator().manual_seed(0))
    (_, indices, _), theirs = other(x, inv_temperature=100.0, return_loss_breakdown=True)
    common = {"channels": 5, "entropy_weight": 1.0, "commitment_weight": 1.0}
    sample = LFQ(LFQConfig(**common, batch_weight=0.0))(x)
    batch = LFQ(LFQConfig(**common, sample_weight=0.0))(x)
    reversed_bits = LFQ(LFQConfig(channels=5)).embed(indices).flip(-1)
    assert torch.equal(LFQ(LFQConfig(channels=5)).assign(reversed_bits), sample.indices)
    torch.testing.assert_close(
        sample.losses["entropy"], theirs.per_sample_entropy, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(-batch.losses["entropy"], theirs.batch_entropy, atol=5e-4, rtol=5e-4)
    torch.testing.assert_close(sample.losses["commitment"], theirs.commitment, atol=1e-5, rtol=1e-5)


def test_entropy_per_sample_is_the_sum_over_independent_bits() -> None:
    h = 0.01 * torch.randn(200, 6, dtype=torch.float64).float()
    config = LFQConfig(channels=6, entropy_weight=1.0, batch_weight=0.0)
    loss = LFQ(config)(h).losses["entropy"]
    p = torch.sigmoid(400 * h.double())
    bits = -(p * p.log() + (1 - p) * (1 - p).log())
    torch.testing.assert_close(loss.double(), bits.sum(1).mean(), atol=1e-5, rtol=1e-5)


def test_entropy_is_lowest_for_sure_and_evenly_spread_codes() -> None:
    quantizer = LFQ(LFQConfig(channels=4, entropy_weight=1.0))
    spread = quantizer.embed(torch.arange(16))
    loss = quantizer(spread).losses["entropy"]
    assert float(loss) == pytest.approx(-torch.tensor(16.0).log().item(), abs=1e-3)
    assert quantizer(spread[:1].expand(16, 4)).losses["entropy"] > loss
