"""Wrong codes and edits in training: what is drawn, what is asked for, that nothing else moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import UNITS, generator_recipe, run_generator, same
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.units import plan_for
from mmgen.train import generator_task
from mmgen.train.clip_datasets import ClipDataConfig
from mmgen.train.generator_draws import unit_of_an_edit, with_wrong_codes
from mmgen.train.generator_task import GeneratorTask


def test_wrong_codes_are_those_of_the_neighbour_at_the_same_site() -> None:
    torch.manual_seed(0)
    codes = torch.arange(64 * 2000).view(64, 2000)  # every code occurs once
    kept = codes.clone()
    shown = with_wrong_codes(codes, 0.4)
    assert torch.equal(codes, kept)
    wrong = shown != codes
    assert torch.equal(shown[wrong], codes.roll(1, 0)[wrong])
    share = wrong.float().mean(1)  # of each picture, uniform in [0, 0.4]
    assert share.max() < 0.4 + 0.05 and share.max() > 0.3 and share.min() < 0.1
    assert abs(float(share.mean()) - 0.2) < 0.05
    assert torch.equal(with_wrong_codes(codes, 0.0), codes)


def test_training_asks_for_the_right_codes_and_evaluation_shows_them(
    pictures: Path, vision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = GeneratorTask(generator_recipe(pictures, vision, tmp_path, code_noise=1.0))
    (batch, *_) = task.batches(0, 0)
    seen: list[tuple[Tensor, Tensor | None]] = []

    def loss(
        ids: Any, valid: Any, codes: Tensor, plan: Any, unit: Any, shown: Any = None, given: int = 0
    ) -> Tensor:
        seen.append((codes, shown))
        return torch.zeros(())

    monkeypatch.setattr(task.model, "text_to_image_loss", loss)
    for step in range(8):
        task.losses(batch, step, "model")
    assert seen
    for codes, shown in seen:
        assert torch.equal(codes.sort(1).values, batch["codes"].flatten(1).sort(1).values)
        assert shown is not None and not torch.equal(shown, codes)
    seen.clear()
    monkeypatch.setattr(generator_task, "with_wrong_codes", lambda *_: pytest.fail("wrong codes"))
    task.evaluate(task.model)
    assert seen and all(shown is None for _, shown in seen)


ANY, GRID = UNITS[-1], (1, 6, 5)


def kept_of(seed: int, share: float = 1.0) -> Tensor | None:
    """(h, w) bool, what an edit of this seed keeps; None: it is no edit."""
    unit = unit_of_an_edit(ANY, GRID, seed, share)
    if unit is None:
        return None
    schedule = plan_for(unit, GRID, seed=seed).schedule
    kept = torch.zeros(30, dtype=torch.bool)
    kept[schedule.site[: schedule.sizes[0]]] = True
    return kept.view(6, 5)


def is_box(kept: Tensor) -> bool:
    """Whether what is not kept fills a box."""
    y, x = (~kept).nonzero().unbind(1)
    return len(y) == int((y.max() - y.min() + 1) * (x.max() - x.min() + 1))


def test_an_edit_keeps_a_part_around_a_box_or_here_and_there() -> None:
    masks = [kept_of(seed) for seed in range(300)]
    drawn = [mask for mask in masks if mask is not None]
    assert len(drawn) > 250 and all(mask.any() and not mask.all() for mask in drawn)
    boxes = [mask for mask in drawn if is_box(mask)]
    assert 0.35 < len(boxes) / len(drawn) < 0.7
    for masks_alike in (boxes, [mask for mask in drawn if not is_box(mask)]):
        often = torch.stack(masks_alike).float().mean(0)
        assert often.min() > 0.2 and often.max() < 0.95  # no site is always kept, or never
        assert len({mask.sum().item() for mask in masks_alike}) > 10


def test_the_seed_and_the_share_decide_about_an_edit() -> None:
    assert unit_of_an_edit(ANY, GRID, 4, 1.0) == unit_of_an_edit(ANY, GRID, 4, 1.0)
    assert unit_of_an_edit(ANY, GRID, 4, 1.0) != unit_of_an_edit(ANY, GRID, 5, 1.0)
    assert all(unit_of_an_edit(ANY, GRID, seed, 0.0) is None for seed in range(50))
    few = {seed for seed in range(400) if kept_of(seed, 0.3) is not None}
    assert 80 < len(few) < 150
    assert all(kept_of(seed, 0.6) is not None for seed in few)  # a larger share adds to them


def test_an_edit_asks_for_what_is_not_kept_and_evaluation_never_edits(
    pictures: Path, vision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = generator_recipe(pictures, vision, tmp_path, edit_share=1.0, caption_share=0.0)
    task = GeneratorTask(recipe)
    task.model.eval()
    (batch, *_) = task.batches(0, 0)
    loss, edits = task.model.text_to_image_loss, 0

    def checked(
        ids: Any, valid: Any, codes: Tensor, plan: Any, unit: str, shown: Any, given: int
    ) -> Tensor:
        nonlocal edits
        edits += given > 0
        assert (given > 0) == plan.schedule.order.startswith("kept")
        assert given in (0, plan.schedule.sizes[0])
        logits = task.model.image_logits(ids, valid, codes, plan, unit)
        each = F.cross_entropy(logits.transpose(1, 2), codes, reduction="none")
        found = loss(ids, valid, codes, plan, unit, shown, given)
        torch.testing.assert_close(found, each[:, given:].mean())
        return found

    monkeypatch.setattr(task.model, "text_to_image_loss", checked)
    for step in range(16):
        task.losses(batch, step, "model")
    assert edits > 2
    monkeypatch.setattr(generator_task, "unit_of_an_edit", lambda *_: pytest.fail("an edit"))
    task.evaluate(task.model)


@pytest.mark.parametrize("name", ["code_noise", "edit_share"])
def test_a_run_with_a_share_resumes_exactly(
    name: str, pictures: Path, vision: Path, tmp_path: Path
) -> None:
    def recipe(run: str, steps: int, share: float = 0.5) -> Any:
        changes = {"units": (ANY,), "caption_share": 0.0, name: share}
        made = generator_recipe(pictures, vision, tmp_path / run, steps, **changes)
        return replace(
            made,
            tokens=str(tmp_path / "tokens"),
            train=replace(made.train, eval_every=0, preview_every=0, save_every=2),
        )

    whole = run_generator(recipe("whole", 4))
    for steps in (2, 4):
        broken = run_generator(recipe("broken", steps))
    assert same(whole, broken)
    assert not same(whole, run_generator(recipe("clean", 4, share=0.0)))


@pytest.mark.parametrize("name", ["code_noise", "edit_share"])
@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_out_of_range_are_refused(name: str, share: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{name} must be in \[0, 1\], not"):
        generator_recipe(tmp_path, tmp_path, tmp_path, **{name: share})


def test_one_picture_has_no_neighbour_for_wrong_codes(tmp_path: Path) -> None:
    train = replace(generator_recipe(tmp_path, tmp_path, tmp_path).train, batch_size=1)
    with pytest.raises(ConfigError, match=r"set train.batch_size to 2 or more, or code_noise to 0"):
        generator_recipe(tmp_path, tmp_path, tmp_path, train=train, code_noise=0.1)
    clips = ClipDataConfig("clips", batch_size=1, views=2)
    with pytest.raises(ConfigError, match=r"set clips.batch_size to 2 or more, or code_noise to 0"):
        generator_recipe(tmp_path, tmp_path, tmp_path, clips=clips, code_noise=0.1)
    generator_recipe(tmp_path, tmp_path, tmp_path, train=train)
