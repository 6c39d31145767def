"""Matrices stored as integers: equal to their plain form, exact sums, the loss that is promised."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmgen.kernels import int8
from mmgen.kernels.int8 import (
    Int8Linear,
    int8_linear,
    int8_linear_reference,
    int8_weight,
    store_as_int8,
    two_digits,
)


def matrices(rows: int, width: int, out: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows + width + out)
    x = torch.randn(rows, width, generator=generator)
    x[:, ::17] *= 50  # channels that stand out, as hidden states have them
    return x, torch.randn(out, width, generator=generator) * 0.05


@pytest.mark.parametrize(
    ("rows", "width", "out"), [(1, 1, 1), (2, 768, 97), (5, 33, 64), (64, 96, 7)]
)
@pytest.mark.parametrize("biased", [True, False])
def test_the_fast_form_is_the_plain_one(rows: int, width: int, out: int, biased: bool) -> None:
    x, matrix = matrices(rows, width, out)
    weight, scale = int8_weight(matrix)
    bias = torch.randn(out) if biased else None
    fast = int8_linear(x, weight, scale, bias)
    plain = int8_linear_reference(x, weight, scale, bias)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


def test_two_digits_keep_fifteen_bits() -> None:
    x = (
        torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
        * 10.0 ** torch.arange(-25, 25)[:, None]
    )
    x[3], x[4, 1:] = 0.0, 0.0
    digits, unit = two_digits(x)
    high, low = digits.double().chunk(2)
    error = (unit * (high + low / 254) - x).abs().amax(1)
    assert bool((error <= x.abs().amax(1) / 64_000).all())


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    x, matrix = matrices(64, 256, 100)
    weight, scale = int8_weight(matrix)
    together = int8_linear(x, weight, scale)
    alone = torch.cat([int8_linear(row[None], weight, scale) for row in x])
    assert torch.equal(together, alone)


def test_the_loss_is_the_rounding_of_the_matrix() -> None:
    x, matrix = matrices(16, 768, 512)
    exact = F.linear(x, matrix)
    error = (int8_linear(x, *int8_weight(matrix)) - exact).norm() / exact.norm()
    assert 0.002 < float(error) < 0.008


def test_numbers_that_are_none_stay_so() -> None:
    weight, scale = int8_weight(torch.ones(3, 4))
    x = torch.tensor([[1.0, torch.nan, 0, 0], [1, 2, 3, 4]])
    out = int8_linear(x, weight, scale)
    assert bool(out[0].isnan().all()) and torch.allclose(out[1], torch.tensor(10.0))


def test_a_processor_whose_sums_overflow_takes_the_plain_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, matrix = matrices(4, 32, 8)
    stored = int8_weight(matrix)
    monkeypatch.setattr(int8, "_is_exact", lambda: False)
    assert torch.equal(int8_linear(x, *stored), int8_linear_reference(x, *stored))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_are_replaced_at_every_depth(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(64, 32), nn.GELU())
    network = nn.ModuleDict({"a": inner, "b": nn.Linear(64, 8, bias=False), "c": nn.LayerNorm(8)})
    x = torch.randn(3, 5, 64)
    before = inner(x), network["b"](x)
    store_as_int8(network)
    network.to(dtype)
    layers = [m for m in network.modules() if isinstance(m, Int8Linear)]
    assert len(layers) == 2 and all(layer.weight.dtype == torch.int8 for layer in layers)
    assert not any(isinstance(m, nn.Linear) for m in network.modules())
    with torch.inference_mode():
        for old, new in zip(before, (inner(x.to(dtype)), network["b"](x.to(dtype)))):
            assert new.dtype == dtype
            torch.testing.assert_close(new.float(), old, rtol=0.03, atol=0.03)
