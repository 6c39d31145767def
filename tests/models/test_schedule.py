from __future__ import annotations

import math
import os
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mmgen.errors import ConfigError
from mmgen.models.locality import NEIGHBOURS, ONE
from mmgen.models.schedule import (
    UNITS,
    after_frames,
    default_prediction,
    describe,
    make_schedule,
    parse_grid,
    to_grid,
    to_slots,
    unit_order,
)
from mmgen.models.spellings import kept_order

SHARED = Path(os.environ.get("MMGEN_SHARED", Path(__file__).parents[2] / "../shared"))
quick = settings(max_examples=60, deadline=None)


def divisors(n):
    return [k for k in range(1, n + 1) if n % k == 0]


@st.composite
def grids(draw):
    return draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6))


@st.composite
def masks(draw, grid):
    """Some sites of a grid of two or more, not none and not all."""
    t, h, w = grid
    bits = draw(st.lists(st.booleans(), min_size=t * h * w, max_size=t * h * w))
    bits[0], bits[-1] = True, False
    return torch.tensor(draw(st.permutations(bits))).view(grid)


@st.composite
def orders(draw, grid, scale=False):
    t, h, w = grid
    n = t * h * w
    pick = lambda k: draw(st.sampled_from(divisors(k)))  # noqa: E731
    kinds = {
        "raster": lambda: "raster",
        "whole": lambda: "whole",
        "neighbor": lambda: "neighbor",
        "row": lambda: f"row:{pick(h)}",
        "frame": lambda: f"frame:{pick(t)}",
        "cell": lambda: f"cell:{draw(st.sampled_from([k for k in divisors(h) if w % k == 0]))}",
        "block": lambda: f"block:{pick(t)}x{pick(h)}x{pick(w)}",
        "run": lambda: f"run:{pick(n)}",
        "subsample": lambda: f"subsample:{draw(st.integers(1, min(h, w)))}",
        "random": lambda: f"random:{draw(st.integers(0, 99))}:{draw(st.integers(1, n))}",
        "locality": lambda: f"locality:{draw(st.integers(0, 99))}:{draw(st.integers(1, n))}",
    }
    if n > 1:
        kinds["kept"] = lambda: kept_order(draw(masks(grid)), draw(st.integers(0, 99)))
    levels = lambda: sorted({h, *draw(st.lists(st.integers(1, h), max_size=3))})  # noqa: E731
    if h == w:
        kinds["interlace"] = lambda: f"interlace:{','.join(map(str, levels()))}"
    if scale and h == w:
        kinds["scale"] = lambda: f"scale:{','.join(map(str, levels()))}"
    return kinds[draw(st.sampled_from(sorted(kinds)))]()


@st.composite
def cases(draw, scale=False):
    grid = draw(grids())
    return draw(orders(grid, scale)), grid


def blocks_of(schedule):
    """Each block as a list of (t, y, x)."""
    places = [tuple(place) for place in schedule.coords.long().tolist()]
    return [places[a : a + n] for a, n in zip(schedule.starts, schedule.sizes)]


@quick
@given(cases())
def test_every_site_is_decided_once_in_non_empty_blocks(case):
    order, grid = case
    schedule = make_schedule(order, grid)
    n = grid[0] * grid[1] * grid[2]
    assert sorted(schedule.site.tolist()) == list(range(n))
    assert sum(schedule.sizes) == n == schedule.slots and min(schedule.sizes) >= 1
    assert schedule.block_of_slot.bincount().tolist() == list(schedule.sizes)
    t, y, x = schedule.coords.long().unbind(1)
    assert torch.equal((t * grid[1] + y) * grid[2] + x, schedule.site)
    assert make_schedule(schedule.order, grid).site.tolist() == schedule.site.tolist()


@quick
@given(grids(), st.data())
def test_cuboids_are_raster_inside_and_among(grid, data):
    a, b, c = (data.draw(st.sampled_from(divisors(size))) for size in grid)
    blocks = blocks_of(make_schedule(f"block:{a}x{b}x{c}", grid))
    corners = [block[0] for block in blocks]
    assert corners == sorted(corners)
    for (t, y, x), block in zip(corners, blocks):
        expected = [(t + i, y + j, x + k) for i in range(a) for j in range(b) for k in range(c)]
        assert block == expected


@quick
@given(grids(), st.data())
def test_spellings_of_blocks(grid, data):
    t, h, w = grid
    k = data.draw(st.sampled_from(divisors(h)))
    same = {
        "raster": "block:1x1x1",
        f"row:{k}": f"block:1x{k}x{w}",
        "row": f"run:{w}",
        f"frame:{t}": f"block:{t}x{h}x{w}",
        "whole": f"block:{t}x{h}x{w}",
        "cell:1": "raster",
        "subsample:1": "whole",
        "subsample:1x1": "subsample:1",
    }
    for one, other in same.items():
        one, other = make_schedule(one, grid), make_schedule(other, grid)
        assert torch.equal(one.site, other.site) and one.sizes == other.sizes


@quick
@given(grids())
def test_neighbor_blocks_are_the_planes_of_equal_distance(grid):
    schedule = make_schedule("neighbor", grid)
    assert schedule.blocks == sum(grid) - 2
    for distance, block in enumerate(blocks_of(schedule)):
        assert {sum(place) for place in block} == {distance}
        assert block == sorted(block)


@quick
@given(grids(), st.data())
def test_subsample_blocks_share_remainders(grid, data):
    k = data.draw(st.integers(1, min(grid[1:])))
    blocks = blocks_of(make_schedule(f"subsample:{k}", grid))
    assert len(blocks) == k * k
    for i, block in enumerate(blocks):
        assert {(y % k, x % k) for _, y, x in block} == {divmod(i, k)}
        assert block == sorted(block)
    down, across = (data.draw(st.integers(1, side)) for side in grid[1:])
    blocks = blocks_of(make_schedule(f"subsample:{down}x{across}", grid))
    for i, block in enumerate(blocks):
        assert {(y % down, x % across) for _, y, x in block} == {divmod(i, across)}


@quick
@given(grids(), st.integers(0, 9), st.data())
def test_random_blocks_grow_like_a_cosine(grid, seed, data):
    n = grid[0] * grid[1] * grid[2]
    k = data.draw(st.integers(1, n))
    sizes = make_schedule(f"random:{seed}:{k}", grid).sizes
    assert len(sizes) == k
    assert all(b >= a - 1 for a, b in pairwise(sizes))  # rounding takes one at most


def locality_by_hand(grid, seed, blocks):
    """LPD's rule word by word, with sets of places and square roots; slow."""
    shuffled = blocks_of(make_schedule(f"random:{seed}:1", grid))[0]
    sizes = make_schedule(f"random:{seed}:{blocks}", grid).sizes
    touch = lambda a, b: max(abs(i - j) for i, j in zip(a, b)) <= 1  # noqa: E731
    decided, groups = set(), []
    for size in sizes:
        near = {
            place: sum(1 / math.dist(place, other) for other in decided if touch(place, other))
            for place in shuffled
            if place not in decided
        }
        free = sorted(near, key=lambda place: (-round(near[place], 4), shuffled.index(place)))
        group = []
        for place in free:
            if near[place] > 1 - 1e-9 and len(group) < size:
                group += [place] * (not any(touch(place, other) for other in group))
        while len(group) < size:
            left = [place for place in free if place not in group]
            apart = [min((math.dist(a, b) for b in group), default=9e9) for a in left]
            group.append(left[apart.index(max(apart))])
        decided |= set(group)
        groups.append(group)
    return groups


@quick
@given(grids(), st.integers(0, 99), st.data())
def test_localities_are_those_of_the_rule(grid, seed, data):
    blocks = data.draw(st.integers(1, math.prod(grid)))
    schedule = make_schedule(f"locality:{seed}:{blocks}", grid)
    assert blocks_of(schedule) == locality_by_hand(grid, seed, blocks)


@pytest.mark.parametrize("grid", [(1, 8, 8), (1, 16, 16), (5, 8, 8)])
@pytest.mark.parametrize("seed", range(3))
def test_localities_lie_beside_what_is_decided_and_seldom_beside_each_other(grid, seed):
    def beside(place, others):
        return any(sum(abs(i - j) for i, j in zip(place, other)) == 1 for other in others)

    def shares(order):
        """How many sites of later blocks lie beside earlier ones, and how many beside their own."""
        blocks = blocks_of(make_schedule(f"{order}:{seed}:{round(math.prod(grid) ** 0.5)}", grid))
        near, close, before = [], [], blocks[0]
        for block in blocks[1:]:
            near += [beside(place, before) for place in block]
            close += [beside(place, block) for place in block]
            before = before + block
        return sum(near) / len(near), sum(close) / len(close)

    near, close = shares("locality")
    random_near, random_close = shares("random")
    assert near > random_near + 0.1 and close < random_close / 1.8


def test_locality_is_a_fixed_function_of_its_seed():
    site = make_schedule("locality:3:4", (1, 3, 3)).site.tolist()
    assert site == [0, 1, 6, 3, 2, 8, 4, 7, 5]
    assert make_schedule("locality:3:4", (1, 3, 3)).sizes == (1, 2, 3, 3)
    assert make_schedule("locality:4:4", (1, 3, 3)).site.tolist() != site


def test_whole_numbers_order_proximities_as_roots_do():
    counts = list(product(range(7), range(13), range(9)))  # touching along 1, 2 and 3 axes
    places = [(0, 0, 1), (0, 1, 1), (1, 1, 1)]
    exact = [sum(n / math.dist(p, (0, 0, 0)) for n, p in zip(each, places)) for each in counts]
    whole = [sum(n * NEIGHBOURS[p] for n, p in zip(each, places)) for each in counts]
    rank = lambda values: sorted(range(len(counts)), key=values.__getitem__)  # noqa: E731
    assert rank(exact) == rank(whole) and len(set(whole)) == len(counts)
    assert all((a > 1 - 1e-9) == (b >= ONE) for a, b in zip(exact, whole))


@quick
@given(st.integers(1, 3), st.integers(1, 9), st.data())
def test_interlace_decides_what_scale_picks_each_once(t, side, data):
    sizes = sorted({side, *data.draw(st.lists(st.integers(1, side), max_size=3))})
    blocks = blocks_of(make_schedule(f"interlace:{','.join(map(str, sizes))}", (t, side, side)))
    seen = set()
    for size, block in zip(sizes, blocks, strict=True):
        picks = [i * side // size for i in range(size)]
        assert block == [p for p in product(range(t), picks, picks) if p not in seen]
        seen |= set(block)


@quick
@given(grids().filter(lambda grid: grid != (1, 1, 1)), st.data())
def test_kept_sites_come_first_and_together(grid, data):
    mask = data.draw(masks(grid))
    seed, blocks = data.draw(st.integers(0, 99)), data.draw(st.integers(1, int((~mask).sum())))
    schedule = make_schedule(kept_order(mask, seed, blocks), grid)
    kept = mask.flatten().nonzero().squeeze(1)
    assert schedule.blocks == 1 + blocks and schedule.sizes[0] == len(kept)
    assert torch.equal(schedule.site[: len(kept)], kept)
    others = make_schedule(f"random:{seed}:{blocks}", (1, 1, int((~mask).sum())))
    left = (~mask).flatten().nonzero().squeeze(1)
    assert torch.equal(schedule.site[len(kept) :], left[others.site])
    assert schedule.sizes[1:] == others.sizes


def test_random_is_a_fixed_function_of_its_seed():
    site = make_schedule("random:3:4", (1, 3, 3)).site.tolist()
    assert site == [0, 4, 7, 1, 5, 6, 3, 8, 2]
    assert make_schedule("random:3:4", (1, 3, 3)).sizes == (1, 2, 3, 3)
    assert make_schedule("random:4:4", (1, 3, 3)).site.tolist() != site


def test_scale_goes_from_coarse_to_fine():
    schedule = make_schedule("scale:1,2,4", (1, 4, 4))
    assert schedule.sizes == (1, 4, 16)
    assert schedule.site.tolist() == [-1] * 5 + list(range(16))
    assert schedule.coords[:5].tolist() == [
        [0, 1.5, 1.5],
        [0, 0.5, 0.5],
        [0, 0.5, 2.5],
        [0, 2.5, 0.5],
        [0, 2.5, 2.5],
    ]
    assert torch.equal(schedule.coords[5:], make_schedule("raster", (1, 4, 4)).coords)


@quick
@given(cases(scale=True), st.booleans())
def test_slots_and_grid_are_inverse(case, latents):
    order, grid = case
    schedule = make_schedule(order, grid)
    values = torch.randn(2, *grid, 3)
    if not latents and not order.startswith("scale"):
        values = (values * 10).long()[..., 0]
    slots = to_slots(schedule, values)
    assert slots.shape[:2] == (2, schedule.slots)
    assert torch.equal(to_grid(schedule, slots), values)


def test_area_averages_and_nearest_picks():
    values = torch.arange(16.0).view(1, 1, 4, 4, 1)
    nearest = to_slots(make_schedule("scale:1,2,4", (1, 4, 4)), values)
    area = to_slots(make_schedule("scale:1,2,4:area", (1, 4, 4)), values)
    assert nearest[0, :5, 0].tolist() == [0, 0, 2, 8, 10]
    assert area[0, :5, 0].tolist() == [7.5, 2.5, 4.5, 10.5, 12.5]
    assert make_schedule("scale:1,2,4:nearest", (1, 4, 4)).order == "scale:1,2,4"


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("token", "raster"),
        ("image", "whole"),
        *((f"cell{k}", f"cell:{k}") for k in (2, 4, 8)),
        *((f"subsample{d}", f"subsample:{16 // d}") for d in (2, 4, 8)),
        ("scale", "scale:1,2,4,8,16"),
    ],
)
def test_entities_of_xar(name, order):
    folder = SHARED / "goldens/xar-entities"
    if not folder.is_dir():
        pytest.skip(f"no reference numerics at {folder}")
    case = load_file(folder / "tensors.safetensors")
    latent = case["latent"].movedim(1, -1)[:, None]  # (B, 1, h, w, C)
    assert torch.equal(to_slots(make_schedule(order, (1, 16, 16)), latent), case[name])


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("nieghbor", "did you mean 'neighbor'?"),
        ("locality:8", "'locality:seed:n' with whole numbers"),
        ("locality:1:65", "n can be 1 to 64."),
        ("locality:-1:4", "'locality:seed:n'"),
        ("interlace", "'interlace:s1,s2,...'"),
        ("interlace:1,2,4", "end with the grid's 8, as in 'interlace:1,2,4,8'."),
        ("interlace:1,2,4,8:area", "'interlace:s1,s2,...'"),
        ("", "known are"),
        ("row:3", "sizes that divide are 1, 2, 4, 8."),
        ("cell:6", "sizes that divide are 1, 2, 4, 8."),
        ("block:1x2x5", "sizes that divide are 1, 2, 4, 8."),
        ("frame:2", "sizes that divide are 1."),
        ("run:7", "sizes that divide are 1, 2, 4, 8, 16, 32, 64."),
        ("row:0", "'row:k' with whole numbers from 1 up"),
        ("row:-1", "'row:k'"),
        ("row:1.5", "'row:k'"),
        ("row:１", "'row:k'"),
        ("row:" + "9" * 5000, "'row:k'"),
        ("row:1:2", "'row:k'"),
        ("run", "'run:k'"),
        ("cell", "'cell:k'"),
        ("block:2x2", "'block:AxBxC'"),
        ("block:1:2:2", "'block:AxBxC'"),
        ("raster:2", "takes no argument"),
        ("subsample:9", "k can be 1 to 8."),
        ("subsample:2x9", "the most is 8x8."),
        ("subsample:2x", "is not of the form 'subsample:BxC' with whole numbers from 1 up."),
        ("random:1", "'random:seed:n'"),
        ("random:1:65", "n can be 1 to 64."),
        ("random:1:0", "'random:seed:n'"),
        ("kept", "a mask of 16 hexadecimal digits, a bit for each of the 64 sites"),
        ("kept:ff:1:1", "a mask of 16 hexadecimal digits"),
        ("kept:00000000000000F0:1:1", "a mask of 16 hexadecimal digits"),
        ("kept:00000000000000f0:1", "'kept:mask:seed:n'"),
        ("kept:00000000000000f0:1:0", "'kept:mask:seed:n'"),
        ("kept:00000000000000f0:1:61", "keeps 4 of the 64 sites"),
        ("kept:0000000000000000:1:1", "keep one or more"),
        ("kept:ffffffffffffffff:1:1", "leave one for each block"),
        ("scale", "'scale:s1,s2,...'"),
        ("scale:1,,8", "'scale:s1,s2,...'"),
        ("scale:1,2,4", "end with the grid's 8, as in 'scale:1,2,4,8'."),
        ("scale:4,2,8", "must rise"),
        ("scale:1,8:cubic", "':nearest' or ':area'"),
    ],
)
def test_wrong_orders_are_answered_in_a_sentence(order, words):
    with pytest.raises(ConfigError) as error:
        make_schedule(order, (1, 8, 8))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_wrong_grids_and_values_are_answered():
    for grid in [(0, 2, 2), (2, 2), (1, 2, -1), (1, 2, 2.0)]:
        with pytest.raises(ConfigError, match="three whole numbers"):
            make_schedule("raster", grid)
    with pytest.raises(ConfigError, match="square grid"):
        make_schedule("scale:1,2", (1, 2, 3))
    with pytest.raises(ConfigError, match="not codes"):
        to_slots(make_schedule("scale:1,2", (1, 2, 2)), torch.zeros(1, 1, 2, 2).long())
    with pytest.raises(ConfigError, match="grid is 1x2x3"):
        to_slots(make_schedule("raster", (1, 2, 2)), torch.zeros(1, 1, 2, 3))


def test_grids_are_read():
    assert parse_grid("8x6") == (1, 8, 6) and parse_grid(" 4x8x6") == (4, 8, 6)
    for text in ["8", "8x", "0x8", "8x8x8x8", "axb", "8,8", ""]:
        with pytest.raises(ConfigError):
            parse_grid(text)


def test_units_and_default_predictions():
    assert unit_order("block", (1, 4, 4)) == ("row:1", "shift")
    for unit in UNITS:
        order, prediction = unit_order(unit, (2, 4, 4))
        assert default_prediction(order) == prediction
        make_schedule(order, (2, 4, 4))
    with pytest.raises(ConfigError, match="did you mean 'block'"):
        unit_order("blok", (1, 4, 4))
    predictions = {
        "raster": "shift",
        "run:4": "shift",
        "cell:1": "shift",
        "cell:2": "self",
        "block:1x1x1": "shift",
        "block:1x2x2": "self",
        "subsample:2": "self",
        "random:0:4": "self",
        "locality:0:4": "self",
        "locality": "self",
        "interlace:1,2": "self",
        "kept:f0:0:1": "self",
        "scale:1,2": "self",
        "whole": "self",
    }
    assert {order: default_prediction(order) for order in predictions} == predictions
    with pytest.raises(ConfigError, match="did you mean 'raster'"):
        default_prediction("rastr")


def test_a_schedule_describes_itself():
    assert describe(make_schedule("row:2", (1, 8, 8))) == (
        "row:2 over 1x8x8: 64 slots, 4 blocks of 16"
    )
    assert describe(make_schedule("frame", (1, 2, 2))) == (
        "frame:1 over 1x2x2: 4 slots, 1 block of 4"
    )
    assert "15 blocks of 1 to 8" in describe(make_schedule("neighbor", (1, 8, 8)))


# -- frames that are decided already -------------------------------------------------------------


@quick
@given(st.data())
def test_given_frames_are_the_first_block_and_the_others_keep_their_order(data):
    t, h, w = grid = (data.draw(st.integers(2, 4)), *data.draw(grids())[1:])
    schedule = make_schedule(data.draw(orders(grid)), grid)
    frames = data.draw(st.integers(1, t - 1))
    after = after_frames(schedule, frames)
    known = frames * h * w
    assert sorted(after.site.tolist()) == list(range(t * h * w)) and sum(after.sizes) == t * h * w
    assert after.sizes[0] == known and set(after.site[:known].tolist()) == set(range(known))
    assert after.site[known:].tolist() == [i for i in schedule.site.tolist() if i >= known]
    place = torch.stack([after.site // (h * w), after.site // w % h, after.site % w], 1)
    assert torch.equal(after.coords, place.float())
    # Sites share a block afterwards if and only if they shared one before.
    block = dict(zip(schedule.site.tolist(), schedule.block_of_slot.tolist()))
    mine = dict(zip(after.site.tolist(), after.block_of_slot.tolist()))
    left = after.site[known:].tolist()
    for one, other in pairwise(left):
        assert (mine[one] == mine[other]) == (block[one] == block[other])
    assert after.order == schedule.order


@pytest.mark.parametrize("frames", [0, 2, 5])
def test_some_frames_are_left_to_decide(frames):
    with pytest.raises(ConfigError, match="cannot go on from"):
        after_frames(make_schedule("neighbor", (2, 3, 3)), frames)
    with pytest.raises(ConfigError, match="coarse levels"):
        after_frames(make_schedule("scale:1,3", (2, 3, 3)), 1)
