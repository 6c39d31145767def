"""Solvers on velocities that are known, and decoding by them with and without the cache."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.moments import Moment
from mmgen.models.plan import Plan, compile_plan
from mmgen.models.schedule import to_slots
from mmgen.models.velocity import VelocityConfig, VelocityModel
from mmgen.sample.engine import DecodeSettings, decode, last_step
from mmgen.sample.flow import SOLVERS, FlowDecider, FlowSettings, solve
from mmgen.sample.guidance import Guidance

# -- solvers -------------------------------------------------------------------------------------

INDICES = {
    50: "1000 980 960 941 921 902 882 862 843 823 804 784 764 745 725 706 686 666 647 627 608 588 "
    "568 549 529 510 490 471 451 431 412 392 373 353 333 314 294 275 255 235 216 196 177 157 137 "
    "118 98 79 59 40",
    40: "1000 975 950 926 901 876 852 827 803 778 753 729 704 680 655 630 606 581 556 532 507 483 "
    "458 433 409 384 360 335 310 286 261 236 212 187 163 138 113 89 64 40",
}


@pytest.mark.parametrize("steps", INDICES)
def test_whole_times_of_the_published_settings(steps: int) -> None:
    from mmgen.models.flow import time_level

    told = time_level(FlowSettings(steps=steps).times(0, 4), 1000, whole=True)
    assert told.long().tolist() == list(map(int, INDICES[steps].split()))


def integrate(solver, steps: int, field, start: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    times = FlowSettings(solver, steps).times(0, 1)
    ends = times.tolist()

    def noise(index: int) -> Tensor:
        return torch.randn(start.shape, generator=generator)

    states = list(solve(solver, lambda x, i: field(x, ends[i]), start, times, noise))
    assert len(states) == steps
    return states[-1]


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_single_data_point_is_reached(solver, steps: int) -> None:
    """Its velocity is (x - x0) / t, whose last step ends at x0 whatever came before."""
    target, start = torch.randn(5, dtype=torch.float64), torch.randn(5)
    end = integrate(solver, steps, lambda x, t: (x - target) / t, start)
    assert end.dtype == torch.float64
    assert torch.allclose(end, target, atol=1e-9)


def gaussian_field(std: float):
    """Velocity of the path from N(0, std^2) to N(0, 1): E[eps - x0 | x]."""

    def field(x: Tensor, t: float) -> Tensor:
        variance = (1 - t) ** 2 * std**2 + t**2
        return (t - (1 - t) * std**2) / variance * x

    return field


def test_errors_fall_with_the_order_of_the_solver() -> None:
    """The flow of a Gaussian only scales: x(0) = std * x(1)."""
    start, std = torch.ones(1), 0.5

    def error(solver, steps: int) -> float:
        return abs(float(integrate(solver, steps, gaussian_field(std), start)) - std)

    assert 1.7 < error("euler", 64) / error("euler", 128) < 2.3
    assert 3.3 < error("heun", 64) / error("heun", 128) < 4.7
    assert error("heun", 64) < error("euler", 64) / 10


def test_the_reverse_process_keeps_the_spread() -> None:
    start = torch.randn(20000, generator=torch.Generator().manual_seed(5))
    end = integrate("euler-maruyama", 200, gaussian_field(0.5), start)
    assert abs(float(end.std()) - 0.5) < 0.02
    # Fresh noise forgets where it began, unlike the flow.
    assert abs(float((end * start).mean())) < 0.2
    flow = integrate("euler", 200, gaussian_field(0.5), start)
    assert float((flow * start).mean()) > 0.4


def test_steps_of_each_block() -> None:
    settings = FlowSettings(steps=(5, 3))
    assert [len(settings.times(block, 2)) for block in (0, 1)] == [5, 3]
    assert FlowSettings(steps=[5, 3]) == settings  # type: ignore[arg-type]
    assert settings.times(1, 2).tolist() == pytest.approx([1.0, 0.52, 0.04])
    assert FlowSettings("heun", 4).times(0, 2).tolist() == [1.0, 0.75, 0.5, 0.25]
    with pytest.raises(ConfigError, match="2 numbers of steps for 4 blocks"):
        settings.times(0, 4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"solver": "eular"}, "did you mean 'euler'"),
        ({"steps": 0}, "1 step or more"),
        ({"steps": (4, 0)}, "1 step or more"),
        ({"steps": ()}, "1 step or more"),
        ({"steps": [4, 0]}, "1 step or more"),
        ({"steps": ["4"]}, "1 step or more"),
        ({"last_time": 0.0}, "between 0 and 1"),
        ({"last_time": math.nan}, "between 0 and 1"),
    ],
)
def test_settings_that_no_solver_can_follow(bad, message) -> None:
    with pytest.raises(ConfigError, match=message):
        FlowSettings(**bad)


# -- decoding ------------------------------------------------------------------------------------


def velocity_model(order: str) -> VelocityModel:
    torch.manual_seed(0)
    stack = BackboneConfig(width=32, depth=2, heads=2, mlp="geglu", qk_norm=False, adaln=True)
    config = VelocityConfig((stack, stack), 3, (1, 4, 4), order, classes=5, whole_times=True)
    model = VelocityModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


LABELS = torch.tensor([1, 4])


def draw(model: VelocityModel, settings: FlowSettings, scale: float = 3.0, **more) -> Tensor:
    """Latents (B, N, C) of two pictures, in slot order."""
    labels, seeds = more.pop("labels", LABELS), more.pop("seeds", torch.tensor([7, 8]))
    plan = compile_plan(model.schedule, "self", continuous=True)
    prefix = model.prefix(labels, guided=scale != 1)
    decider = FlowDecider(model, plan, prefix.cursor.condition, seeds, settings, **more)
    guidance = DecodeSettings(guidance=Guidance(scale, ramp="linear"))
    steps = decode(model, prefix, plan, "", seeds, guidance, decider=decider)
    return to_slots(plan.schedule, last_step(steps).codes)


def one_pass(model: VelocityModel, plan: Plan, latents: Tensor, moment: Moment) -> Tensor:
    """Velocities of every row, finished blocks and queries together, without a cache."""
    cursor = model.prefix(LABELS).cursor
    rows = model.image_rows(plan, torch.arange(plan.rows), latents, "", cursor, moment)
    return model.run(rows)


ORDERS = ["cell:2", "raster", "subsample:2", "whole", "row:2", "random:3:5"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_cached_visits_equal_whole_passes(order: str, solver) -> None:
    """Every velocity, against one pass over clean blocks at time 0 and the noisy one."""
    model = velocity_model(order)
    plan = compile_plan(model.schedule, "self", continuous=True)
    seen: dict[tuple[int, int], Tensor] = {}
    states: dict[tuple[int, int], Tensor] = {}
    settings = FlowSettings(solver, 3)
    feed = model.image_rows

    def spy(plan, chosen, values, *rest):  # type: ignore[no-untyped-def]
        block = int(plan.block[chosen].max()) - 1
        states[block, sum(key[0] == block for key in states)] = values.clone()
        return feed(plan, chosen, values, *rest)

    model.image_rows = spy  # type: ignore[method-assign]
    visits: list[tuple[int, int]] = []

    def trace(step: int, index: int, said: Tensor) -> None:
        visit = sum(key[0] == step for key in seen)
        seen[step, visit] = said.clone()
        visits.append((step, index))

    draw(model, settings, trace=trace)
    model.image_rows = feed  # type: ignore[method-assign]
    assert len(seen) == (5 if solver == "heun" else 3) * model.schedule.blocks
    labels = torch.cat([LABELS, torch.full((2,), model.no_label)])
    for (block, index), (key, said) in zip(visits, seen.items()):
        # The row of a finished block carries time 0, and so does its query, which nobody reads.
        time = torch.zeros(model.schedule.blocks, dtype=torch.long)
        time[block] = 1
        times = torch.stack([torch.zeros(()), settings.times(block, plan.steps)[index]])
        moment = Moment(model.conditions(labels, times), torch.arange(4), time)
        with torch.no_grad():
            told = one_pass(model, plan, states[key], moment)
        expected = told[:, plan.reads[0, plan.slots_of_step(block)]]
        assert (said - expected).abs().max() < 1e-4


def test_scales_are_drawn_coarse_to_fine() -> None:
    model = velocity_model("scale:1,2,4")
    plan = compile_plan(model.schedule, "self")
    decider = FlowDecider(model, plan, LABELS, torch.tensor([7, 8]), FlowSettings(steps=2))
    seeds = torch.tensor([7, 8])
    steps = list(decode(model, model.prefix(LABELS), plan, "", seeds, decider=decider))
    assert [int(step.done.sum()) for step in steps] == [0] * 5 + [16]
    assert all(step.begun.all() for step in steps)  # coarse levels are spread over the grid
    halves = steps[3].codes.view(2, 2, 2, 2, 2, 3)
    assert torch.equal(halves, halves[:, :, :1, :, :1].expand_as(halves))
    assert steps[3].codes.unique().numel() == 2 * 4 * 3 and steps[5].codes.unique().numel() == 96
    assert steps[-1].codes.shape == (2, 1, 4, 4, 3)
    assert steps[-1].codes.std() > 0.1


def test_the_first_block_is_unguided_and_later_ones_are_not() -> None:
    model = velocity_model("cell:2")
    plain, guided = (draw(model, FlowSettings(steps=3), scale) for scale in (1.0, 3.0))
    assert torch.allclose(plain[:, :4], guided[:, :4], atol=1e-5)
    assert not torch.allclose(plain[:, 4:8], guided[:, 4:8], atol=1e-2)


def test_a_picture_depends_on_its_seed_and_label_alone() -> None:
    model, settings = velocity_model("cell:2"), FlowSettings(steps=3)
    both = draw(model, settings)
    alone = draw(model, settings, labels=LABELS[1:], seeds=torch.tensor([8]))
    assert torch.allclose(both[1:], alone, atol=1e-5)
    assert torch.equal(draw(model, settings), both)
    assert not torch.allclose(draw(model, settings, seeds=torch.tensor([7, 9]))[1], both[1])


def test_the_condition_is_computed_once() -> None:
    """Every label at every time in one call, before the first visit."""
    model, calls = velocity_model("cell:2"), []
    conditions = model.conditions
    model.conditions = lambda *given: calls.append(given) or conditions(*given)  # type: ignore
    draw(model, FlowSettings(steps=(4, 4, 3, 2)), labels=torch.tensor([2, 2]))
    ((labels, times),) = calls
    assert labels.tolist() == [2, model.no_label]
    assert times[0] == 0 and len(times) == 1 + len(
        {t for n in (4, 3, 2) for t in FlowSettings(steps=n).times(0, 1).tolist()}
    )


def test_noise_of_the_caller() -> None:
    model, asked = velocity_model("cell:2"), []

    def noise(block: int, slots: Tensor, visit: int) -> Tensor:
        asked.append((block, visit))
        return torch.zeros(2, len(slots), 3)

    draw(model, FlowSettings(steps=3), noise=noise)
    assert asked == [(block, visit) for block in range(4) for visit in range(3)]


def test_given_blocks_are_context() -> None:
    """They are fed at once, and the others go on as if drawn after them."""
    model, settings = velocity_model("cell:2"), FlowSettings(steps=3)
    drawn = draw(model, settings, scale=1.0)
    plan, seeds = compile_plan(model.schedule, "self", continuous=True), torch.tensor([7, 8])
    decider, prefix = FlowDecider(model, plan, LABELS, seeds, settings), model.prefix(LABELS)
    steps = decode(model, prefix, plan, "", seeds, decider=decider, given=drawn[:, :8])
    assert torch.allclose(to_slots(plan.schedule, last_step(steps).codes), drawn, atol=1e-5)


def test_half_precision_stays_near() -> None:
    model = velocity_model("cell:2")
    exact = draw(model, FlowSettings(steps=3))
    assert (draw(model.to(torch.bfloat16), FlowSettings(steps=3)) - exact).abs().mean() < 0.05


def test_a_categorical_decider_is_refused() -> None:
    model = velocity_model("cell:2")
    plan = compile_plan(model.schedule, "self", continuous=True)
    with pytest.raises(ConfigError, match="decode them with a FlowDecider"):
        last_step(decode(model, model.prefix(LABELS), plan, "", torch.tensor([7, 8])))
