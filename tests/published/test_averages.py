"""Averages that lie beside the live weights under names without dots."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmgen.errors import CheckpointError
from mmgen.published.averages import ema_parameters, has_averages, live_parameters

LIVE = {"a.b_c.weight": torch.zeros(2), "norm.running_mean": torch.zeros(3)}
BOOKKEEPING = {"model_ema.decay": torch.ones(()), "model_ema.num_updates": torch.tensor(-1)}
AVERAGES = {"model_ema.ab_cweight": torch.ones(2)}


def test_averages_take_their_places() -> None:
    tensors = {**LIVE, **AVERAGES, **BOOKKEEPING}
    swapped = ema_parameters(tensors, "x")
    assert swapped.keys() == LIVE.keys() == live_parameters(tensors).keys()
    assert swapped["a.b_c.weight"].sum() == 2 and swapped["norm.running_mean"].sum() == 0
    assert live_parameters(tensors)["a.b_c.weight"].sum() == 0
    assert has_averages(tensors) and not has_averages({**LIVE, **BOOKKEEPING})


def test_a_file_without_averages_is_as_it_is() -> None:
    assert ema_parameters({**LIVE, **BOOKKEEPING}, "x") == LIVE


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"model_ema.ab\x1bcweight": torch.ones(2)},
            r"'ab\x1bcweight' (of model_ema), which is of no weight that the file holds; get the",
        ),
        (
            {"model_ema.ab_cweight": torch.ones(3)},
            "'ab_cweight' (of model_ema), which has not the shape (2,) of 'a.b_c.weight'; get the",
        ),
        (
            {**AVERAGES, "ab_c.weight": torch.ones(2)},
            "which may be of 'a.b_c.weight' or of 'ab_c.weight'; get the file again.",
        ),
    ],
)
def test_an_average_that_fits_no_single_weight_is_refused(
    wrong: dict[str, Tensor], said: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        ema_parameters({**LIVE, **wrong}, "x")
    assert said in str(caught.value) and str(caught.value).isprintable()
