"""VQ: identities of the specification (C1), the oracle library, moving averages, revival."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmgen.tokenizers_vis.quantizers import VQ, VQConfig
from mmgen.tokenizers_vis.quantizers.vq import nearest_codes


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small(**options: object) -> VQ:
    torch.manual_seed(1)
    quantizer = VQ(VQConfig(codebook_size=24, channels=6, **options))  # type: ignore[arg-type]
    with torch.no_grad():
        quantizer.codebook.copy_(torch.randn(24, 6))
    return quantizer


def oracle(quantizer: VQ, **options: object) -> torch.nn.Module:
    library = pytest.importorskip("vector_quantize_pytorch")
    other = library.VectorQuantize(
        dim=6, codebook_size=24, rotation_trick=False, threshold_ema_dead_code=0, **options
    )
    codebook = quantizer.codebook.detach()
    with torch.no_grad():
        other._codebook.embed.copy_(codebook[None])
        if "embed_avg" in dict(other._codebook.named_buffers()):
            other._codebook.embed_avg.copy_(codebook[None])
            other._codebook.cluster_size.fill_(1)
    return other.train()


def test_search_is_exact_for_any_chunk_and_takes_the_lowest_on_ties() -> None:
    z, codebook = torch.randn(50, 4), torch.randn(31, 4)
    codebook[20] = codebook[3]
    z[0] = codebook[20]
    naive = (z[:, None] - codebook).square().sum(-1).argmin(1)
    assert naive[0] == 3
    for chunk in (None, 1, 7, 50, 99):
        assert torch.equal(nearest_codes(z, codebook, chunk), naive)
    assert nearest_codes(z[:0], codebook).shape == (0,)


def test_straight_through_and_losses() -> None:
    quantizer = small()
    z = torch.randn(3, 5, 6, requires_grad=True)
    out = quantizer(z)
    (dz,) = torch.autograd.grad(out.quantized.sum(), z, retain_graph=True)
    assert torch.equal(dz, torch.ones_like(z))
    rows = quantizer.codebook[out.indices]
    torch.testing.assert_close(out.losses["codebook"], F.mse_loss(rows, z))
    torch.testing.assert_close(out.losses["commitment"], 0.25 * F.mse_loss(rows, z))
    dz, d_rows = torch.autograd.grad(sum(out.losses.values()), [z, quantizer.codebook])
    torch.testing.assert_close(dz, 0.25 * 2 * (z - rows).detach() / z.numel())
    chosen = torch.zeros(24, dtype=torch.bool)
    chosen[out.indices.flatten()] = True
    assert torch.equal(d_rows.abs().sum(1) > 0, chosen)  # unlike IBQ
    assert not chosen.all()
    assert quantizer.eval()(z).losses == {}


def test_normalised_gradient_has_the_jacobian_of_the_normalisation() -> None:
    quantizer = small(normalize=True)
    z = (3 * torch.randn(9, 6)).requires_grad_()
    out = quantizer(z)
    torch.testing.assert_close(out.quantized.norm(dim=-1), torch.ones(9))
    g = torch.randn(9, 6)
    (dz,) = torch.autograd.grad((out.quantized * g).sum(), z)
    u = F.normalize(z.detach(), dim=-1)
    expected = (g - (g * u).sum(-1, keepdim=True) * u) / z.detach().norm(dim=-1, keepdim=True)
    torch.testing.assert_close(dz, expected)
    cosine = F.normalize(z, dim=-1) @ F.normalize(quantizer.codebook, dim=-1).T
    assert torch.equal(out.indices, cosine.argmax(1))


@pytest.mark.parametrize("normalize", [False, True])
def test_moving_averages_agree_with_the_library(normalize: bool) -> None:
    quantizer = small(update="ema", normalize=normalize, decay=0.8)
    if normalize:
        quantizer.codebook.copy_(F.normalize(quantizer.codebook, dim=-1))
    quantizer.cluster_sum.copy_(quantizer.codebook)
    other = oracle(quantizer, decay=0.8, eps=1e-5, commitment_weight=0.25, use_cosine_sim=normalize)
    for step in range(4):
        z = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(step))
        out = quantizer(z)
        theirs, indices, loss = other(z)
        assert set(out.losses) == {"commitment"}
        assert torch.equal(out.indices, indices)
        torch.testing.assert_close(out.quantized, theirs, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(out.losses["commitment"], loss.squeeze())
        torch.testing.assert_close(
            quantizer.codebook, other._codebook.embed[0], atol=1e-6, rtol=1e-5
        )
    before = quantizer.codebook.clone()
    quantizer.eval()(z)
    assert torch.equal(quantizer.codebook, before)


def test_gradient_codebook_agrees_with_the_library() -> None:
    quantizer = small(commitment_weight=1.0)
    other = oracle(quantizer, learnable_codebook=True, ema_update=False, commitment_weight=1.0)
    z = torch.randn(2, 40, 6, requires_grad=True)
    out = quantizer(z)
    theirs, indices, loss = other(z)
    assert torch.equal(out.indices, indices)
    total = sum(out.losses.values())
    torch.testing.assert_close(total, 2 * loss.squeeze())  # one undetached error there, two here
    ours = torch.autograd.grad(total, [z, quantizer.codebook])
    library = torch.autograd.grad(loss, [z, other._codebook.embed])
    torch.testing.assert_close(ours[0], library[0])
    torch.testing.assert_close(ours[1], library[1][0])
    torch.testing.assert_close(out.quantized, theirs)


def test_entropy_loss_uses_distances() -> None:
    quantizer = small(entropy_weight=0.1, entropy_temperature=0.5)
    z = torch.randn(30, 6)
    distances = (z[:, None] - quantizer.codebook).square().sum(-1)
    log_p = (-distances / 0.5).log_softmax(1)
    mean = log_p.exp().mean(0)
    sample = -(log_p.exp() * log_p).sum(1).mean()
    average = -(mean * (mean + 1e-5).log()).sum()
    loss = quantizer(z).losses["entropy"]
    torch.testing.assert_close(loss, 0.1 * (sample - average))
    ours = torch.autograd.grad(loss, quantizer.codebook)[0]
    theirs = torch.autograd.grad(0.1 * (sample - average), quantizer.codebook)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_revival_replaces_exactly_the_idle_codes(update: str) -> None:
    quantizer = small(update=update, revive_after=2)
    with torch.no_grad():
        quantizer.codebook[4:] += 1000  # never the nearest
    z = torch.randn(40, 6)
    generator = torch.Generator().manual_seed(0)
    quantizer(z)
    assert len(quantizer.revive(z, generator)) == 0  # idle for one batch, not for two
    used = quantizer(z).indices.unique()
    idle = torch.ones(24, dtype=torch.bool)
    idle[used] = False
    before = quantizer.codebook.detach().clone()
    assert torch.equal(quantizer.revive(z, generator), idle.nonzero()[:, 0]) and idle.any()
    after = quantizer.codebook.detach()
    assert torch.equal(after[~idle], before[~idle])
    assert all((row == z).all(1).any() for row in after[idle])
    assert len(after[idle].unique(dim=0)) == int(idle.sum())
    if update == "ema":
        assert torch.equal(quantizer.cluster_sum[idle], after[idle])
        assert torch.equal(quantizer.cluster_size[idle], torch.ones(int(idle.sum())))
    assert int(quantizer.idle[idle].sum()) == 0
    assert len(quantizer(z).indices.unique()) > len(used)


def test_revival_is_off_by_default_and_reproducible() -> None:
    quantizer = small()
    assert set(quantizer.state_dict()) == {"codebook"}
    assert len(quantizer.revive(torch.randn(4, 6), torch.Generator())) == 0
    twice = []
    for _ in range(2):
        quantizer.initialise(torch.arange(60.0).view(10, 6), torch.Generator().manual_seed(5))
        twice.append(quantizer.codebook.detach().clone())
    assert torch.equal(*twice)
    assert len(twice[0].unique(dim=0)) == 24  # 10 vectors for 24 codes: repeats are moved apart


def test_saved_state_continues_exactly() -> None:
    first = small(update="ema", revive_after=2)
    first(torch.randn(40, 6))
    second = small(update="ema", revive_after=2)
    second.load_state_dict(first.state_dict())
    z = torch.randn(40, 6)
    first(z)
    second(z)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_half_precision_weights_choose_in_full_precision() -> None:
    quantizer = small().half().eval()
    z = torch.randn(9, 6).half()
    expected = nearest_codes(z.float(), quantizer.codebook.float())
    assert torch.equal(quantizer.assign(z), expected)
    out = quantizer(z)
    assert torch.equal(out.indices, expected)
    assert out.quantized.dtype == torch.half


@pytest.mark.parametrize("value", [0.0, 3.0, 1e4])
def test_a_batch_without_spread_revives_codes_that_differ(value: float) -> None:
    quantizer = small(revive_after=1)
    z = torch.full((40, 6), value)
    with torch.no_grad():
        quantizer.codebook[0] = value  # the only one in use, and what a revived code would equal
    quantizer(z)
    assert len(quantizer.revive(z, torch.Generator().manual_seed(0))) == 23
    assert len(quantizer.codebook.unique(dim=0)) == 24
