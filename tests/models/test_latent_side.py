"""Text and latents in one sequence: velocities against loops, what sees what, what is told what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.backbone import Modulation
from mmgen.models.flow import Noised, noise_at
from mmgen.models.plan import Input, Plan, compile_plan
from mmgen.models.rope import axis_pairs, rope_table
from mmgen.models.rows import concatenate
from mmgen.models.schedule import to_slots
from mmgen.models.unified import UnifiedModel
from mmgen.models.units import Unit, plan_for
from tests.tiny_latents import (
    ADALN,
    CHANNELS,
    CLIP_ORDERS,
    ORDERS,
    latent_config,
    latent_model,
    latents_of,
    texts,
    unit_of,
)

STILL, CLIP = (1, 4, 4), (2, 4, 4)
CASES = [(STILL, order) for order in ORDERS] + [(CLIP, order) for order in CLIP_ORDERS]
CONTEXTS = ("noisy", "clean")


def plan_of(order: str, grid: tuple[int, int, int], context: str) -> Plan:
    plan = plan_for(unit_of(order), grid, seed=3)
    return compile_plan(plan.schedule, "self", noisy_context=True) if context == "noisy" else plan


def noised_of(plan: Plan, latents: Tensor, seed: int = 5) -> Noised:
    generator = torch.Generator().manual_seed(seed)
    time = torch.rand(len(latents), plan.schedule.blocks, generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    return noise_at(latents, time, noise, plan.schedule.block_of_slot)


def case_of(
    order: str, grid: tuple[int, int, int], context: str, batch: int = 2
) -> tuple[UnifiedModel, Plan, Tensor, Noised]:
    model = latent_model(grid, CLIP_ORDERS if grid == CLIP else ORDERS)
    plan = plan_of(order, grid, context)
    latents = to_slots(plan.schedule, latents_of(grid, batch))
    return model, plan, latents, noised_of(plan, latents)


# -- one sequence in loops -----------------------------------------------------------------------


class Sequence:
    """Rows of one sequence: what they hold, where they stand, whom they see, what they are told."""

    def __init__(self, model: UnifiedModel, ids: list[int], unit: str) -> None:
        assert model.latents is not None
        self.model, self.side, self.unit = model, model.latents, unit
        self.x: list[Tensor] = []
        self.places: list[list[float]] = []
        self.sees: list[set[int]] = []
        self.told: list[Tensor] = []
        for word in ids:
            self.word(model.text_embedding.weight[word])
        self.marker = model.markers.weight[model.marker_names.index(unit)]
        self.word(self.marker)
        vectors = [model.text_embedding.weight[word] for word in ids[1:]]
        mean = torch.stack(vectors).mean(0) if vectors else torch.zeros(ADALN.width)
        rms = (mean.square().mean() + torch.finfo(torch.float32).eps).sqrt()
        self.text = self.side.words(mean / rms)

    def word(self, x: Tensor) -> None:
        place = float(len(self.x))
        self.add(x, [place] * 3, set(range(len(self.x))), self.side.text)

    def add(self, x: Tensor, place: list[float], sees: set[int], told: Tensor) -> int:
        self.x.append(x)
        self.places.append(place)
        self.sees.append(sees | {len(self.x) - 1})
        self.told.append(told)
        return len(self.x) - 1

    def latent(
        self, value: Tensor, place: list[float], level: int, time: Tensor, sees: set[int]
    ) -> int:
        places = self.model.places
        x = self.side.enter(value) + self.side.levels.weight[level] + self.marker
        x = x + sum(table.weight[int(at)] for table, at in zip(places, place))
        told = self.text + self.side.time(32 * time)
        return self.add(x, [self.begin + at for at in place], sees, told)

    def picture(self, plan: Plan, clean: Tensor, noised: Noised, time: Tensor) -> Tensor:
        """Velocities (N, C)."""
        self.begin = len(self.x)
        seen, asked = set(range(self.begin)), list[int]()
        noisy_context = not plan.lane.any()
        for block, (start, size) in enumerate(zip(plan.schedule.starts, plan.schedule.sizes)):
            slots = range(start, start + size)
            coarse = bool((plan.schedule.site[start] < 0).item())
            level = plan.schedule.blocks - 1 - block if coarse else 0
            places = [plan.schedule.coords[slot].tolist() for slot in slots]
            zero = torch.zeros(())
            rows = [
                self.latent(noised.latents[slot], place, level, time[block], seen)
                for slot, place in zip(slots, places)
            ]
            asked += rows
            for row in rows:
                self.sees[row] |= set(rows)
            if not noisy_context:
                rows = [
                    self.latent(clean[slot], place, level, zero, seen)
                    for slot, place in zip(slots, places)
                ]
                for row in rows:
                    self.sees[row] |= set(rows)
            seen = seen | set(rows)
        hidden = self.hidden()[asked]
        return self.side.out(self.side.norm(hidden))

    def hidden(self) -> Tensor:
        mask = torch.zeros(len(self.x), len(self.x), dtype=torch.bool)
        for row, seen in enumerate(self.sees):
            mask[row, list(seen)] = True
        model = self.model
        coords = torch.tensor(self.places)[None]
        rope = rope_table(coords, axis_pairs(ADALN.head_dim), model.config.rope_base)
        told = model.backbone.modulations(torch.stack(self.told))
        each = Modulation(told, torch.arange(len(self.x))[None])
        return model.backbone(torch.stack(self.x)[None], rope, mask[None], None, each)[0]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(("grid", "order"), CASES, ids=str)
def test_velocities_equal_loops(grid: tuple[int, int, int], order: str, context: str) -> None:
    model, plan, latents, noised = case_of(order, grid, context, batch=3)
    ids, valid = texts([4, 1, 6])
    with torch.no_grad():
        said = model.image_velocities(ids, valid, latents, noised, plan, unit_of(order).name)
        for i in range(3):
            sequence = Sequence(model, ids[i][valid[i]].tolist(), unit_of(order).name)
            own = Noised(*(each[i] for each in noised))
            wanted = sequence.picture(plan, latents[i], own, noised.time[i])
            torch.testing.assert_close(said[i], wanted, atol=2e-5, rtol=1e-4)


# -- what sees what ------------------------------------------------------------------------------


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(("grid", "order"), CASES, ids=str)
def test_noised_latents_never_see_later_blocks(
    grid: tuple[int, int, int], order: str, context: str
) -> None:
    """Neither their noise, nor their times, nor what is decided; of earlier ones their context."""
    model, plan, latents, noised = case_of(order, grid, context)
    (ids, valid), name = texts([4, 2]), unit_of(order).name
    block_of = plan.schedule.block_of_slot
    with torch.no_grad():
        before = model.image_velocities(ids, valid, latents, noised, plan, name)
        for block in {0, 1, plan.schedule.blocks - 1} & {*range(plan.schedule.blocks)}:
            own, later = block_of == block, block_of > block
            moved = noised._replace(latents=noised.latents + own[:, None])
            time = noised.time.clone()
            time[:, block] = 1 - time[:, block] / 2
            moved = moved._replace(time=time)
            said = model.image_velocities(ids, valid, latents, moved, plan, name)
            change = (said - before).abs().amax((0, 2))
            assert (change[own] > 1e-5).all() and (change[block_of < block] < 1e-6).all()
            assert (change[later] > 1e-6).all() == (context == "noisy") or not later.any()
            if context == "clean":
                assert (change[later] < 1e-6).all()
                decided = latents + own[:, None]
                said = model.image_velocities(ids, valid, decided, noised, plan, name)
                change = (said - before).abs().amax((0, 2))
                assert (change[later] > 1e-6).all() and (change[~later] < 1e-6).all()


def test_text_hears_no_time_and_no_noise() -> None:
    model, plan, latents, noised = case_of("cell:2", STILL, "noisy")
    ids, valid = texts([4, 2])

    def hidden(noised: Noised) -> Tensor:
        assert model.latents is not None
        cursor = model.begin(2)
        rows = [model.text_rows(ids, valid, cursor), model.marker_rows("cell", cursor)]
        moment = model.latents.moment(model.backbone, cursor.condition, noised.time)
        every = torch.arange(plan.rows)
        rows.append(model.image_rows(plan, every, noised.latents, "cell", cursor, moment))
        return model.run(concatenate(rows))

    with torch.no_grad():
        one, other = hidden(noised), hidden(noised_of(plan, latents, seed=6))
    assert torch.equal(one[:, :5], other[:, :5])
    assert (one[:, 5:] - other[:, 5:]).abs().amax(2).min() > 1e-4


def test_a_later_word_changes_no_earlier_one_though_latents_are_told_of_all() -> None:
    model = latent_model()
    ids, valid = texts([6])
    changed = ids.clone()
    changed[0, 4] += 1
    with torch.no_grad():
        summaries, rows = [], []
        for words in (ids, changed):
            cursor = model.begin(1)
            rows.append(model.run(model.text_rows(words, valid, cursor)))
            summaries.append(cursor.condition)
        assert torch.equal(rows[0][:, :4], rows[1][:, :4])
        assert not torch.allclose(summaries[0], summaries[1], atol=1e-3)


@pytest.mark.parametrize("context", CONTEXTS)
def test_padding_changes_nothing(context: str) -> None:
    model, plan, latents, noised = case_of("cell:2", STILL, context)
    ids, valid = texts([4, 2])
    wide, more = F.pad(ids, (0, 3), value=7), F.pad(valid, (0, 3))
    with torch.no_grad():
        said = model.image_velocities(ids, valid, latents, noised, plan, "cell")
        again = model.image_velocities(wide, more, latents, noised, plan, "cell")
        torch.testing.assert_close(said, again, atol=1e-5, rtol=1e-5)
        alone = Noised(*(each[1:] for each in noised))
        own = model.image_velocities(ids[1:, :2], valid[1:, :2], latents[1:], alone, plan, "cell")
        torch.testing.assert_close(said[1:], own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_captions_see_the_whole_picture_and_no_padding(order: str) -> None:
    model, plan, latents, _ = case_of(order, STILL, "clean")
    (ids, valid), name = texts([6, 3], end=True), unit_of(order).name
    wide = F.pad(ids, (0, 4), value=7), F.pad(valid, (0, 4))
    with torch.no_grad():
        loss = model.image_to_text_loss(latents, plan, name, ids, valid)
        assert abs(float(model.image_to_text_loss(latents, plan, name, *wide) - loss)) < 1e-6
        each = [
            model.image_to_text_loss(
                latents[i : i + 1], plan, name, ids[i : i + 1, :n], valid[:, :n][i : i + 1]
            )
            for i, n in enumerate([6, 3])
        ]
        assert abs(float(loss) - float(5 * each[0] + 2 * each[1]) / 7) < 1e-5
        before = model.caption_logits(latents, plan, name, ids, valid)
        for slot in (0, plan.schedule.slots - 1):
            moved = latents.clone()
            moved[:, slot] += 1
            change = model.caption_logits(moved, plan, name, ids, valid) - before
            assert change[valid[:, 1:]].abs().amax(-1).min() > 1e-6


def test_the_unit_is_said_to_every_latent() -> None:
    model, plan, latents, noised = case_of("cell:2", STILL, "noisy")
    ids, valid = texts([4, 2])
    with torch.no_grad():
        one, two = (
            model.image_velocities(ids, valid, latents, noised, plan, name)
            for name in ("cell", "whole")
        )
    assert (one - two).abs().amax(2).min() > 1e-4


def test_levels_of_a_scale_order_are_told_apart() -> None:
    """The single latent of the coarsest level has a place that a finer one has too."""
    model, plan, latents, _ = case_of("scale:1,2,4", STILL, "clean", batch=1)
    assert model.latents is not None and model.latents.levels.num_embeddings == 3
    rows = (plan.input == Input.SLOT).nonzero()[:, 0]
    same = torch.ones_like(latents)
    x = model.latents.rows(plan, rows, same, model.tables())[0]
    levels = [x[0], x[1], x[5]]
    for row, level in enumerate((2, 1, 0)):
        expected = model.latents.enter(same[0, 0]) + model.latents.levels.weight[level]
        torch.testing.assert_close(levels[row], expected)


# -- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", CONTEXTS)
def test_training_reaches_every_weight(context: str) -> None:
    model = latent_model()
    ids, valid = texts([4, 2], end=True)
    for unit in model.config.units:
        plan = plan_of(unit.order, STILL, context)
        latents = to_slots(plan.schedule, latents_of(STILL, 2))
        noised = noised_of(plan, latents)
        said = model.image_velocities(ids, valid, latents, noised, plan, unit.name)
        F.mse_loss(said, noised.velocity).backward()
        clean = plan_of(unit.order, STILL, "clean")
        model.image_to_text_loss(latents, clean, unit.name, ids, valid).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_new_model_says_no_velocity() -> None:
    torch.manual_seed(0)
    model = UnifiedModel(latent_config())
    plan = plan_of("cell:2", STILL, "noisy")
    latents = to_slots(plan.schedule, latents_of(STILL, 2))
    said = model.image_velocities(*texts([4, 2]), latents, noised_of(plan, latents), plan, "cell")
    assert (said == 0).all()


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = latent_model(CLIP, CLIP_ORDERS)
    model.save_pretrained(tmp_path)
    again = UnifiedModel.from_pretrained(tmp_path)
    assert again.config == model.config and again.fingerprint == model.fingerprint


def test_weights_that_draw_codes_keep_their_names_in_order() -> None:
    """Files name them, and the optimiser of a checkpoint counts them."""
    sizes = {"codebook_size": 40, "code_channels": 5, "backbone": replace(ADALN, adaln=False)}
    units = (Unit("token", "raster", "shift"),)
    model = UnifiedModel(latent_config(units=units, **sizes))
    names = [name for name, _ in model.named_parameters() if "backbone" not in name]
    assert names == [
        *("text_bias", "mask_token", "text_embedding.weight", "text_norm.weight"),
        *(f"code_embedding.mlp.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")),
        *("code_embedding.free.weight", "markers.weight", "starts.weight"),
        *(f"places.{axis}.weight" for axis in range(3)),
        *("head.bias", "head.norms.x.weight", "head.outs.x.weight", "head.outs.x.bias"),
        *(f"head.table.mlp.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")),
        "head.table.free.weight",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": (Unit("cell", "cell:2", "self"),)}, "'cell' must say continuous: true"),
        ({"backbone": replace(ADALN, adaln=False)}, "backbone.adaln must be true"),
        ({"codebook_size": 9}, "must say continuous: false, since the visual tokenizer has codes"),
        (
            {"codebook_size": 9, "units": (Unit("token", "raster", "shift"),)},
            "backbone.adaln must be false",
        ),
        ({"units": (Unit("x", "raster", "shift", continuous=True),)}, "Noise rows go with"),
    ],
)
def test_configurations_that_make_no_sense(changes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        latent_model(**changes)


def test_latents_have_no_logits() -> None:
    model, plan, latents, _ = case_of("cell:2", STILL, "clean")
    with pytest.raises(ConfigError, match="FlowDecider"):
        model.image_logits(*texts([4, 2]), latents, plan, "cell")
    with pytest.raises(ConfigError, match="FlowDecider"):
        model.logits(torch.zeros(1, 1, CHANNELS), model.tables())
    with pytest.raises(ConfigError, match="FlowDecider"):  # noise, but no moment
        cursor = model.begin(2)
        model.image_rows(plan, torch.arange(4), latents, "cell", cursor, model.tables())
