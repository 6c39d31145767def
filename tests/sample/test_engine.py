"""The decode engine: cached steps against the one-pass forward, seeds, batches, guidance."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.models.heads import resolve_prefix
from mmgen.models.plan import compile_plan
from mmgen.models.rows import concatenate
from mmgen.models.schedule import make_schedule, to_slots
from mmgen.models.unified import UnifiedModel, Unit, plan_for
from mmgen.sample.deciding import CategoricalDecider
from mmgen.sample.draw import DrawSettings
from mmgen.sample.engine import DecodeSettings, decode, last_step, text_prefix
from mmgen.sample.guidance import Guidance

CASES = [
    ("raster", "shift"),
    ("row:1", "shift"),
    ("row:2", "shift"),
    ("run:2", "shift"),
    ("run:8", "shift"),
    ("cell:2", "shift"),
    ("block:1x2x1", "shift"),
    ("subsample:2", "shift"),
    ("whole", "shift"),
    ("neighbor", "neighbors"),
    ("whole", "self"),
    ("raster", "self"),
    ("random:3:5", "self"),
    ("random:7:16", "self"),
    ("locality:3:5", "self"),
    ("interlace:1,3,4", "self"),
    ("subsample:2", "self"),
    ("cell:2", "self"),
    ("neighbor", "self"),
]
CLIPS = [
    ("frame:1", "shift"),
    ("frame:2", "shift"),
    ("neighbor", "neighbors"),
    ("raster", "self"),
    ("cell:2", "self"),
    ("block:2x2x1", "self"),
    ("subsample:2", "self"),
    ("interlace:1,2", "self"),
    ("locality:3:6", "self"),
    ("frame:2", "self"),
    ("whole", "self"),
]


def prompts(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(4, 50, valid.shape, generator=torch.Generator().manual_seed(1))
    return ids.where(valid, 0), valid


def one_pass_logits(
    model: UnifiedModel, plan, unit: str, codes: torch.Tensor, ids, valid
) -> torch.Tensor:
    """Logits of every slot from one uncached forward with the finished codes (slot order)."""
    cursor, tables = model.begin(len(ids)), model.tables()
    text = model.text_rows(ids, valid, cursor)
    marker = model.marker_rows(unit, cursor)
    image = model.image_rows(plan, torch.arange(plan.rows), codes, unit, cursor, tables)
    hidden = model.run(concatenate([text, marker, image]))
    reads = resolve_prefix(plan.reads, len(text) + 1)
    return model.head.logits(model.head.queries(hidden, plan.heads, reads), tables.logit)


Make = Callable[..., UnifiedModel]


def model_for(
    make: Make, order: str, prediction: str, grid=(1, 4, 4), **sizes
) -> tuple[UnifiedModel, Unit]:
    unit = Unit("unit", order, prediction)
    return make(grid, (unit,), **sizes), unit


@pytest.mark.parametrize(
    ("grid", "order", "prediction"),
    [((1, 4, 4), *case) for case in CASES] + [((4, 2, 2), *case) for case in CLIPS],
)
def test_cached_decoding_equals_the_one_pass_forward(
    tiny_model: Make, grid, order, prediction
) -> None:
    model, unit = model_for(tiny_model, order, prediction, grid)
    plan = compile_plan(make_schedule(order, grid), prediction)
    ids, valid = prompts([5, 3, 1])
    seen: list[torch.Tensor] = []

    def noise(step: int, slots: torch.Tensor, vocab: int) -> torch.Tensor:
        return torch.zeros(3, len(slots), vocab)

    original = model.head.logits
    model.head.logits = lambda q, t: seen.append(original(q, t)) or seen[-1]  # type: ignore
    prefix = text_prefix(model, unit.name, ids, valid)
    last = last_step(decode(model, prefix, plan, unit.name, torch.arange(3), noise=noise))
    model.head.logits = original  # type: ignore[method-assign]
    codes = to_slots(plan.schedule, last.codes)
    with torch.inference_mode():
        expected = one_pass_logits(model, plan, unit.name, codes, ids, valid)
    assert (torch.cat(seen, 1) - expected).abs().max() < 1e-4
    assert torch.equal(codes, expected.argmax(-1))
    assert bool(last.done.all()) and last.index == last.total == plan.steps


def test_grouped_keys_and_layer_norm_decode_the_same(tiny_model: Make) -> None:
    sizes = {"kv_heads": 2, "norm": "layer", "mlp": "gelu", "bias": True}
    model, unit = model_for(tiny_model, "row:1", "shift", **sizes)
    plan = plan_for(unit, (1, 4, 4))
    ids, valid = prompts([4, 2])
    greedy = DecodeSettings(DrawSettings(temperature=0.0))
    prefix = text_prefix(model, "unit", ids, valid)
    codes = to_slots(
        plan.schedule,
        last_step(decode(model, prefix, plan, "unit", torch.arange(2), greedy)).codes,
    )
    with torch.inference_mode():
        expected = one_pass_logits(model, plan, "unit", codes, ids, valid)
    assert torch.equal(codes, expected.argmax(-1))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**62), which=st.integers(0, 3), place=st.integers(0, 3))
def test_a_picture_does_not_depend_on_its_place_in_a_batch(
    tiny_model: Make, seed, which, place
) -> None:
    model = tiny_model()
    unit = model.config.units[which]
    plan = plan_for(unit, (1, 4, 4))
    ids, valid = prompts([5, 3, 1, 4])
    seeds = torch.tensor([11, 22, 33, 44])
    seeds[place] = seed
    together = last_step(
        decode(model, text_prefix(model, unit.name, ids, valid), plan, unit.name, seeds)
    )
    one = slice(place, place + 1)
    alone = text_prefix(model, unit.name, ids[one], valid[one])
    picture = last_step(decode(model, alone, plan, unit.name, seeds[one]))
    assert torch.equal(together.codes[one], picture.codes)


def test_seeds_and_temperature(tiny_model: Make) -> None:
    model = tiny_model()
    unit = model.config.unit("neighbor")
    plan = plan_for(unit, (1, 4, 4))
    ids, valid = prompts([3])

    def codes(seed: int, temperature: float) -> list[int]:
        prefix = text_prefix(model, unit.name, ids, valid)
        drawn = DecodeSettings(DrawSettings(temperature=temperature))
        steps = decode(model, prefix, plan, unit.name, torch.tensor([seed]), drawn)
        return last_step(steps).codes.flatten().tolist()

    assert codes(1, 1.0) == codes(1, 1.0)
    assert codes(1, 1.0) != codes(2, 1.0)
    assert codes(1, 0.0) == codes(2, 0.0)


def test_guidance_of_one_is_no_guidance_and_more_changes_the_picture(tiny_model: Make) -> None:
    model = tiny_model()
    unit = model.config.unit("block")
    plan = plan_for(unit, (1, 4, 4))
    ids, valid = prompts([3, 3])
    nothing = (torch.ones_like(ids), torch.arange(3).expand(2, 3) < 1)

    def logits(scale: float, negative) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        original = model.head.logits
        model.head.logits = lambda q, t: seen.append(original(q, t)) or seen[-1]  # type: ignore
        prefix = text_prefix(model, unit.name, ids, valid, negative)
        guided = DecodeSettings(DrawSettings(temperature=0.0), Guidance(scale=scale))
        last_step(decode(model, prefix, plan, unit.name, torch.arange(2), guided))
        model.head.logits = original  # type: ignore[method-assign]
        return seen[0]

    plain, null = logits(1.0, None), logits(0.0, nothing)
    assert torch.allclose(logits(1.0, nothing), plain, atol=1e-5)
    expected = null + 3.0 * (plain - null)
    assert torch.allclose(logits(3.0, nothing), expected, atol=1e-4)
    assert not torch.allclose(null, plain, atol=1e-2)


def test_progress_is_shown_step_by_step(tiny_model: Make) -> None:
    model = tiny_model()
    unit = model.config.unit("token")
    plan = plan_for(unit, (1, 4, 4))
    ids, valid = prompts([2])
    steps = list(
        decode(model, text_prefix(model, "token", ids, valid), plan, "token", torch.tensor([5]))
    )
    assert [int(step.done.sum()) for step in steps] == list(range(1, 17))
    final = steps[-1].codes
    for step in steps:
        assert torch.equal(step.codes[:, step.done], final[:, step.done])
        assert (step.codes[:, ~step.done] == 0).all() and (step.entropy >= 0).all()


@pytest.mark.parametrize(("order", "prediction"), [("raster", "shift"), ("random:3:5", "self")])
def test_the_unconditional_branch_is_not_fed_when_guidance_is_over(
    tiny_model: Make, monkeypatch: pytest.MonkeyPatch, order: str, prediction: str
) -> None:
    model = tiny_model()
    plan = compile_plan(make_schedule(order, (1, 4, 4)), prediction)
    ids, valid = prompts([3, 5])
    seeds, fed = torch.tensor([1, 2]), []
    run = model.run
    monkeypatch.setattr(
        model, "run", lambda rows, cache: fed.append(len(rows.x)) or run(rows, cache)
    )
    chosen = DecodeSettings(guidance=Guidance(3.0, stop=0.5))
    drawn = {}
    for way in ("ending", "to the end"):
        prefix = text_prefix(model, "block", ids, valid, (ids.flip(1), valid))
        # A decider that is brought along may guide by itself, so both branches are fed to it.
        own = CategoricalDecider(model, seeds, chosen.draw) if way == "to the end" else None
        steps = decode(model, prefix, plan, "block", seeds, chosen, decider=own)
        drawn[way] = [(step.codes.clone(), step.logits) for step in steps]
    guided = sum(done < 0.5 * plan.schedule.slots for done in plan.schedule.starts)
    assert fed == [4] * guided + [2] * (plan.steps - guided) + [4] * plan.steps
    for (codes, logits), (all_codes, all_logits) in zip(*drawn.values()):
        assert torch.equal(codes, all_codes)
        torch.testing.assert_close(logits, all_logits, atol=1e-4, rtol=1e-4)
