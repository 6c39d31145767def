"""The KL bottleneck in training, and the statistics of latents, against torch.distributions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.overrides import TorchFunctionMode

from mmgen.errors import ConfigError, UserError
from mmgen.tokenizers_vis.latents import LatentStatistics
from mmgen.tokenizers_vis.protocol import Codes
from mmgen.tokenizers_vis.quantizers import KL, KLConfig, divergence


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@settings(max_examples=30, deadline=None)
@given(st.floats(-50, 50), st.floats(1e-3, 50))
def test_the_divergence_is_that_from_a_standard_normal(mean: float, deviation: float) -> None:
    at, wide = torch.tensor(mean).double(), torch.tensor(deviation).double()
    wanted = kl_divergence(Normal(at, wide), Normal(0.0, 1.0))
    torch.testing.assert_close(divergence(at, wide), wanted)


def test_training_draws_and_evaluation_takes_the_mean() -> None:
    bottleneck, z = KL(KLConfig(channels=3, weight=0.5)), torch.randn(4, 2, 2, 6)
    mean, deviation = bottleneck.posterior(z)
    bottleneck.eval()
    settled = bottleneck(z)
    assert torch.equal(settled.quantized, mean) and not settled.losses
    bottleneck.train()
    draws = torch.stack([bottleneck(z).quantized for _ in range(2000)])
    torch.testing.assert_close(draws.mean(0), mean, atol=0.2, rtol=0)
    assert ((draws.std(0) / deviation) - 1).abs().max() < 0.12
    wanted = 0.5 * kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(bottleneck(z).losses["kl"], wanted)


def test_draws_come_from_the_seed_and_carry_gradients() -> None:
    bottleneck = KL(KLConfig(channels=3)).train()
    z = torch.randn(2, 2, 2, 6, requires_grad=True)
    torch.manual_seed(5)
    first, noise_state = bottleneck(z).quantized, torch.get_rng_state()
    torch.manual_seed(5)
    assert torch.equal(bottleneck(z).quantized, first)
    assert torch.equal(torch.get_rng_state(), noise_state)
    assert not torch.equal(bottleneck(z).quantized, first)
    first.sum().backward()
    assert z.grad is not None and (z.grad[..., :3] == 1).all() and (z.grad[..., 3:] != 0).all()


def test_half_precision_does_not_touch_the_posterior() -> None:
    bottleneck, z = KL(KLConfig(channels=2)).train(), torch.full((1, 4), 30.0).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = bottleneck(z)
    assert out.quantized.dtype == torch.bfloat16 and out.losses["kl"].dtype == torch.float32


def test_weights_that_make_no_sense() -> None:
    for weight in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="needs a weight from 0 up"):
            KLConfig(weight=weight)


def test_statistics_are_those_of_drawn_latents() -> None:
    scale, width, shift = 0.25, torch.tensor([0.5, 2.0, 1.0]), torch.tensor([0.3, -1.0, 0.0])
    means = torch.randn(3000, 1, 2, 2, 3) * width + shift
    deviations = torch.rand(3000, 1, 2, 2, 3) * width
    statistics = LatentStatistics(scale)
    for part in range(0, 3000, 1000):
        some = slice(part, part + 1000)
        statistics.add(Codes(None, means[some] * scale, deviations[some] * scale))
    drawn = (means + deviations * torch.randn_like(means)) * scale
    assert statistics.places == 12000
    assert abs(statistics.mean - float(drawn.mean())) < 5e-3
    assert abs(statistics.std / float(drawn.std()) - 1) < 0.01
    each = drawn.reshape(-1, 3).double().std(0)
    torch.testing.assert_close(statistics.channel_std, each, rtol=0.02, atol=0)
    assert abs(statistics.deviation - float((deviations * scale).square().mean().sqrt())) < 1e-6
    nats = kl_divergence(Normal(means, deviations), Normal(0.0, 1.0)).reshape(-1, 3).mean(0)
    torch.testing.assert_close(statistics.nats, nats.double(), rtol=1e-4, atol=0)
    assert statistics.idle == 0


def test_of_statistics_only_sums_leave_the_device() -> None:
    moved: list[int] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func in (Tensor.cpu, Tensor.to, Tensor.tolist, Tensor.numpy):
                moved.append(args[0].numel())
            return func(*args, **(kwargs or {}))

    latents = torch.rand(8, 1, 4, 4, 3)
    with Watch():
        LatentStatistics().add(Codes(None, latents, latents))
    assert moved and max(moved) <= 4 * 3


def test_channels_at_the_prior_are_idle() -> None:
    means, deviations = torch.randn(500, 1, 1, 1, 4), torch.full((500, 1, 1, 1, 4), 0.1)
    means[..., 1:3], deviations[..., 1:3] = 0.01, 0.99
    statistics = LatentStatistics()
    statistics.add(Codes(None, means, deviations))
    assert statistics.idle == 2


def test_codes_without_a_posterior_are_refused() -> None:
    for codes in (Codes(torch.zeros(1, 1, 1, 1).long()), Codes(None, torch.zeros(1, 1, 1, 1, 2))):
        with pytest.raises(UserError, match="no posterior to measure"):
            LatentStatistics().add(codes)
