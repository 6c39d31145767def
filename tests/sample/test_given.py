"""Decoding that goes on from given blocks, and the hybrid start, against the uncached forward."""

from __future__ import annotations

import pytest
import torch

from mmgen.errors import ConfigError
from mmgen.models.conditional import ConditionalModel
from mmgen.models.units import plan_for
from mmgen.sample.draw import DrawSettings
from mmgen.sample.engine import DecodeSettings, Step, decode
from tests.tiny_blocks import GRID, codes_of, hybrid, plain

GREEDY = DecodeSettings(DrawSettings(temperature=0.0))
WORDS = torch.tensor([[1, 3, 2], [1, 2, 2]])
NONE_AT_ALL = WORDS[:, :0]


def _steps(model: ConditionalModel, condition: torch.Tensor, given: int) -> list[Step]:
    plan = plan_for(model.config.units[0], GRID)
    seeds = torch.zeros(2, dtype=torch.long)
    beginning = codes_of()[:, :given] if given else None
    prefix = model.prefix(condition)
    return list(decode(model, prefix, plan, "", seeds, GREEDY, given=beginning))


@pytest.mark.parametrize(
    ("model", "condition", "given", "steps"),
    [
        (plain(), NONE_AT_ALL, 2, 3),
        (plain(), NONE_AT_ALL, 4, 2),
        (hybrid(), WORDS, 0, 5),
        (hybrid(), WORDS, 1, 4),
        (hybrid(), WORDS, 4, 2),
    ],
)
def test_cached_decoding_equals_the_forward(
    model: ConditionalModel, condition: torch.Tensor, given: int, steps: int
) -> None:
    done = _steps(model, condition, given)
    assert [step.index for step in done] == list(range(1, steps + 1))
    assert {step.total for step in done} == {steps}
    codes = done[-1].codes.flatten(1)
    assert torch.equal(codes[:, :given], codes_of()[:, :given])
    logits = torch.cat([step.logits for step in done if step.logits is not None], dim=1)
    whole = model(condition, codes, plan_for(model.config.units[0], GRID))[:, given:]
    torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)
    assert done[0].done.flatten().long().sum() > given


def test_half_precision_goes_on_too() -> None:
    done = _steps(plain().to(torch.bfloat16), NONE_AT_ALL, 2)
    assert done[-1].done.all()


def test_a_part_of_a_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="give whole blocks"):
        _steps(plain(), NONE_AT_ALL, 3)
    with pytest.raises(ConfigError, match="leave one to draw"):
        _steps(plain(), NONE_AT_ALL, 8)


def test_frames_must_be_given_where_nothing_predicts_the_first() -> None:
    with pytest.raises(ConfigError, match="give the first frames"):
        _steps(plain(), NONE_AT_ALL, 0)
