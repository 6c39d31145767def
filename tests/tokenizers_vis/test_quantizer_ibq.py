"""IBQ: the straight-through one-hot written out in full, closed form, identities (A2, C4)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmgen.tokenizers_vis.quantizers import IBQ, VQ, IBQConfig, VQConfig
from mmgen.tokenizers_vis.quantizers import softmax as softmax_module
from mmgen.tokenizers_vis.quantizers.ibq import backpropagated_codes, largest_dot


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pair(rows: int, codes: int, width: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    codebook = torch.randn(codes, width, generator=generator, dtype=torch.float64)
    return z.requires_grad_(), codebook.requires_grad_()


def one_hot_codes(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The official form, with every (N, K) table written out."""
    soft = (z @ codebook.T).softmax(1)
    indices = soft.argmax(1)
    hard = F.one_hot(indices, len(codebook)).to(z.dtype)
    return (hard - soft.detach() + soft) @ codebook, indices


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 9),
    codes=st.integers(1, 12),
    chunk=st.integers(1, 15),
    seed=st.integers(0, 99),
)
def test_chunked_form_equals_the_full_one(rows: int, codes: int, chunk: int, seed: int) -> None:
    z, codebook = pair(rows, codes, seed=seed)
    g = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ours, indices = backpropagated_codes(z, codebook, chunk)
    theirs, expected = one_hot_codes(z, codebook)
    assert torch.equal(indices, expected)
    assert torch.equal(ours, codebook[indices])
    torch.testing.assert_close(ours, theirs)
    mine = torch.autograd.grad((ours * g).sum(), [z, codebook])
    full = torch.autograd.grad((theirs * g).sum(), [z, codebook])
    for a, b in zip(mine, full):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)


def test_closed_form_of_the_backward_pass() -> None:
    z, codebook = pair(7, 11)
    g = torch.randn(7, 4, dtype=torch.float64)
    quantized, indices = backpropagated_codes(z, codebook)
    dz, d_codebook = torch.autograd.grad((quantized * g).sum(), [z, codebook])
    with torch.no_grad():
        soft = (z @ codebook.T).softmax(1)
        for row in range(7):  # covariance of the codebook under the softmax, times g
            mean = soft[row] @ codebook
            covariance = codebook.T @ (soft[row, :, None] * codebook) - torch.outer(mean, mean)
            torch.testing.assert_close(dz[row], covariance @ g[row])
        d_logits = soft * (g @ codebook.T - ((soft @ codebook) * g).sum(1, keepdim=True))
        expected = (d_logits.T @ z).index_add(0, indices, g)
        torch.testing.assert_close(d_codebook, expected)
    assert (d_codebook.abs().sum(1) > 0).all()  # also rows that nobody chose, unlike VQ
    assert len(indices.unique()) < 11


def test_losses_in_full_in_both_modes() -> None:
    z, codebook = pair(20, 13)
    quantizer = IBQ(IBQConfig(codebook_size=13, channels=4, entropy_temperature=0.5)).double()
    quantizer.load_state_dict({"codebook": codebook.detach()})
    soft, indices = one_hot_codes(z, codebook)
    chosen = codebook[indices]
    first, third = F.mse_loss(soft, z), F.mse_loss(chosen, z.detach())
    log_p = (z @ codebook.T / 0.5).log_softmax(1)
    mean = log_p.exp().mean(0)
    sample = -(log_p.exp() * log_p).sum(1).mean()
    average = -(mean * (mean + 1e-5).log()).sum()
    total = first + F.mse_loss(z, chosen.detach()) + 0.25 * third + 0.05 * (sample - average)
    expected = torch.autograd.grad(total, [z, codebook])
    for mode in (True, False):
        losses = quantizer.train(mode)(z).losses
        ours = sum(losses.values())
        torch.testing.assert_close(ours.double(), total, rtol=1e-5, atol=1e-6)
        mine = torch.autograd.grad(ours, [z, quantizer.codebook])
        for a, b in zip(mine, expected):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_one_code_has_no_softmax_gradient() -> None:
    z, codebook = pair(5, 1)
    quantized, _ = backpropagated_codes(z, codebook)
    dz, d_codebook = torch.autograd.grad(quantized.sum(), [z, codebook])
    assert torch.equal(dz, torch.zeros_like(z))
    assert torch.equal(d_codebook, torch.full_like(codebook, 5.0))


@pytest.mark.parametrize("chunk", [None, 1, 5, 31, 100])
def test_search(chunk: int | None) -> None:
    z, codebook = (x.detach() for x in pair(200, 31))
    expected = (z @ codebook.T).argmax(1)
    assert torch.equal(largest_dot(z, codebook, chunk), expected)
    equal = torch.ones(31, 4)
    assert (largest_dot(torch.randn(6, 4), equal, chunk) == 0).all()  # the lowest on ties


def test_what_changes_the_indices() -> None:
    z, codebook = (x.detach() for x in pair(300, 20))
    indices = largest_dot(z, codebook)
    assert torch.equal(largest_dot(z, 3.0 * codebook), indices)
    assert torch.equal(largest_dot(z, codebook + torch.randn(4)), indices)
    longer = codebook.clone()
    longer[4] *= 50
    assert not torch.equal(largest_dot(z, longer), indices)
    euclidean = (z[:, None] - codebook).square().sum(-1).argmin(1)
    assert not torch.equal(indices, euclidean)


def test_rows_of_equal_length_give_the_indices_of_vq() -> None:
    quantizer = IBQ(IBQConfig(codebook_size=20, channels=4))
    other = VQ(VQConfig(codebook_size=20, channels=4))
    rows = 2 * F.normalize(torch.randn(20, 4), dim=1)
    for each in (quantizer, other):
        each.load_state_dict({"codebook": rows})
    z = torch.randn(100, 4)
    assert torch.equal(quantizer.assign(z), other.assign(z))


def test_module_is_the_same_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer = IBQ(IBQConfig(codebook_size=50, channels=4))
    z = torch.randn(40, 4, requires_grad=True)
    results = []
    for cells in (2**24, 40, 7 * 40):
        monkeypatch.setattr(softmax_module, "CELLS", cells)
        out = quantizer(z)
        total = out.quantized.sum() + sum(out.losses.values())
        results.append((out.indices, total, *torch.autograd.grad(total, [z, quantizer.codebook])))
    for indices, total, dz, d_codebook in results[1:]:
        assert torch.equal(indices, results[0][0])
        torch.testing.assert_close(total, results[0][1], rtol=1e-6, atol=1e-5)
        for ours, full in ((dz, results[0][2]), (d_codebook, results[0][3])):
            assert (ours - full).norm() <= 1e-5 * full.norm()


def test_no_large_table_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor made on the way is at most `CELLS` numbers, or of the inputs' size."""
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setattr(softmax_module, "CELLS", 64 * 8)
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                t.numel()
                for t in (out if isinstance(out, tuple) else (out,))
                if isinstance(t, Tensor)
            )
            return out

    quantizer = IBQ(IBQConfig(codebook_size=512, channels=2))
    z = torch.randn(64, 2, requires_grad=True)
    with Watch():
        out = quantizer(z)
        (out.quantized.sum() + sum(out.losses.values())).backward()
    assert len(sizes) > 100
    assert max(sizes) <= max(64 * 8, 512 * 2)  # 64 x 512 would be 32768
