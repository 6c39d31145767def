"""Wrong codes in training: where they come from, how many, and that nothing else moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import generator_recipe, run_generator, same
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.train import generator_task
from mmgen.train.generator_draws import with_wrong_codes
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
        ids: Any, valid: Any, codes: Tensor, plan: Any, unit: Any, shown: Any = None
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


def test_a_run_with_wrong_codes_resumes_exactly(
    pictures: Path, vision: Path, tmp_path: Path
) -> None:
    def recipe(name: str, steps: int, noise: float = 0.5) -> Any:
        made = generator_recipe(pictures, vision, tmp_path / name, steps, code_noise=noise)
        return replace(
            made,
            tokens=str(tmp_path / "tokens"),
            train=replace(made.train, eval_every=0, preview_every=0, save_every=2),
        )

    whole = run_generator(recipe("whole", 4))
    for steps in (2, 4):
        broken = run_generator(recipe("broken", steps))
    assert same(whole, broken)
    assert not same(whole, run_generator(recipe("clean", 4, noise=0.0)))


@pytest.mark.parametrize("noise", [-0.1, 1.1])
def test_shares_out_of_range_are_refused(noise: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"code_noise must be in \[0, 1\], not"):
        generator_recipe(tmp_path, tmp_path, tmp_path, code_noise=noise)
