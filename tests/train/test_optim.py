"""Learning rate by step, AdamW's groups, optimiser state as tensors, averaged weights."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from mmgen.errors import CheckpointError
from mmgen.train.ema import EMA, decay_at
from mmgen.train.optim import learning_rate, load_optimizer, make_optimizer, optimizer_tensors
from mmgen.train.recipe import TrainConfig


def config(**changes: object) -> TrainConfig:
    values: dict[str, object] = {
        "steps": 110,
        "out": "x",
        "warmup_steps": 10,
        "learning_rate": 2.0,
        "min_learning_rate": 0.5,
    }
    return TrainConfig(**(values | changes))  # type: ignore[arg-type]


def test_warm_up_then_cosine() -> None:
    rates = [learning_rate(step, config()) for step in range(111)]
    assert rates[:10] == pytest.approx([2.0 * k / 10 for k in range(1, 11)])
    assert rates[10] == 2.0
    assert rates[35] == pytest.approx(0.5 + 1.5 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates[60] == pytest.approx(1.25)
    assert rates[110] == 0.5
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_constant_and_no_warm_up() -> None:
    flat = config(cooldown="constant", warmup_steps=0)
    assert {learning_rate(step, flat) for step in range(111)} == {2.0}
    assert learning_rate(0, config(warmup_steps=0)) == 2.0
    assert learning_rate(0, config(steps=1, warmup_steps=10)) == 0.2


def test_only_matrices_are_decayed() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(4, 2, 1))
    network[0].weight.requires_grad_(False)
    decayed, plain = make_optimizer(network, config(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert [p.ndim for p in decayed["params"]] == [4]
    assert [tuple(p.shape) for p in plain["params"]] == [(4,), (4,), (4,), (2,)]


def test_optimizer_state_goes_on_where_it_stopped() -> None:
    def steps(network: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            optimizer.zero_grad()
            network[0](torch.full((2, 3), float(step))).square().sum().backward()  # type: ignore
            optimizer.step()

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))  # the second is never stepped
    start = {name: t.clone() for name, t in network.state_dict().items()}
    optimizer = make_optimizer(network, config())
    steps(network, optimizer, 0, 6)
    whole = {name: t.clone() for name, t in network.state_dict().items()}

    network.load_state_dict(start)
    optimizer = make_optimizer(network, config())
    steps(network, optimizer, 0, 3)
    tensors = {name: t.clone() for name, t in optimizer_tensors(optimizer, network).items()}
    moments = {"step", "exp_avg", "exp_avg_sq"}
    assert tensors.keys() == {f"0.{p}/{m}" for p in ("weight", "bias") for m in moments}
    again = make_optimizer(network, config())
    load_optimizer(again, network, tensors, "here")
    steps(network, again, 3, 6)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, whole[name])
    with pytest.raises(CheckpointError, match=r"here has state for '9\.bias'"):
        load_optimizer(again, network, {"9.bias/step": torch.ones(())}, "here")


def test_ema_is_the_formula() -> None:
    network = nn.BatchNorm1d(2)
    ema = EMA(network, 0.6)
    expected = network.weight.detach().double()
    for updates in range(12):
        with torch.no_grad():
            network.weight.add_(updates + 1)
            network.get_buffer("running_mean").add_(1)
        decay = min(0.6, (1 + updates) / (10 + updates))
        assert decay_at(updates, 0.6) == decay
        expected = decay * expected + (1 - decay) * network.weight.detach().double()
        ema.update(network, updates)
        assert torch.allclose(ema.state()["weight"].double(), expected, rtol=1e-6)
    assert decay_at(0, 0.6) == 0.1
    assert decay_at(10**6, 0.6) == 0.6
    assert ema.state()["running_mean"].tolist() == [12.0, 12.0]


def test_ema_is_float32_beside_half_weights() -> None:
    network = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        network.weight.fill_(1.0)
    ema = EMA(network, 0.999)
    with torch.no_grad():
        network.weight.fill_(1.0078125)
    for _ in range(50):
        ema.update(network, 10**6)
    assert ema.state()["weight"].item() == pytest.approx(1 + 0.0078125 * (1 - 0.999**50), rel=1e-6)


def test_applied_weights_are_given_back() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    network[1].eval()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    ema = EMA(network, 0.9)
    for tensor in ema.parameters.values():
        tensor.fill_(7.0)
    with pytest.raises(KeyError), ema.applied(network) as model:
        assert model is network
        assert not any(m.training for m in model.modules())
        assert model.get_parameter("0.weight").unique().tolist() == [7.0]
        raise KeyError
    assert [m.training for m in network] == [True, False, True]
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_ema_of_another_network_is_refused() -> None:
    ema = EMA(nn.Linear(2, 2), 0.9)
    other = EMA(nn.Linear(2, 3), 0.9).state()
    with pytest.raises(CheckpointError, match="here holds other sizes"):
        ema.load_state(other, "here")


def test_tied_weights_stay_tied() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    ema = EMA(network, 0.5)
    ema.update(network, 0)
    with ema.applied(network):
        assert network[1].weight is network[0].weight
