"""Decoding of latents behind text: cached visits against whole passes, solvers, seeds, guidance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.flow import Noised
from mmgen.models.plan import Plan
from mmgen.models.schedule import Grid, to_slots
from mmgen.models.unified import UnifiedModel
from mmgen.models.units import plan_for
from mmgen.sample.engine import DecodeSettings, decode, last_step, text_prefix
from mmgen.sample.flow import SOLVERS, FlowDecider, FlowSettings
from mmgen.sample.guidance import Guidance
from tests.tiny_latents import CLIP_ORDERS, ORDERS, latent_model, latents_of, texts, unit_of

STILL, CLIP = (1, 4, 4), (2, 4, 4)
CASES = [(STILL, order) for order in ORDERS] + [(CLIP, order) for order in CLIP_ORDERS]
SEEDS = torch.tensor([7, 8])
PROMPTS = texts([4, 2])
RAMP = Guidance(3.0, ramp="linear")


def model_of(grid: Grid) -> UnifiedModel:
    return latent_model(grid, CLIP_ORDERS if grid == CLIP else ORDERS)


def nothing(batch: int, width: int) -> tuple[Tensor, Tensor]:
    """The empty caption, padded."""
    ids, valid = texts([1] * batch)
    pad = torch.nn.functional.pad
    return pad(ids, (0, width - 1)), pad(valid, (0, width - 1))


def draw(
    model: UnifiedModel,
    plan: Plan,
    unit: str,
    settings: FlowSettings,
    guidance: Guidance = RAMP,
    prompts: tuple[Tensor, Tensor] = PROMPTS,
    seeds: Tensor = SEEDS,
    given: Tensor | None = None,
    **more: Any,
) -> Tensor:
    """Latents (B, N, C), in slot order; of coarse levels only what the trace tells."""
    ids, valid = prompts
    negative = nothing(*ids.shape) if guidance.enabled else None
    with torch.inference_mode():
        prefix = text_prefix(model, unit, ids, valid, negative)
    decider = FlowDecider(model, plan, prefix.cursor.condition, seeds, settings, **more)
    steps = decode(
        model,
        prefix,
        plan,
        unit,
        seeds,
        DecodeSettings(guidance=guidance),
        decider=decider,
        given=given,
    )
    return to_slots(plan.schedule, last_step(steps).codes)


@pytest.mark.parametrize(("grid", "order"), CASES, ids=str)
def test_cached_denoising_equals_the_whole_sequence(grid: Grid, order: str) -> None:
    """Every velocity of both branches, against one pass over all rows as training has them."""
    model, unit = model_of(grid), unit_of(order)
    plan, settings = plan_for(unit, grid, seed=2), FlowSettings("euler", 2)
    states: list[Tensor] = []
    seen: list[tuple[int, int, Tensor]] = []
    make = model.image_rows

    def spy(plan: Plan, chosen: Tensor, values: Tensor, *rest: Any) -> Any:
        states.append(values.clone())
        return make(plan, chosen, values, *rest)

    model.image_rows = spy  # type: ignore[method-assign]
    draw(model, plan, unit.name, settings, trace=lambda *said: seen.append(said))
    model.image_rows = make  # type: ignore[method-assign]
    assert len(seen) == len(states) == 2 * plan.steps
    ids, valid = (torch.cat(pair) for pair in zip(PROMPTS, nothing(2, 4)))
    for values, (block, index, said) in zip(states, seen):
        time = torch.full((4, plan.steps), 0.5)
        time[:, block] = float(settings.times(block, plan.steps)[index])
        noised = Noised(values, time, values)
        with torch.no_grad():
            whole = model.image_velocities(ids, valid, values, noised, plan, unit.name)
        assert (said - whole[:, plan.slots_of_step(block)]).abs().max() < 1e-4


@pytest.mark.parametrize("solver", SOLVERS)
def test_each_solver_visits_as_often_as_it_says(solver: Any) -> None:
    """Once for each step, `heun` twice but for the last; each block has its own number."""
    model, unit = model_of(STILL), unit_of("cell:2")
    plan, visits = plan_for(unit, STILL), list[int]()
    settings = FlowSettings(solver, (4, 3, 2, 1))
    draw(model, plan, unit.name, settings, trace=lambda block, *_: visits.append(block))
    counts = [visits.count(block) for block in range(4)]
    assert counts == ([7, 5, 3, 1] if solver == "heun" else [4, 3, 2, 1])


@pytest.mark.parametrize(("grid", "order"), [(STILL, "whole"), ((1, 2, 4), "cell:2")], ids=str)
def test_more_steps_converge(grid: Grid, order: str) -> None:
    """The distance to 200 steps falls with their number, with `heun` the faster."""
    model, unit = latent_model(grid, (order,)), unit_of(order)
    plan, far = plan_for(unit, grid), dict[tuple[str, int], float]()

    def drawn(solver: Any, steps: int) -> Tensor:
        return draw(model, plan, unit.name, FlowSettings(solver, steps))

    fine = drawn("euler", 200)
    for solver, steps in [("euler", n) for n in (3, 9, 27)] + [("heun", n) for n in (3, 9)]:
        far[solver, steps] = float((drawn(solver, steps) - fine).square().mean().sqrt())
    assert far["euler", 3] > 2 * far["euler", 9] > 4 * far["euler", 27] > 0
    assert far["heun", 3] > 2 * far["heun", 9] and far["heun", 9] < far["euler", 9]
    assert far["euler", 27] < 0.1 * float(fine.std())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("order", ["cell:2", "whole", "scale:1,2,4"])
def test_equal_seeds_give_equal_latents_whatever_the_batch(order: str, solver: Any) -> None:
    model, unit = model_of(STILL), unit_of(order)
    plan, settings = plan_for(unit, STILL), FlowSettings(solver, 3)
    (ids, valid), seeds = texts([4, 2, 6, 2]), torch.tensor([7, 8, 7, 9])
    ids[3] = ids[1]
    together = draw(model, plan, unit.name, settings, prompts=(ids, valid), seeds=seeds)
    for i, length in enumerate((4, 2, 6, 2)):
        own = ids[i : i + 1, :length], valid[i : i + 1, :length]
        alone = draw(model, plan, unit.name, settings, prompts=own, seeds=seeds[i : i + 1])
        assert (alone - together[i : i + 1]).abs().max() < 1e-4
    assert not torch.allclose(together[1], together[3], atol=0.1)  # another seed
    assert not torch.allclose(together[0], together[2], atol=0.1)  # another text


def test_guidance_grows_over_the_entities_and_keeps_to_its_interval() -> None:
    model, unit = model_of(STILL), unit_of("cell:2")
    plan, settings = plan_for(unit, STILL), FlowSettings("euler", 3)

    def drawn(guidance: Guidance) -> Tensor:
        return draw(model, plan, unit.name, settings, guidance)

    plain, ramp = drawn(Guidance(1.0)), drawn(Guidance(3.0, ramp="linear"))
    assert torch.allclose(plain[:, :4], ramp[:, :4], atol=1e-5)  # the first entity has scale 1
    assert not torch.allclose(plain[:, 4:8], ramp[:, 4:8], atol=1e-2)
    late = drawn(Guidance(3.0, start=0.5))  # from the third of four entities on
    assert torch.allclose(plain[:, :8], late[:, :8], atol=1e-5)
    assert not torch.allclose(plain[:, 8:12], late[:, 8:12], atol=1e-2)
    early = drawn(Guidance(3.0, stop=0.25))
    assert not torch.allclose(plain[:, :4], early[:, :4], atol=1e-2)


def test_the_text_and_every_time_are_computed_once() -> None:
    """Before the first visit, for the different texts alone."""
    model, unit, calls = model_of(STILL), unit_of("cell:2"), []
    plan, conditions = plan_for(unit, STILL), model.conditions
    model.conditions = lambda *given: calls.append(given) or conditions(*given)  # type: ignore
    ids, valid = texts([4])
    prompts = ids.expand(2, -1), valid.expand(2, -1)
    settings = FlowSettings("euler", (4, 4, 3, 2))
    draw(model, plan, unit.name, settings, Guidance(2.0), prompts=prompts)
    ((summaries, times),) = calls
    assert len(summaries) == 2  # one prompt, and none
    assert times[0] == 0 and len(times) == 1 + len(
        {i / n for n in (4, 3, 2) for i in range(1, n + 1)}
    )


def test_finished_entities_are_fed_once() -> None:
    """With the first visit of the next one; later visits feed the noisy rows alone."""
    model, unit, fed = model_of(STILL), unit_of("cell:2"), list[int]()
    plan, run = plan_for(unit, STILL), model.run

    def spy(rows: Any, cache: Any = None) -> Tensor:
        fed.append(len(rows))
        return run(rows, cache)

    model.run = spy  # type: ignore[method-assign]
    draw(model, plan, unit.name, FlowSettings("euler", 3))
    assert fed == [5 + 4, 4, 4] + 3 * [4 + 4, 4, 4]  # caption and marker, then cells of 4


def test_given_entities_are_context() -> None:
    model, unit = model_of(CLIP), unit_of("frame:1")
    plan, settings = plan_for(unit, CLIP), FlowSettings("euler", 3)
    drawn = draw(model, plan, unit.name, settings, Guidance(1.0))
    again = draw(model, plan, unit.name, settings, Guidance(1.0), given=drawn[:, :16])
    assert torch.allclose(again, drawn, atol=1e-5)
    other = to_slots(plan.schedule, latents_of(CLIP, 2))
    moved = draw(model, plan, unit.name, settings, Guidance(1.0), given=other[:, :16])
    assert torch.equal(moved[:, :16], other[:, :16])
    assert not torch.allclose(moved[:, 16:], drawn[:, 16:], atol=1e-2)


def test_half_precision_stays_near() -> None:
    model, unit = model_of(STILL), unit_of("cell:2")
    plan, settings = plan_for(unit, STILL), FlowSettings("euler", 3)
    exact = draw(model, plan, unit.name, settings)
    half = draw(model.to(torch.bfloat16), plan, unit.name, settings)
    assert (half - exact).abs().mean() < 0.1


def test_a_categorical_decider_is_refused() -> None:
    model, unit = model_of(STILL), unit_of("cell:2")
    prefix = text_prefix(model, unit.name, *PROMPTS)
    with pytest.raises(ConfigError, match="decode them with a FlowDecider"):
        last_step(decode(model, prefix, plan_for(unit, STILL), unit.name, SEEDS))
