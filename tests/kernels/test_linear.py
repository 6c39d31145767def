"""Products of few rows: equal to PyTorch's, and to it alone where gradients flow."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmgen.kernels.linear import EXCHANGED, ONEDNN, Linear, linear


@pytest.mark.parametrize("rows", [(1,), (2, 1), (3,), (2, 2), (1, 13), (4, 8), (40,), (3, 90)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_is_that_of_pytorch(rows: tuple[int, ...], biased: bool) -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(*rows, 96), Linear(96, 50, bias=biased)
    expected = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected)
        # Rows that do not lie one behind the other, as those of a slice.
        torch.testing.assert_close(
            layer(x.expand(2, *x.shape)[..., 1:, :]),
            expected.expand(2, *expected.shape)[..., 1:, :],
        )


@pytest.mark.parametrize("rows", [EXCHANGED.start, ONEDNN.start])
def test_gradients_flow_where_they_are_asked_for(rows: int) -> None:
    x = torch.randn(rows, 8, requires_grad=True)
    Linear(8, 3)(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_are_left_to_pytorch(dtype: torch.dtype) -> None:
    x, weight = torch.randn(8, 16, dtype=dtype), torch.randn(5, 16, dtype=dtype)
    with torch.inference_mode():
        assert torch.equal(linear(x, weight), F.linear(x, weight))
