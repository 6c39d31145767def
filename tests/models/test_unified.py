"""The unified transformer: its losses against loops, what sees what, positions, and learning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.heads import resolve_prefix
from mmgen.models.plan import Plan, compile_plan
from mmgen.models.rope import axis_pairs, rope_table
from mmgen.models.rows import Rows, concatenate
from mmgen.models.schedule import make_schedule, to_slots
from mmgen.models.text import BOS, EOS, PAD
from mmgen.models.unified import UnifiedModel, Unit, plan_for
from mmgen.sample.draw import DrawSettings
from mmgen.sample.engine import DecodeSettings, decode, last_step, text_prefix
from mmgen.sample.text import decode_text

Make = Callable[..., UnifiedModel]
GRIDS = [(1, 3, 4), (2, 2, 3)]
NAMES = ["token", "block", "neighbor", "any"]
VOCAB, CODES = 50, 40


def texts(lengths: list[int], end: bool = False, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Ids `<bos> ... (<eos>)` of those lengths, padded on the right, and their mask."""
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(4, VOCAB, valid.shape, generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = BOS
    if end:
        ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = EOS
    return ids.where(valid, PAD), valid


def codes_of(grid: tuple[int, int, int], batch: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(CODES, (batch, *grid), generator=generator)


def busy(model: UnifiedModel) -> UnifiedModel:
    """Give every parameter a value that matters (biases begin at zero, norms at one)."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


# -- one sequence in loops, from the orders' definitions ----------------------------------------


class Sequence:
    """Rows of one sequence without padding: vectors, places, and who sees whom, one by one."""

    def __init__(self, model: UnifiedModel) -> None:
        self.model, self.tables = model, model.tables()
        self.x: list[Tensor] = []
        self.places: list[tuple[float, float, float]] = []
        self.sees: list[set[int]] = []
        self.context: set[int] = set()  # rows that everything later sees
        self.position = 0

    def add(self, x: Tensor, place: tuple[float, ...], sees: set[int]) -> int:
        self.x.append(x)
        self.places.append(place)  # type: ignore[arg-type]
        self.sees.append(set(sees))
        return len(self.x) - 1

    def token(self, x: Tensor) -> int:
        """A row of its own: a text token or a marker."""
        row = self.add(x, (self.position,) * 3, self.context)
        self.sees[row].add(row)
        self.context.add(row)
        self.position += 1
        return row

    def text(self, ids: list[int]) -> list[int]:
        return [self.token(self.model.text_embedding.weight[i]) for i in ids]

    def marker(self, name: str) -> int:
        return self.token(self.model.markers.weight[self.model.marker_names.index(name)])

    def together(self, rows: list[tuple[Tensor, tuple[int, ...]]], unit: str) -> list[int]:
        """Rows of a picture that see each other and all the context."""
        out = []
        for x, site in rows:
            marker = self.model.markers.weight[self.model.marker_names.index(unit)]
            places = self.model.places
            x = x + marker + sum(table.weight[i] for table, i in zip(places, site))
            out.append(self.add(x, tuple(self.position + i for i in site), self.context))
        for row in out:
            self.sees[row] |= set(out)
        return out

    def hidden(self) -> Tensor:
        """(R, W)."""
        mask = torch.zeros(len(self.x), len(self.x), dtype=torch.bool)
        for row, seen in enumerate(self.sees):
            mask[row, list(seen)] = True
        config = self.model.config
        pairs = axis_pairs(config.backbone.head_dim)
        coords = torch.tensor(self.places, dtype=torch.float32)[None]
        rope = rope_table(coords, pairs, config.rope_base)
        out: Tensor = self.model.backbone(torch.stack(self.x)[None], rope, mask[None])
        return out[0]


Site = tuple[int, int, int]
Reads = dict[Site, list[tuple[str, int]]]  # who predicts a site: head and row


def blocks_of(unit: Unit, grid: tuple[int, int, int], plan: Plan) -> list[list[Site]]:
    sites = [(t, y, x) for t in range(grid[0]) for y in range(grid[1]) for x in range(grid[2])]
    if unit.name == "token":
        return [[site] for site in sites]
    if unit.name == "block":
        return [sites[i : i + grid[2]] for i in range(0, len(sites), grid[2])]
    if unit.name == "neighbor":
        far = sum(grid) - 2
        return [[site for site in sites if sum(site) == d] for d in range(far)]
    order = [sites[i] for i in plan.schedule.site.tolist()]
    starts = [sum(plan.schedule.sizes[:i]) for i in range(plan.schedule.blocks)]
    return [order[s : s + n] for s, n in zip(starts, plan.schedule.sizes)]


def add_picture(
    sequence: Sequence, unit: Unit, codes: Tensor, plan: Plan, *, asked: bool = True
) -> Reads:
    """Rows of a picture (t, h, w) behind its marker; `asked`: with the rows that only predict."""
    model, grid = sequence.model, tuple(codes.shape)
    blocks = blocks_of(unit, grid, plan)  # type: ignore[arg-type]
    marker, reads = len(sequence.x) - 1, dict[Site, list[tuple[str, int]]]()
    row_of: dict[Site, int] = {}
    if unit.name == "block":  # learned start tokens, at the places that they predict
        first = blocks[0]
        rows = sequence.together(
            [(model.starts.weight[i], s) for i, s in enumerate(first)], "block"
        )
        sequence.context |= set(rows)
        reads |= {site: [("y", row)] for site, row in zip(first, rows)}
    for number, block in enumerate(blocks):
        if unit.name == "any" and asked:
            queries = sequence.together([(model.mask_token, site) for site in block], "any")
            reads |= {site: [("self", row)] for site, row in zip(block, queries)}
        tokens = [(sequence.tables.embedding[codes[site]], site) for site in block]
        rows = sequence.together(tokens, unit.name)
        sequence.context |= set(rows)
        row_of |= dict(zip(block, rows))
        if unit.name == "block" and number + 1 < len(blocks):
            reads |= {site: [("y", row)] for site, row in zip(blocks[number + 1], rows)}
    order = [site for block in blocks for site in block]
    if unit.name == "token":
        behind = [marker] + [row_of[site] for site in order[:-1]]
        reads = {site: [("x", row)] for site, row in zip(order, behind)}
    if unit.name == "neighbor":
        axes = [axis for axis in range(3) if grid[axis] > 1]
        for site in order:
            near = {a: tuple(c - (i == a) for i, c in enumerate(site)) for a in axes if site[a]}
            reads[site] = [("tyx"[a], row_of[s]) for a, s in near.items()]  # type: ignore[index]
        reads[order[0]] = [("tyx"[axis], marker) for axis in axes]
    sequence.position += max(grid)
    return reads


def slow_image_loss(
    model: UnifiedModel, unit: Unit, ids, valid, codes: Tensor, plan: Plan
) -> float:
    losses = []
    for words, mask, picture in zip(ids, valid, codes):
        sequence = Sequence(model)
        sequence.text(words[mask].tolist())
        sequence.marker(unit.name)
        reads = add_picture(sequence, unit, picture, plan)
        hidden = sequence.hidden()
        assert len(reads) == picture.numel()
        for site, speakers in reads.items():
            told = []
            for name, row in speakers:
                query = model.head.outs[name](model.head.norms[name](hidden[row]))
                told.append(sequence.tables.logit @ query + model.head.bias)
            logits = torch.stack(told).mean(0)
            losses.append(float(logits.logsumexp(0) - logits[picture[site]]))
    return sum(losses) / len(losses)


def slow_text_loss(model: UnifiedModel, unit: Unit, codes: Tensor, plan: Plan, ids, valid) -> float:
    losses = []
    for words, mask, picture in zip(ids, valid, codes):
        sequence = Sequence(model)
        sequence.marker(unit.name)
        add_picture(sequence, unit, picture, plan, asked=False)
        sequence.marker("end")
        kept = words[mask].tolist()
        rows = sequence.text(kept[:-1])
        hidden = sequence.hidden()
        for row, target in zip(rows, kept[1:]):
            normed = model.text_norm(hidden[row]) / model.config.backbone.width**0.5
            logits = model.text_embedding.weight @ normed + model.text_bias
            losses.append(float(logits.logsumexp(0) - logits[target]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_picture_loss_equals_loops(tiny_model: Make, name: str, grid) -> None:
    model = busy(tiny_model(grid))
    unit = model.config.unit(name)
    plan, codes = plan_for(unit, grid, seed=5), codes_of(grid, 3)
    ids, valid = texts([5, 1, 3])
    with torch.no_grad():
        slots = to_slots(plan.schedule, codes)
        loss = model.text_to_image_loss(ids, valid, slots, plan, name)
        assert abs(float(loss) - slow_image_loss(model, unit, ids, valid, codes, plan)) < 2e-5


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_caption_loss_equals_loops(tiny_model: Make, name: str, grid) -> None:
    model = busy(tiny_model(grid))
    unit = model.config.unit(name)
    plan, codes = plan_for(unit, grid, seed=5), codes_of(grid, 3)
    ids, valid = texts([6, 2, 4], end=True)
    with torch.no_grad():
        slots = to_slots(plan.schedule, codes)
        loss = model.image_to_text_loss(slots, plan, name, ids, valid)
        assert abs(float(loss) - slow_text_loss(model, unit, codes, plan, ids, valid)) < 2e-5


@pytest.mark.parametrize("name", NAMES)
def test_a_new_model_knows_nothing(tiny_model: Make, name: str) -> None:
    model = tiny_model((1, 6, 6))
    unit = model.config.unit(name)
    plan, codes = plan_for(unit, (1, 6, 6)), codes_of((1, 6, 6), 16)
    slots = to_slots(plan.schedule, codes)
    ids, valid = texts([9] * 16, end=True)
    with torch.no_grad():
        image = float(model.text_to_image_loss(ids, valid, slots, plan, name))
        text = float(model.image_to_text_loss(slots, plan, name, ids, valid))
    assert math.log(CODES) - 0.1 < image < math.log(CODES) + 0.4
    assert math.log(VOCAB) - 0.2 < text < math.log(VOCAB) + 0.5


# -- what sees what ----------------------------------------------------------------------------


def hidden_of(model: UnifiedModel, plan: Plan, name: str, ids, valid, slots: Tensor) -> Tensor:
    """Hidden states of text, marker and picture rows, as the picture loss computes them."""
    cursor, tables = model.begin(len(ids)), model.tables()
    text, marker = model.text_rows(ids, valid, cursor), model.marker_rows(name, cursor)
    rows = torch.arange(plan.rows)
    image = model.image_rows(plan, rows, slots, name, cursor, tables)
    return model.run(concatenate([text, marker, image]))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 4), st.data())
def test_padding_changes_nothing(tiny_model: Make, lengths, more, data) -> None:
    model, grid = busy(tiny_model()), (1, 4, 4)
    name = data.draw(st.sampled_from(NAMES))
    plan = plan_for(model.config.unit(name), grid, seed=1)
    slots = to_slots(plan.schedule, codes_of(grid, len(lengths)))
    ids, valid = texts(lengths)
    wide = torch.nn.functional.pad(valid, (0, more))
    noisy = torch.randint(VOCAB, wide.shape)  # padding may hold anything
    noisy[wide] = ids[valid]
    with torch.no_grad():
        together = model.text_to_image_loss(noisy, wide, slots, plan, name)
        alone = [
            model.text_to_image_loss(
                ids[i : i + 1, :n], valid[i : i + 1, :n], slots[i : i + 1], plan, name
            )
            for i, n in enumerate(lengths)
        ]
        assert abs(float(together) - float(torch.stack(alone).mean())) < 1e-5


def test_padding_of_captions_changes_nothing(tiny_model: Make) -> None:
    model, grid = busy(tiny_model()), (1, 4, 4)
    plan = plan_for(model.config.unit("block"), grid)
    slots = to_slots(plan.schedule, codes_of(grid, 2))
    ids, valid = texts([6, 3], end=True)
    pad = torch.nn.functional.pad
    with torch.no_grad():
        loss = model.image_to_text_loss(slots, plan, "block", ids, valid)
        wide = pad(ids, (0, 4), value=7), pad(valid, (0, 4))
        assert abs(float(model.image_to_text_loss(slots, plan, "block", *wide) - loss)) < 1e-6
        each = [
            model.image_to_text_loss(
                slots[i : i + 1], plan, "block", ids[i : i + 1, :n], valid[i : i + 1, :n]
            )
            for i, n in enumerate([6, 3])
        ]
    # The mean is over tokens, so a longer caption counts for more.
    assert abs(float(loss) - float(5 * each[0] + 2 * each[1]) / 7) < 1e-5


def test_a_caption_does_not_see_what_is_written_later(tiny_model: Make) -> None:
    model, grid = busy(tiny_model()), (1, 4, 4)
    plan = plan_for(model.config.unit("neighbor"), grid)
    slots = to_slots(plan.schedule, codes_of(grid, 1))
    ids, valid = texts([8])

    def behind(words: Tensor) -> Tensor:
        """Hidden states of a caption behind its picture."""
        cursor = model.begin(1)
        rows = [model.seen_image_rows(plan, slots, "neighbor", cursor, model.tables())]
        rows.append(model.text_rows(words, valid, cursor))
        return model.run(concatenate(rows))[0, -8:]

    with torch.no_grad():
        before = behind(ids)
        for place in range(8):
            changed = ids.clone()
            changed[0, place] = (ids[0, place] + 11) % VOCAB
            moved = (behind(changed) - before).abs().amax(-1) > 0
            assert moved.tolist() == [False] * place + [True] * (8 - place)
            prompt = hidden_of(model, plan, "neighbor", changed, valid, slots)
            moved = (prompt - hidden_of(model, plan, "neighbor", ids, valid, slots)).abs().amax(
                -1
            ) > 0
            assert moved[0].tolist() == [False] * place + [True] * (moved.shape[1] - place)


SEEN = [
    ("token", None),
    ("block", None),
    ("neighbor", None),
    ("any", None),
    ("any", "whole"),
    ("any", "subsample:2"),
    ("any", "raster"),
]


@pytest.mark.parametrize(("name", "order"), SEEN)
@pytest.mark.parametrize("grid", [(1, 4, 4), (2, 2, 2)], ids=str)
def test_a_code_reaches_exactly_the_rows_that_the_plan_allows(
    tiny_model: Make, name: str, order: str | None, grid
) -> None:
    """Through all layers: its own row, rows of later blocks, and rows beside it; none before."""
    model = busy(tiny_model(grid))
    unit = model.config.unit(name)
    plan = plan_for(unit if order is None else replace(unit, order=order), grid, seed=3)
    ids, valid = texts([3])
    slots = to_slots(plan.schedule, codes_of(grid, 1))
    block_of = plan.schedule.block_of_slot
    with torch.no_grad():
        before = hidden_of(model, plan, name, ids, valid, slots)[0]
        reads = resolve_prefix(plan.reads, 4)
        for slot in range(plan.schedule.slots):
            changed = slots.clone()
            changed[0, slot] = (slots[0, slot] + 7) % CODES
            after = hidden_of(model, plan, name, ids, valid, changed)[0]
            moved = (after - before).abs().amax(-1) > 0
            assert not moved[:4].any()  # the prefix
            # Row r of the plan holds a decided slot (lane 0) or asks for one (lane 1).
            later = plan.block > block_of[slot] + 1
            beside = (plan.block == block_of[slot] + 1) & (plan.lane == 0)
            assert torch.equal(moved[4:], later | beside)
            # And so no slot of the same block or of an earlier one is predicted from it.
            for other in range(plan.schedule.slots):
                rows = [int(row) for row in reads[:, other] if row >= 0]
                if block_of[other] <= block_of[slot]:
                    assert not moved[rows].any()
                elif block_of[other] > block_of[slot] + 1:
                    assert moved[rows].any()


def test_the_unit_is_said_to_every_row(tiny_model: Make) -> None:
    model, grid = tiny_model(), (1, 4, 4)
    plan = compile_plan(make_schedule("raster", grid), "shift")
    slots, (ids, valid) = codes_of(grid, 1).flatten(1), texts([3])
    with torch.no_grad():
        one = hidden_of(model, plan, "token", ids, valid, slots)
        two = hidden_of(model, plan, "block", ids, valid, slots)
    assert ((one - two).abs().amax(-1) > 1e-3)[0].tolist() == [False] * 3 + [True] * 17


# -- positions and segments --------------------------------------------------------------------


def test_positions_of_a_text_and_a_picture(tiny_model: Make) -> None:
    grid = (2, 3, 4)
    model = tiny_model(grid)
    plan = plan_for(model.config.unit("block"), grid)
    cursor = model.begin(2)
    ids, valid = texts([4, 2])
    text = model.text_rows(ids, valid, cursor)
    assert text.coords[0].tolist() == [[p] * 3 for p in range(4)]
    assert text.coords[1, :2].tolist() == [[0] * 3, [1] * 3]  # padding takes no position
    marker = model.marker_rows("block", cursor)
    assert marker.coords[:, 0].tolist() == [[4] * 3, [2] * 3]
    slots = to_slots(plan.schedule, codes_of(grid, 2))
    image = model.image_rows(plan, torch.arange(plan.rows), slots, "block", cursor, model.tables())
    starts = [[0, 0, x] for x in range(4)]
    sites = [[t, y, x] for t in range(2) for y in range(3) for x in range(4)]
    for b, p in enumerate((5, 3)):
        assert (image.coords[b] - p).tolist() == starts + sites
    model.close_image(plan, cursor)
    assert cursor.position.tolist() == [5 + 4, 3 + 4]
    after = model.text_rows(ids, valid, cursor)
    assert after.coords[:, 0].tolist() == [[9] * 3, [7] * 3]
    blocks = torch.cat([text.block, marker.block, image.block, after.block])
    assert blocks.tolist() == sorted(blocks.tolist())
    assert marker.block > text.block[-1] and image.block[0] > marker.block
    assert after.block[0] > image.block[-1] and after.block.unique().numel() == 4


def test_padding_on_the_left_takes_no_position_either(tiny_model: Make) -> None:
    model = tiny_model()
    valid = torch.tensor([[False, False, True, True], [True, False, True, True]])
    rows = model.text_rows(torch.full((2, 4), 5), valid, model.begin(2))
    assert rows.coords[valid].tolist() == [[p] * 3 for p in (0, 1, 0, 1, 2)]


def conversation(model: UnifiedModel) -> list[Rows]:
    """Text, picture, text, another picture in another unit, text."""
    grid, cursor, tables = (1, 4, 4), model.begin(2), model.tables()
    parts = []
    for number, name in enumerate(("neighbor", "any")):
        parts.append(model.text_rows(*texts([3, 2], seed=number), cursor))
        plan = plan_for(model.config.unit(name), grid, seed=4)
        slots = to_slots(plan.schedule, codes_of(grid, 2, seed=number))
        parts.append(model.seen_image_rows(plan, slots, name, cursor, tables))
    parts.append(model.text_rows(*texts([2, 4], seed=9), cursor))
    return parts


def test_texts_and_pictures_in_turn_feed_alike_in_one_pass_and_with_a_cache(
    tiny_model: Make,
) -> None:
    model = busy(tiny_model())
    parts = conversation(model)
    whole = concatenate(parts)
    with torch.no_grad():
        expected = model.run(whole)
        cache = model.backbone.new_cache(2, len(whole))
        fed = torch.cat([model.run(part, cache) for part in parts], 1)
    assert ((fed - expected) * whole.valid[..., None]).abs().max() < 1e-4
    assert cache.length == len(whole)


def test_end_marker_closes_a_picture_that_something_follows(tiny_model: Make) -> None:
    model, grid = busy(tiny_model()), (1, 4, 4)
    plan = plan_for(model.config.unit("block"), grid)
    slots = to_slots(plan.schedule, codes_of(grid, 1))
    cursor = model.begin(1)
    rows = model.seen_image_rows(plan, slots, "block", cursor, model.tables())
    assert len(rows) == 1 + 4 + 16 + 1
    assert torch.equal(rows.x[0, -1], model.markers.weight[model.marker_names.index("end")])
    assert rows.coords[0, -1].tolist() == [1 + 4] * 3 and cursor.position.tolist() == [6]
    assert rows.block[-1] > rows.block[-2]
    ids, valid = texts([4], end=True)

    def losses() -> tuple[float, float]:
        caption = model.image_to_text_loss(slots, plan, "block", ids, valid)
        return float(caption), float(model.text_to_image_loss(ids, valid, slots, plan, "block"))

    with torch.no_grad():
        before = losses()
        model.markers.weight[-1] += 1
        after = losses()
    assert after[0] != before[0] and after[1] == before[1]


def test_the_last_row_of_a_picture_reaches_its_caption(tiny_model: Make) -> None:
    model, grid = busy(tiny_model()), (1, 4, 4)
    ids, valid = texts([4], end=True)
    with torch.no_grad():
        for name in NAMES:
            plan = plan_for(model.config.unit(name), grid)
            slots = to_slots(plan.schedule, codes_of(grid, 1))
            before = model.image_to_text_loss(slots, plan, name, ids, valid)
            slots[0, -1] = (slots[0, -1] + 1) % CODES
            assert model.image_to_text_loss(slots, plan, name, ids, valid) != before


def test_beyond_the_trained_grid_the_last_place_serves(tiny_model: Make) -> None:
    model = tiny_model()
    unit, slots = model.config.unit("token"), codes_of((1, 6, 6), 1).flatten(1)
    plan = plan_for(unit, (1, 6, 6))
    ids, valid = texts([3])
    with torch.no_grad():
        before = hidden_of(model, plan, "token", ids, valid, slots)
        model.places[1].weight[3] += 1
        moved = (hidden_of(model, plan, "token", ids, valid, slots) - before).abs().amax(-1)[0] > 0
    assert moved.tolist() == [False] * (4 + 3 * 6) + [True] * (3 * 6)


# -- the rest ----------------------------------------------------------------------------------


def test_code_vectors_are_scaled_kept_and_used(tiny_model: Make, tmp_path: Path) -> None:
    model, grid = tiny_model(), (1, 4, 4)
    plan = plan_for(model.config.unit("token"), grid)
    slots, (ids, valid) = codes_of(grid, 2).flatten(1), texts([3, 4])
    vectors = 7 * torch.randn(CODES, 5) + 1
    with torch.no_grad():
        before = model.text_to_image_loss(ids, valid, slots, plan, "token")
        model.set_code_vectors(vectors)
        loss = model.text_to_image_loss(ids, valid, slots, plan, "token")
        assert loss != before
        assert torch.allclose(model.code_vectors.std(), torch.tensor(1.0), atol=1e-5)
        ratio = model.code_vectors / vectors
        assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-4)
        model.set_code_vectors(3 * vectors)  # the visual tokenizer's scale is of no account
        assert torch.allclose(
            model.text_to_image_loss(ids, valid, slots, plan, "token"), loss, atol=1e-6
        )
        model.save_pretrained(tmp_path)
        loaded = UnifiedModel.from_pretrained(tmp_path)
        assert torch.equal(loaded.code_vectors, model.code_vectors)
        again = loaded.text_to_image_loss(ids, valid, slots, plan, "token")
        assert torch.equal(again, model.text_to_image_loss(ids, valid, slots, plan, "token"))
    with pytest.raises(RuntimeError):
        model.set_code_vectors(vectors[:-1])
    model.set_code_vectors(torch.zeros(CODES, 5))
    assert bool(torch.isfinite(model.code_vectors).all())


@pytest.mark.parametrize("order", ["random", "locality"])
def test_a_unit_of_fresh_orders_draws_one_by_seed(order: str) -> None:
    unit = Unit("any", order, "self")
    assert unit.fresh and plan_for(unit, (1, 4, 4), seed=3).schedule.order == f"{order}:3:4"
    sites = [plan_for(unit, (1, 4, 4), seed=seed).schedule.site.tolist() for seed in (0, 0, 1)]
    assert sites[0] == sites[1] != sites[2] and sorted(sites[2]) == list(range(16))
    assert plan_for(unit, (1, 4, 4)).steps == 4
    assert plan_for(unit, (1, 1, 1)).schedule.slots == 1


def test_orders_of_continuous_latents_are_refused() -> None:
    for order in ("scale:1,2,4", "scale:1,2,4:area", "scale:1,2,4:nearest"):
        with pytest.raises(ConfigError, match="take 'interlace:1,2,4', which decides"):
            plan_for(Unit("any", order, "self"), (1, 4, 4))
    assert plan_for(Unit("any", "interlace:1,2,4", "self"), (1, 4, 4)).sizes == (1, 3, 12)


def test_units_are_told_apart(tiny_model: Make) -> None:
    model = tiny_model()
    assert model.config.unit("block").order == "row:1"
    with pytest.raises(ConfigError, match="no unit 'blok'; did you mean 'block'"):
        model.config.unit("blok")
    token = Unit("token", "raster", "shift")
    for units in ((), (token, replace(token, order="row:1")), (token, replace(token, name="end"))):
        with pytest.raises(ConfigError, match="units needs"):
            replace(model.config, units=units)


def test_heads_and_starts_are_those_that_the_units_need(tiny_model: Make) -> None:
    model = tiny_model((2, 3, 4))
    assert set(model.head.outs) == {"t", "x", "y", "self"} and len(model.starts.weight) == 4
    one = tiny_model(units=(Unit("token", "raster", "shift"),))
    assert set(one.head.outs) == {"x"} and one.marker_names == ("token", "end")


# -- learning ----------------------------------------------------------------------------------


def learn(model: UnifiedModel, codes: Tensor, ids, valid, closed, closed_valid, steps: int) -> None:
    """Every step one unit in turn, and the captions of the pictures."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95))
    for step in range(steps):
        unit = model.config.units[step % 4]
        plan = plan_for(unit, (1, 4, 4), seed=step)
        slots = to_slots(plan.schedule, codes)
        loss = model.text_to_image_loss(ids, valid, slots, plan, unit.name)
        loss = loss + model.image_to_text_loss(slots, plan, unit.name, closed, closed_valid)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 20, 1.2 - step / steps)
        optimizer.step()


def test_four_pictures_are_learnt_and_drawn_again_in_every_unit(tiny_model: Make) -> None:
    """From one set of weights: caption to picture in four orders, and picture to caption."""
    model, codes = tiny_model().train(), codes_of((1, 4, 4), 4)
    closed, closed_valid = texts([6, 4, 5, 4], end=True)
    valid = closed_valid & (closed != EOS)
    ids = closed.where(valid, PAD)
    learn(model, codes, ids, valid, closed, closed_valid, steps=150)
    model.eval()
    greedy = DecodeSettings(DrawSettings(temperature=0.0))
    for unit in model.config.units:
        plans = [plan_for(unit, (1, 4, 4), seed=10_000)]
        if unit.name == "any":  # one that was never drawn in training
            plans.append(plan_for(replace(unit, order="subsample:2"), (1, 4, 4)))
        for plan in plans:
            prefix = text_prefix(model, unit.name, ids, valid)
            steps = decode(model, prefix, plan, unit.name, torch.arange(4), greedy)
            assert torch.equal(last_step(steps).codes, codes), unit.name
            with torch.no_grad():
                slots = to_slots(plan.schedule, codes)
                assert model.text_to_image_loss(ids, valid, slots, plan, unit.name) < 0.1
        with torch.no_grad():
            cursor, plan = model.begin(4), plans[0]
            rows = model.seen_image_rows(
                plan, to_slots(plan.schedule, codes), unit.name, cursor, model.tables()
            )
            told = decode_text(model, rows, cursor, torch.arange(4), DrawSettings(0.0), 12)
        assert torch.equal(told, closed[:, 1:]), unit.name
