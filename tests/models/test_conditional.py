"""Conditional transformers: cached steps against one pass, padding, guidance, folders, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.conditional import ConditionalConfig, ConditionalModel, Tap
from mmgen.models.conditions import ClassConfig, FeatureConfig, Features, pad_left
from mmgen.models.plan import Plan
from mmgen.models.schedule import to_slots
from mmgen.models.units import Unit, plan_for
from mmgen.sample.draw import DrawSettings
from mmgen.sample.engine import DecodeSettings, decode, last_step
from mmgen.sample.guidance import Guidance

CODES, CHANNELS, WORDS = 40, 6, 5
TOKEN, NEIGHBOR = Unit("token", "raster", "shift"), Unit("neighbor", "neighbor", "neighbors")
PICTURE, CLIP = (1, 3, 4), (2, 3, 3)
DEPTH = {"x": 2, "y": 3, "t": 4}  # heads nested in depth


def make(unit: Unit = TOKEN, grid: tuple[int, int, int] = PICTURE, **changes: Any) -> Any:
    torch.manual_seed(0)
    names = ("x",) if unit is TOKEN else ("x", "y", "t") if grid[0] > 1 else ("x", "y")
    config = ConditionalConfig(
        backbone=BackboneConfig(width=32, depth=DEPTH[names[-1]], heads=2, qk_norm=False),
        condition=ClassConfig(classes=7),
        codebook_size=CODES,
        grid=grid,
        units=(unit,),
        taps=tuple(Tap(name, DEPTH[name]) for name in names),
    )
    model = ConditionalModel(replace(config, **changes))
    with torch.no_grad():  # so that every part has a say
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def captions(batch: int = 3) -> Features:
    valid = torch.arange(WORDS) < torch.arange(1, batch + 1)[:, None] + 1
    return pad_left(torch.randn(batch, WORDS, CHANNELS), valid)


def decoded(
    model: Any, given: Any, guidance: Guidance | None = None
) -> tuple[Tensor, Tensor, Plan]:
    """Greedy codes in slot order, the logits that they were drawn from, and the plan."""
    plan = plan_for(model.config.units[0], model.config.grid)
    guidance = guidance or Guidance(1.0)
    with torch.inference_mode():
        prefix = model.prefix(given, guidance.enabled)
    count = len(prefix.rows.x) // (1 + guidance.enabled)
    settings = DecodeSettings(DrawSettings(temperature=0.0), guidance)
    steps = list(decode(model, prefix, plan, "", torch.arange(count), settings))
    codes = to_slots(plan.schedule, steps[-1].codes)
    return codes, torch.cat([step.logits for step in steps if step.logits is not None], 1), plan


@pytest.mark.parametrize("positions", ["tyx", "yx", "learned"])
@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("captioned", [True, False])
@pytest.mark.parametrize(
    ("unit", "grid"), [(TOKEN, PICTURE), (NEIGHBOR, PICTURE), (NEIGHBOR, CLIP), (TOKEN, CLIP)]
)
def test_cached_decoding_equals_the_one_pass_forward(
    unit: Unit, grid: tuple[int, int, int], captioned: bool, silent: bool, positions: Any
) -> None:
    condition = (
        FeatureConfig(channels=CHANNELS, rows=WORDS) if captioned else ClassConfig(classes=7)
    )
    model = make(unit, grid, condition=condition, positions=positions, silent_condition=silent)
    given = captions() if captioned else torch.tensor([0, 3, 7])
    codes, logits, plan = decoded(model, given)
    with torch.inference_mode():
        expected = model(given, codes, plan)
    assert (logits - expected).abs().max() < 1e-4 and expected.std() > 0.1
    assert torch.equal(codes, expected.argmax(-1))


@pytest.mark.parametrize("scale", [0.0, 2.5])
def test_guidance_moves_from_the_null_condition(scale: float) -> None:
    model, labels = make(NEIGHBOR), torch.tensor([1, 2])
    codes, logits, plan = decoded(model, labels, Guidance(scale))
    with torch.inference_mode():
        told = model(labels, codes, plan)
        null = model(torch.full_like(labels, 7), codes, plan)
    assert torch.allclose(logits, null + scale * (told - null), atol=1e-4)


def test_what_is_padding_is_not_seen() -> None:
    model = make(NEIGHBOR, condition=FeatureConfig(channels=CHANNELS, rows=WORDS))
    given = captions()
    noisy = given.values + 100 * torch.randn_like(given.values) * ~given.valid[..., None]
    plan = plan_for(NEIGHBOR, PICTURE)
    codes = torch.randint(CODES, (3, 12))
    with torch.inference_mode():
        clean, other = model(given, codes, plan), model(Features(noisy, given.valid), codes, plan)
        longer = model(Features(given.values, torch.ones_like(given.valid)), codes, plan)
    assert torch.equal(clean, other) and not torch.allclose(clean, longer, atol=1e-3)


def test_padding_goes_from_the_right_to_the_left() -> None:
    values, lengths = torch.randn(4, WORDS, CHANNELS), [1, 3, WORDS, 0]
    valid = torch.arange(WORDS) < torch.tensor(lengths)[:, None]
    moved = pad_left(values, valid.long())
    for b, count in enumerate(lengths):
        assert torch.equal(moved.values[b, WORDS - count :], values[b, :count])
        assert not moved.values[b, : WORDS - count].any()
        assert moved.valid[b].tolist() == [False] * (WORDS - count) + [True] * count


def test_silent_conditions_speak_through_their_values_alone() -> None:
    """Queries of the picture weigh every condition row alike, whatever its key would be."""
    model = make(condition=FeatureConfig(channels=CHANNELS, rows=WORDS), silent_condition=True)
    given, plan = captions(1), plan_for(TOKEN, PICTURE)
    width, codes = 32, torch.randint(CODES, (1, 12))
    with torch.inference_mode():
        before = model(given, codes, plan)
        first = model.backbone.blocks[0].attention.qkv.weight
        first[width : 2 * width] += torch.randn(width, width)  # keys of all rows ...
        moved = model(given, codes, plan)
        assert not torch.allclose(before, moved, atol=1e-3)
    rope = model._rope(model.prefix(given).rows)
    assert not any(table.any() for table in rope)


def test_the_loss_counts_pictures_by_their_weight() -> None:
    model, plan = make(NEIGHBOR), plan_for(NEIGHBOR, PICTURE)
    labels, codes = torch.tensor([1, 2, 7]), torch.randint(CODES, (3, 12))
    weight = torch.tensor([1.0, 0.0, 1.0])
    with torch.no_grad():
        each = -model(labels, codes, plan).log_softmax(-1).gather(2, codes[..., None])
        assert torch.allclose(model.loss(labels, codes, plan), each.mean(), atol=1e-5)
        kept = each[weight.bool()].mean()
        assert torch.allclose(model.loss(labels, codes, plan, weight), kept, atol=1e-5)
        assert model.loss(labels, codes, plan, 0 * weight) == 0


def test_every_weight_learns() -> None:
    model, plan = make(NEIGHBOR, CLIP, positions="learned").train(), plan_for(NEIGHBOR, CLIP)
    model.loss(torch.tensor([0, 7]), torch.randint(CODES, (2, 18)), plan).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.parametrize("captioned", [True, False])
def test_a_saved_model_is_the_same(captioned: bool, tmp_path: Path) -> None:
    condition = (
        FeatureConfig(channels=CHANNELS, rows=WORDS) if captioned else ClassConfig(classes=7)
    )
    model = make(NEIGHBOR, condition=condition, positions="yx", silent_condition=True)
    model.save_pretrained(tmp_path)
    again = ConditionalModel.from_pretrained(tmp_path)
    assert again.config == model.config and again.fingerprint == model.fingerprint
    given = captions() if captioned else torch.tensor([1, 2, 3])
    assert torch.equal(decoded(again, given)[0], decoded(model, given)[0])
    with torch.no_grad():
        again.head.outs["y"].weight[0, 0] += 1
    assert again.fingerprint != model.fingerprint


def test_wrong_conditions_are_refused() -> None:
    classes = make()
    text = make(condition=FeatureConfig(channels=CHANNELS, rows=WORDS))
    refused: list[tuple[Any, Any, str]] = [
        (classes, torch.tensor([8]), "Class 8 is unknown; give labels from 0 to 6"),
        (classes, torch.tensor([-1]), "Class -1 is unknown"),
        (classes, captions(), "give class labels, not text"),
        (text, torch.tensor([1]), "give text features, not class labels"),
        (text, Features(torch.zeros(1, 4, CHANNELS), torch.ones(1, 4).bool()), r"\(4, 6\)"),
    ]
    for model, given, said in refused:
        with pytest.raises(ConfigError, match=said):
            model.prefix(given)


def test_wrong_configurations_are_refused() -> None:
    for changes, said in (
        ({"taps": (Tap("x", 2),)}, "needs the direction 'y'"),
        ({"taps": (Tap("x", 2), Tap("y", 9))}, "stand on 1 to 3 blocks"),
        ({"units": ()}, "unit"),
    ):
        with pytest.raises(ConfigError, match=said):
            make(NEIGHBOR, **changes)
    learned = make(positions="learned")
    with pytest.raises(ConfigError, match="know places on the grid"):
        learned(torch.tensor([1]), torch.zeros(1, 4).long(), plan_for(TOKEN, (1, 2, 2)))


def test_rotary_models_draw_on_other_grids() -> None:
    model, plan = make(positions="yx"), plan_for(TOKEN, (1, 5, 5))
    with torch.inference_mode():
        prefix = model.prefix(torch.tensor([1]))
        steps = decode(model, prefix, plan, "", torch.tensor([3]))
    assert last_step(steps).codes.shape == (1, 1, 5, 5)
