"""Muon against an SVD, its AdamW against PyTorch's, and which parameters get which."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmgen.train.muon import Muon, orthogonalise
from mmgen.train.optim import load_optimizer, make_optimizer, optimizer_tensors
from mmgen.train.recipe import TrainConfig

CONFIG = TrainConfig(
    steps=10, out="x", optimizer="muon", learning_rate=0.01, betas=(0.9, 0.95), weight_decay=0.1
)


@given(st.integers(1, 24), st.integers(1, 24), st.floats(1e-3, 1e3), st.integers(0, 2**31))
def test_orthogonalising_keeps_the_directions_and_levels_their_sizes(
    rows: int, columns: int, size: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    u, _ = torch.linalg.qr(torch.randn(rows, rank, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(columns, rank, generator=generator, dtype=torch.float64))
    # Singular values within a factor of ten of each other, where five iterations are enough.
    s = 10 ** torch.rand(rank, generator=generator, dtype=torch.float64)
    matrix = size * (u * s) @ v.T
    found = orthogonalise(matrix.float()).double()
    levels = torch.diagonal(u.T @ found @ v)
    assert levels.min() > 0.6 and levels.max() < 1.3
    assert torch.allclose((u * levels) @ v.T, found, atol=1e-4)


def test_a_matrix_of_zeros_stays_one() -> None:
    assert torch.equal(orthogonalise(torch.zeros(3, 5)), torch.zeros(3, 5))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(7, 6), nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4, bias=False)
    )


def train(net: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        net(torch.tensor([step % 7, 1])).square().sum().backward()
        optimizer.step()


def test_linear_layers_get_muon_and_the_rest_adamw() -> None:
    net = network()
    optimizer = make_optimizer(net, CONFIG)
    kinds = {
        p: (group["matrices"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert {name: kinds[p] for name, p in net.named_parameters()} == {
        "0.weight": (False, 0.1),
        "1.weight": (True, 0.1),
        "1.bias": (False, 0.0),
        "2.weight": (False, 0.0),
        "2.bias": (False, 0.0),
        "3.weight": (True, 0.1),
    }


def test_the_others_move_as_with_pytorchs_adamw() -> None:
    ours, theirs = network(), network()
    mine = [{"params": [*ours.parameters()], "weight_decay": 0.1, "matrices": False}]
    train(ours, Muon(mine, 0.01, (0.9, 0.95)), 0, 8)
    theirs_optimizer = torch.optim.AdamW(
        theirs.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1
    )
    train(theirs, theirs_optimizer, 0, 8)
    for a, b in zip(ours.parameters(), theirs.parameters()):
        assert torch.allclose(a, b, atol=1e-6)


def test_one_step_of_a_matrix_is_the_formula() -> None:
    layer = nn.Linear(5, 3, bias=False)
    before, grad = layer.weight.detach().clone(), torch.randn(3, 5)
    group = {"params": [layer.weight], "weight_decay": 0.5, "matrices": True}
    optimizer = Muon([group], lr=0.1, betas=(0.9, 0.95))
    layer.weight.grad = grad
    optimizer.step()
    # Nesterov from zero: g + 0.9 (0.1 g - g) is a multiple of g, which orthogonalising forgets.
    expected = before * (1 - 0.1 * 0.5) - 0.1 * 0.2 * math.sqrt(5) * orthogonalise(grad)
    assert torch.allclose(layer.weight, expected, atol=1e-6)


def test_updates_are_about_as_large_as_adamws() -> None:
    layer = nn.Linear(64, 192, bias=False)
    before = layer.weight.detach().clone()
    optimizer = Muon([{"params": [layer.weight], "weight_decay": 0.0, "matrices": True}], lr=1.0)
    layer.weight.grad = torch.randn(192, 64)
    optimizer.step()
    size = (layer.weight - before).square().mean().sqrt()
    assert float(size.detach()) == pytest.approx(0.2, rel=0.2)


def test_its_state_goes_on_where_it_stopped() -> None:
    net = network()
    optimizer = make_optimizer(net, CONFIG)
    train(net, optimizer, 0, 3)
    half = {name: t.clone() for name, t in net.state_dict().items()}
    saved = {name: t.clone() for name, t in optimizer_tensors(optimizer, net).items()}
    assert {name for name in saved if "1.weight" in name} == {"1.weight/momentum"}
    train(net, optimizer, 3, 6)
    again = network()
    again.load_state_dict(half)
    optimizer = make_optimizer(again, CONFIG)
    load_optimizer(optimizer, again, saved, "here")
    train(again, optimizer, 3, 6)
    for a, b in zip(net.parameters(), again.parameters()):
        assert torch.equal(a, b)


def test_parameters_without_a_gradient_rest() -> None:
    net = network()
    optimizer = make_optimizer(net, CONFIG)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))
    assert optimizer_tensors(optimizer, net) == {}


def test_a_kernel_is_a_matrix_of_its_patches() -> None:
    torch.manual_seed(0)
    kernel = nn.Conv3d(4, 6, (1, 3, 2), bias=False)
    matrix = nn.Linear(24, 6, bias=False)
    grad = torch.randn(6, 24)
    with torch.no_grad():
        matrix.weight.copy_(kernel.weight.flatten(1))
    matrix.weight.grad, kernel.weight.grad = grad, grad.view_as(kernel.weight)
    for layer in (matrix, kernel):
        optimizer = make_optimizer(layer, CONFIG)
        assert optimizer.param_groups[0]["params"] == [layer.weight]
        optimizer.step()
    assert torch.allclose(kernel.weight.flatten(1), matrix.weight, atol=1e-6)
