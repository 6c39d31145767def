from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mmgen.errors import ConfigError
from mmgen.models.plan import NONE, PREFIX, Input, compile_plan, visible
from mmgen.models.schedule import make_schedule
from mmgen.models.spellings import kept_order

SHARED = Path(os.environ.get("MMGEN_SHARED", Path(__file__).parents[2] / "../shared"))
quick = settings(max_examples=60, deadline=None)


def divisors(n):
    return [k for k in range(1, n + 1) if n % k == 0]


@st.composite
def plans(draw, predictions=("shift", "hybrid", "given", "neighbors", "self")):
    """A plan of any prediction over a small grid."""
    grid = t, h, w = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    n = t * h * w
    pick = lambda values: draw(st.sampled_from(list(values)))  # noqa: E731
    even = [
        "raster",
        "whole",
        f"row:{pick(divisors(h))}",
        f"frame:{pick(divisors(t))}",
        f"run:{pick(divisors(n))}",
        f"block:{pick(divisors(t))}x{pick(divisors(h))}x{pick(divisors(w))}",
    ]
    uneven = [
        "neighbor",
        f"subsample:{pick(range(1, min(h, w) + 1))}",
        f"random:{pick(range(9))}:{pick(range(1, n + 1))}",
        f"locality:{pick(range(9))}:{pick(range(1, n + 1))}",
    ]
    if n > 1:
        kept = torch.arange(n).view(grid) % (n - pick(range(n - 1))) == 0
        uneven.append(kept_order(kept, pick(range(9))))
    if h == w:
        levels = ",".join(map(str, sorted({1, max(1, h - 1), h})))
        uneven += [f"scale:{levels}", f"interlace:{levels}"]
    prediction = draw(st.sampled_from(predictions))
    if prediction == "neighbors":
        return compile_plan(make_schedule("neighbor", grid), "neighbors")
    if prediction == "self":
        order = pick([*even, *uneven])
        return compile_plan(make_schedule(order, grid), "self", continuous=draw(st.booleans()))
    start = "learned" if prediction == "shift" else prediction
    return compile_plan(make_schedule(pick(even), grid), "shift", start=start)


def mask(plan, rows=None):
    block, lane = plan.block, plan.lane
    if rows is not None:
        block, lane = block[rows], lane[rows]
    return visible(block, lane, block, lane)


def closure(plan):
    """Which rows reach which through any number of layers."""
    seen = mask(plan) | torch.eye(plan.rows).bool()
    while True:
        further = (seen.float() @ seen.float()) > 0
        if torch.equal(further, seen):
            return seen
        seen = further


def step_of_slot(plan):
    return torch.repeat_interleave(torch.arange(plan.steps), torch.tensor(plan.sizes))


# ---- the laws of design section 4 ------------------------------------------------------------


@quick
@given(plans())
def test_every_slot_is_decided_once_and_has_its_context_row(plan):
    slots = torch.cat([plan.slots_of_step(step) for step in range(plan.steps)])
    assert torch.equal(slots, torch.arange(plan.schedule.slots))
    context = (plan.input == Input.SLOT) & (plan.lane == 0)
    assert sorted(plan.source[context].tolist()) == slots.tolist()
    assert bool(plan.keep[context].all()) and torch.equal(plan.keep, plan.lane == 0)
    assert torch.equal(plan.block[context], step_of_slot(plan)[plan.source[context]] + 1)
    assert torch.equal(plan.coords[context], plan.schedule.coords[plan.source[context]])


@quick
@given(plans())
def test_reads_lie_before_the_slot_or_in_its_own_query(plan):
    step = step_of_slot(plan)
    for head in plan.reads:
        rows, slots = head[head >= 0], (head >= 0).nonzero()[:, 0]
        if plan.prediction == "self":
            assert bool((plan.lane[rows] == 1).all())
            assert torch.equal(plan.source[rows], slots)
            assert torch.equal(plan.block[rows], step[slots] + 1)
        else:
            assert bool((plan.lane[rows] == 0).all())
            assert bool((plan.block[rows] <= step[slots]).all())


@quick
@given(plans())
def test_nothing_that_a_read_row_reaches_holds_its_target(plan):
    reach, step = closure(plan), step_of_slot(plan)
    holds = plan.input == Input.SLOT
    for head in plan.reads:
        for slot, row in enumerate(head.tolist()):
            if row >= 0:
                reached = plan.source[reach[row] & holds]
                # Stronger than the target alone: no slot of its step or of a later one.
                assert not bool((step[reached] >= step[slot]).any())


@quick
@given(plans())
def test_feeding_block_by_block_with_a_cache_is_the_one_pass_mask(plan):
    whole, cache, fed = mask(plan), [], []
    for feed in [*(plan.rows_for_step(step) for step in range(plan.steps)), plan.final_rows]:
        rows = feed.tolist()
        inner = mask(plan, feed)
        for i, row in enumerate(rows):
            beside = [other for j, other in enumerate(rows) if inner[i, j]]
            assert set(cache) | set(beside) == set(whole[row].nonzero()[:, 0].tolist())
        if plan.prediction != "self":
            assert bool(inner.all())  # a call needs no mask
        kept = plan.keep[feed].tolist()
        assert kept == sorted(kept, reverse=True)  # kept rows come first in a call
        cache += [row for row, keep in zip(rows, kept) if keep]
        fed += rows
    assert fed == list(range(plan.rows))  # every row once, in feeding order


@quick
@given(plans())
def test_a_step_reads_only_rows_that_it_feeds(plan):
    for step in range(plan.steps):
        reads = plan.reads[:, plan.slots_of_step(step)]
        assert set(reads[reads >= 0].tolist()) <= set(plan.rows_for_step(step).tolist())


@quick
@given(plans(("neighbors",)))
def test_neighbors_read_one_step_nearer_along_each_axis(plan):
    _, h, w = plan.schedule.grid
    strides = dict(zip("tyx", (h * w, w, 1)))
    assert plan.heads == (tuple(a for a, n in zip("tyx", plan.schedule.grid) if n > 1) or ("x",))
    assert plan.reads[:, 0].tolist() == [PREFIX] * len(plan.heads)
    nonzero = (plan.schedule.coords > 0).sum(1)
    assert torch.equal((plan.reads[:, 1:] != NONE).sum(0), nonzero[1:])
    for name, head in zip(plan.heads, plan.reads):
        for slot, row in enumerate(head.tolist()):
            if row >= 0:
                site = plan.schedule.site[plan.source[row]]
                assert site == plan.schedule.site[slot] - strides[name]


@quick
@given(plans(("shift", "hybrid", "given")))
def test_shift_reads_the_same_place_in_the_block_before(plan):
    k = plan.schedule.sizes[0]
    rows = plan.reads[0, 2 * k :]
    assert plan.source[rows].tolist() == list(range(k, plan.schedule.slots - k))
    assert bool((plan.input[rows] == Input.SLOT).all())


@quick
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.data())
def test_numbers_of_steps(t, h, w, data):
    grid, n = (t, h, w), t * h * w

    def steps(order, prediction, **options):
        return compile_plan(make_schedule(order, grid), prediction, **options).steps

    assert steps("raster", "shift") == n
    k = data.draw(st.sampled_from(divisors(h)))
    assert steps(f"row:{k}", "shift") == t * h // k
    k = data.draw(st.sampled_from(divisors(n)))
    assert steps(f"run:{k}", "shift", start="hybrid") == k - 1 + n // k
    assert steps("neighbor", "neighbors") == t + h + w - 2
    blocks = data.draw(st.integers(1, n))
    assert steps(f"random:1:{blocks}", "self") == blocks
    assert steps(f"locality:1:{blocks}", "self") == blocks


@quick
@given(plans(("self",)))
def test_noisy_context_is_one_lane_that_sees_its_own_block_and_those_before(plan):
    noisy = compile_plan(plan.schedule, "self", noisy_context=True)
    assert bool((noisy.input == Input.NOISE).all()) and not bool(noisy.lane.any())
    assert noisy.reads[0].tolist() == noisy.source.tolist() == list(range(plan.schedule.slots))
    block = plan.schedule.block_of_slot
    assert torch.equal(mask(noisy), block[:, None] >= block[None])
    with pytest.raises(ValueError, match="noisy context"):
        noisy.rows_for_step(0)


# ---- the numbering that others rely on -------------------------------------------------------


def table(plan):
    """Rows as (input, source, block, lane)."""
    names = [Input(kind).name for kind in plan.input.tolist()]
    return list(zip(names, plan.source.tolist(), plan.block.tolist(), plan.lane.tolist()))


def test_rows_of_shift_with_learned_starts():
    plan = compile_plan(make_schedule("row:1", (1, 2, 2)), "shift")
    assert table(plan) == [
        ("START", 0, 0, 0),
        ("START", 1, 0, 0),
        ("SLOT", 0, 1, 0),
        ("SLOT", 1, 1, 0),
        ("SLOT", 2, 2, 0),
        ("SLOT", 3, 2, 0),
    ]
    assert plan.reads.tolist() == [[0, 1, 2, 3]] and plan.heads == ("y",)
    assert plan.coords[:2].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert [plan.rows_for_step(s).tolist() for s in (0, 1)] == [[0, 1], [2, 3]]
    assert plan.final_rows.tolist() == [4, 5]


def test_rows_of_shift_token_by_token():
    plan = compile_plan(make_schedule("raster", (1, 1, 3)), "shift")
    assert table(plan) == [("SLOT", 0, 1, 0), ("SLOT", 1, 2, 0), ("SLOT", 2, 3, 0)]
    assert plan.reads.tolist() == [[PREFIX, 0, 1]]
    assert plan.rows_for_step(0).tolist() == [] and plan.rows_for_step(2).tolist() == [1]


def test_rows_of_the_hybrid_start():
    plan = compile_plan(make_schedule("run:3", (1, 3, 3)), "shift", start="hybrid")
    assert table(plan) == [
        ("SLOT", 0, 1, 0),
        ("SLOT", 1, 2, 0),
        ("SLOT", 2, 3, 0),
        ("START", 1, 3, 0),
        ("START", 2, 3, 0),
        *[("SLOT", s, 4, 0) for s in (3, 4, 5)],
        *[("SLOT", s, 5, 0) for s in (6, 7, 8)],
    ]
    assert plan.reads.tolist() == [[PREFIX, 0, 1, 2, 3, 4, 5, 6, 7]]
    assert plan.sizes == (1, 1, 1, 3, 3)
    assert plan.rows_for_step(3).tolist() == [2, 3, 4]


def test_a_given_first_block_has_no_reads():
    plan = compile_plan(make_schedule("frame:1", (2, 1, 2)), "shift", start="given")
    assert plan.reads.tolist() == [[NONE, NONE, 0, 1]] and plan.rows == 4


def test_rows_of_self():
    plan = compile_plan(make_schedule("row:1", (1, 2, 2)), "self")
    assert table(plan) == [
        ("MASK", 0, 1, 1),
        ("MASK", 1, 1, 1),
        ("SLOT", 0, 1, 0),
        ("SLOT", 1, 1, 0),
        ("MASK", 2, 2, 1),
        ("MASK", 3, 2, 1),
        ("SLOT", 2, 2, 0),
        ("SLOT", 3, 2, 0),
    ]
    assert plan.reads.tolist() == [[0, 1, 4, 5]] and plan.heads == ("self",)
    assert [plan.rows_for_step(s).tolist() for s in (0, 1)] == [[0, 1], [2, 3, 4, 5]]
    assert plan.final_rows.tolist() == [6, 7]


def test_queries_of_continuous_models_are_noise():
    for order, options in [("cell:2", {"continuous": True}), ("scale:1,2,4", {})]:
        plan = compile_plan(make_schedule(order, (1, 4, 4)), "self", **options)
        assert set(plan.input[plan.lane == 1].tolist()) == {Input.NOISE}


@pytest.mark.parametrize(
    ("order", "grid", "head"),
    [
        ("raster", (1, 4, 4), "x"),
        ("run:2", (2, 4, 4), "x"),
        ("cell:2", (1, 4, 4), "x"),
        ("subsample:2", (1, 4, 4), "x"),
        ("row:2", (2, 4, 4), "y"),
        ("run:4", (2, 4, 4), "y"),
        ("frame:1", (3, 4, 4), "t"),
        ("whole", (1, 4, 4), "t"),
        ("raster", (1, 4, 1), "y"),
    ],
)
def test_shift_names_its_head_by_the_axis_along_which_blocks_follow(order, grid, head):
    assert compile_plan(make_schedule(order, grid), "shift").heads == (head,)


@pytest.mark.parametrize(
    ("order", "prediction", "options", "words"),
    [
        ("neighbor", "shift", {}, "blocks of equal size"),
        ("raster", "neighbors", {}, "goes with order 'neighbor'"),
        ("raster", "shfit", {}, "did you mean 'shift'"),
        ("raster", "shift", {"start": "hybird"}, "did you mean 'hybrid'"),
        ("neighbor", "neighbors", {"start": "hybrid"}, "goes with prediction 'shift'"),
        ("row:1", "shift", {"noisy_context": True}, "go with prediction 'self'"),
    ],
)
def test_what_does_not_fit_together_is_said(order, prediction, options, words):
    with pytest.raises(ConfigError) as error:
        compile_plan(make_schedule(order, (1, 4, 4)), prediction, **options)
    assert words in str(error.value)


# ---- published systems -----------------------------------------------------------------------


def golden(name):
    folder = SHARED / "goldens" / name
    if not folder.is_dir():
        pytest.skip(f"no reference numerics at {folder}")
    return load_file(folder / "tensors.safetensors")


@pytest.mark.parametrize(
    ("name", "grid", "order", "start", "prefix"),
    [
        ("nbp-rows-tiny", (3, 4, 4), "row:1", "hybrid", 9),
        ("nbp-label-tiny", (2, 4, 4), "row:2", "hybrid", 2),
        ("nbp-label-tiny", (2, 4, 4), "run:8", "hybrid", 2),
        ("nbp-ntp-tiny", (2, 3, 3), "raster", "hybrid", 9),
        ("nbp-frames-tiny", (5, 4, 4), "frame:1", "given", 0),
        ("nbp-frames-rows-tiny", (5, 4, 4), "run:4", "given", 0),
    ],
)
def test_masks_of_nbp(name, grid, order, start, prefix):
    schedule = make_schedule(order, grid)
    plan = compile_plan(schedule, "shift", start=start)
    rows = torch.arange(plan.rows - schedule.sizes[-1])  # training does not feed the last block
    for sample in golden(name)["attention_mask"]:
        assert torch.equal(sample[prefix:, prefix:].bool(), mask(plan, rows))


@pytest.mark.parametrize(
    ("name", "grid", "letters"),
    [("nar-c2i-tiny", (1, 4, 4), {"x": "R", "y": "B"}),
     ("nar-video-tiny", (2, 3, 4), {"x": "R", "y": "D", "t": "B"})],
)  # fmt: skip
def test_mask_order_and_heads_of_nar(name, grid, letters):
    case = golden(name)
    schedule = make_schedule("neighbor", grid)
    plan = compile_plan(schedule, "neighbors")
    raster = torch.argsort(schedule.site)  # rows are slots here; the official rows are sites
    train_mask = case["train_mask"].view(-1, *case["train_mask"].shape[-2:])[0]
    assert torch.equal(train_mask[1:, 1:].bool(), mask(plan, raster))
    assert torch.equal(case["gen_order_position"], schedule.site)
    assert torch.equal(case["gen_order_step"], schedule.block_of_slot)
    for head, reads in zip(plan.heads, plan.reads):
        target = case[f"target_position_{letters[head]}"]  # by sequence position, 0 is the prefix
        expected = torch.full_like(target, -1)
        for slot, row in enumerate(reads.tolist()):
            if row != NONE:
                expected[0 if row == PREFIX else schedule.site[row] + 1] = schedule.site[slot]
        assert torch.equal(target, expected)
