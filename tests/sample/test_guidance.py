"""Guidance: the formula, the official intervals, ramps, refusals."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from mmgen.config import from_dict
from mmgen.errors import ConfigError
from mmgen.sample.guidance import Guidance, guide

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MMGEN_SHARED", ROOT.parent / "shared"))


def golden(case: str) -> dict[str, Tensor]:
    folder = SHARED / "goldens" / case
    if not folder.is_dir():
        pytest.skip(f"there is no golden case {case} in {SHARED}; set MMGEN_SHARED")
    return load_file(folder / "tensors.safetensors")


# -- the formula ----------------------------------------------------------------------------------


def test_guide_moves_away_from_the_unconditional_prediction() -> None:
    cond, uncond = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    assert guide(cond, uncond, 3.0).tolist() == [3.0, -2.0]
    assert guide(cond, uncond, 0.0).tolist() == [0.0, 4.0]
    assert guide(cond, uncond, 0.5).tolist() == [0.5, 3.0]


def test_guide_with_scale_one_is_the_conditional_prediction_to_the_bit() -> None:
    cond, uncond = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(guide(cond, uncond, 1.0), cond)


def test_guide_rounds_every_operation_to_float32() -> None:
    both = torch.randn(2, 1000, generator=torch.Generator().manual_seed(1)).bfloat16()
    cond, uncond = both.float().numpy()
    expected = torch.from_numpy(uncond + (cond - uncond) * 1.7)
    assert expected.dtype == torch.float32
    out = guide(both[0], both[1], 1.7)
    assert torch.equal(out, expected)


# -- official intervals ---------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [0, 1, 5, 14, 15, 100])
def test_llamagen_intervals_count_decode_steps(interval: int) -> None:
    guidance = Guidance(scale=2.0, stop=interval + 2, unit="steps")
    for token in range(16):  # token 0 comes from the prefill, token t from decode step t - 1
        official = token == 0 or token - 1 <= interval
        assert guidance.scale_at(token, 16, token, 16) == (2.0 if official else 1.0)


@pytest.mark.parametrize("interval", [0, 1, 3, 4, 6, 10, 100])
def test_nar_intervals_count_tokens(interval: int) -> None:
    guidance = Guidance(scale=2.0, stop=interval + 1, unit="tokens")
    done = 0
    for step, size in enumerate([1, 2, 3, 4, 3, 2, 1]):
        official = step == 0 or done <= interval
        assert guidance.scale_at(step, 7, done, 16) == (2.0 if official else 1.0)
        done += size


def test_the_official_llamagen_run_with_an_interval() -> None:
    t = golden("llamagen-c2i-tiny")  # cfg 2.0, cfg_interval 5
    guidance = Guidance(scale=2.0, stop=7, unit="steps")
    same = (t["gen_tokens"] == t["gen_interval_tokens"]).all(0).long().cumprod(0).sum()
    checked = {1.0: 0, 2.0: 0}
    for token in range(int(same) + 1):  # logits depend on the tokens before them
        scale = guidance.scale_at(token, 16, token, 16)
        ours = guide(t["gen_cond_logits"][:, token], t["gen_uncond_logits"][:, token], scale)
        theirs = t["gen_interval_guided_logits"][:, token]
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        checked[scale] += 1
    assert min(checked.values()) > 0


def test_the_official_nar_run_with_an_interval() -> None:
    t = golden("nar-c2i-tiny")  # cfg 2.0, cfg_interval 4
    guidance = Guidance(scale=2.0, stop=5, unit="tokens")
    steps, places = t["gen_order_step"], t["gen_order_position"]
    checked = {1.0: 0, 2.0: 0}
    for step in range(7):
        now = (steps == step).nonzero()[:, 0]
        before = places[steps < step]
        if not torch.equal(t["gen_tokens"][:, before], t["gen_interval_tokens"][:, before]):
            break
        scale = guidance.scale_at(step, 7, len(before), 16)
        cond, uncond = t["gen_mixed_logits"][:, 0, now], t["gen_mixed_logits"][:, 1, now]
        theirs = t["gen_interval_guided_logits"][:, now]
        torch.testing.assert_close(guide(cond, uncond, scale), theirs, atol=1e-4, rtol=1e-4)
        checked[scale] += 1
    assert min(checked.values()) > 0


# -- interval and ramp ----------------------------------------------------------------------------


def scales(guidance: Guidance, steps: int = 5) -> list[float]:
    return [round(guidance.scale_at(s, steps, 4 * s, 4 * steps), 6) for s in range(steps)]


def test_by_default_every_step_has_the_same_scale() -> None:
    assert scales(Guidance(scale=4.0)) == [4.0] * 5
    assert scales(Guidance(scale=4.0, start=0.0, stop=1.0)) == [4.0] * 5
    assert scales(Guidance()) == [1.0] * 5


def test_share_and_start() -> None:
    assert scales(Guidance(scale=3.0, start=0.2, stop=0.6)) == [1.0, 3.0, 3.0, 1.0, 1.0]
    assert scales(Guidance(scale=3.0, start=2, unit="steps")) == [1.0, 1.0, 3.0, 3.0, 3.0]
    assert scales(Guidance(scale=3.0, start=1, stop=9, unit="tokens")) == [1.0, 3.0, 3.0, 1.0, 1.0]


def test_ramps() -> None:
    assert scales(Guidance(scale=5.0, ramp="linear")) == [1.0, 2.0, 3.0, 4.0, 5.0]
    cosine = [1 + 4 * (1 - math.cos(math.pi * i / 4)) / 2 for i in range(5)]
    assert scales(Guidance(scale=5.0, ramp="cosine")) == [round(c, 6) for c in cosine]
    assert scales(Guidance(scale=5.0, ramp="linear"), steps=1) == [5.0]


@given(
    scale=st.floats(0, 20),
    steps=st.integers(1, 50),
    ramp=st.sampled_from(["constant", "linear", "cosine"]),
    start=st.floats(0, 0.99),
)
@settings(max_examples=60, deadline=None)
def test_scales_stay_between_one_and_the_scale(
    scale: float, steps: int, ramp: str, start: float
) -> None:
    guidance = Guidance(scale=scale, ramp=ramp, start=start)  # type: ignore[arg-type]
    values = [guidance.scale_at(s, steps, s, steps) for s in range(steps)]
    low, high = sorted((1.0, scale))
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    assert guidance.enabled or set(values) == {1.0}


def test_only_scale_one_needs_no_unconditional_branch() -> None:
    assert not Guidance(scale=1.0, ramp="linear").enabled
    assert Guidance(scale=1.5).enabled
    assert Guidance(scale=0.0).enabled


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": -1.0}, "scale must be 0 or more"),
        ({"scale": math.nan}, "scale"),
        ({"scale": math.inf}, "scale"),
        ({"start": -0.1}, "start"),
        ({"start": 1.0}, "start"),
        ({"start": 3.0, "stop": 3.0, "unit": "tokens"}, "stop"),
        ({"start": 3.0, "stop": math.nan, "unit": "tokens"}, "stop"),
        ({"stop": 0.0}, "stop"),
        ({"stop": 1.5}, "at most 1 share"),
        ({"unit": "step"}, "did you mean 'steps'"),
        ({"ramp": "linnear"}, "did you mean 'linear'"),
    ],
)
def test_values_out_of_range_are_one_sentence(values: dict[str, object], message: str) -> None:
    for build in (lambda: Guidance(**values), lambda: from_dict(Guidance, values)):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=message) as caught:
            build()
        assert "\n" not in str(caught.value)
