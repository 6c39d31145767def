"""A generator of stills and clips through the real loop: what it leaves, tells, refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_runs import generator_recipe, log_of, run_generator, same
from torch import Tensor

from mmgen.data.clip_dataset import ClipTextDataset, Vary
from mmgen.data.films import Limits
from mmgen.errors import ConfigError, UserError
from mmgen.models.schedule import grid_of
from mmgen.models.unified import Unit
from mmgen.pipeline import Pipeline, SamplingDefaults
from mmgen.sample.clip_files import save_clip
from mmgen.train.clip_datasets import ClipDataConfig
from mmgen.train.datasets import DataConfig
from mmgen.train.flow_losses import FlowConfig
from mmgen.train.generator_clips import given_part
from mmgen.train.generator_task import GeneratorRecipe, GeneratorTask
from mmgen.train.tokens import cached_tokens
from tests.tiny_clip_pipeline import FRAMES, GRID, SIZE, UNITS, tiny_vision

STILL = (1, *GRID[1:])
LEARNED = (
    *UNITS[1:3],
    Unit("frame", "frame:1", "shift", of="clips"),
    Unit("any", "random", "self"),
    Unit("token", "raster", "shift", of="stills"),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of eight frames, a ball that falls."""
    folder = tmp_path_factory.mktemp("data") / "clips"
    folder.mkdir()
    for i in range(6):
        frames = [Image.new("RGB", (SIZE, SIZE), (40 * i, 90, 160)) for _ in range(8)]
        for k, frame in enumerate(frames):
            frame.paste("white", (i, k, i + 2, k + 2))
        save_clip(frames, folder / f"{i}.gif", {})
        (folder / f"{i}.txt").write_text(f"ball number {i}, falling", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video")
    vision = tiny_vision()
    with torch.no_grad():
        vision.encoder.conv_out.weight *= 20  # else all clips have the same codes
    vision.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recipe_of(pictures: Path, clips: Path, video: Path) -> Callable[..., GeneratorRecipe]:
    def made(out: Path, steps: int = 6, **changes: Any) -> GeneratorRecipe:
        values: dict[str, Any] = {
            "data": DataConfig(str(pictures), str(pictures), SIZE),
            "clips": ClipDataConfig(str(clips), str(clips), FRAMES, batch_size=2, views=2),
            "units": LEARNED,
            "frames_share": 0.5,
            "sampling": SamplingDefaults(guidance_scale=1.5, num_frames=FRAMES),
        }
        return generator_recipe(pictures, video, out, steps, **values | changes)

    return made


@pytest.fixture(scope="module")
def generated(
    recipe_of: Callable[..., GeneratorRecipe], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "clips"
    run_generator(recipe_of(out))
    return out


def test_a_run_leaves_a_pipeline_of_clips_and_stills(generated: Path, video: Path) -> None:
    pipe = Pipeline.from_pretrained(generated / "final")
    assert pipe.transformer.config.grid == GRID and pipe.transformer.config.grids == (STILL, GRID)
    assert type(pipe.vision).__name__ == "CausalVideoTokenizer" and pipe.draws_clips
    clip = pipe("ball number 3, falling", seed=1)
    assert [len(frames) for frames in clip.frames] == [FRAMES] and clip.images == []
    still = pipe("a red thing number 3", seed=1, num_frames=1)
    assert still.images[0].size == (SIZE, SIZE) and still.frames == []
    assert isinstance(pipe.caption(still.images)[0], str)


def test_a_run_tells_its_losses_apart(generated: Path) -> None:
    lines = log_of(generated)
    kinds = {name for line in lines for name in line["losses"]}
    assert kinds <= {"image", "caption", "clip", "clip_caption"} and {"image", "clip"} <= kinds
    for line in lines:
        of = "clip_" if "clip" in line["losses"] else ""
        told = [name for name in line["metrics"] if name.startswith("loss_")]
        assert len(told) == (not {"caption", "clip_caption"} & set(line["losses"]))
        assert all(name.startswith(f"loss_{of}") for name in told)
    stills = {f"val_{unit.name}" for unit in LEARNED if unit.of != "clips"}
    moving = {f"val_clip_{unit.name}" for unit in LEARNED if unit.of != "stills"}
    scores = lines[-1]["eval"]
    assert set(scores) == {*stills, *moving, "val_caption", "val_clip_caption"}
    assert all(0 < value < 10 for value in scores.values())
    with Image.open(generated / "previews" / "step-6.png") as sheet:
        assert sheet.width > FRAMES * SIZE and sheet.height > 12 * SIZE


def test_a_resumed_run_ends_with_the_same_bits(
    generated: Path, recipe_of: Callable[..., GeneratorRecipe], tmp_path: Path
) -> None:
    for steps in (2, 6):
        made = recipe_of(tmp_path / "broken", steps)
        run_generator(replace(made, train=replace(made.train, save_every=2)))
    assert same(generated, tmp_path / "broken")


def test_each_step_asks_for_codes_behind_the_frames_that_it_is_given(
    recipe_of: Callable[..., GeneratorRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = GeneratorTask(recipe_of(tmp_path, caption_share=0.0, frames_share=0.7))
    task.model.eval()
    still, moving, *_ = task.batches(0, 0)
    loss, seen = task.model.text_to_image_loss, set()
    whole = moving["codes"]
    assert [grid_of(batch["codes"]) for batch in (still, moving)] == [STILL, GRID]

    def checked(
        ids: Any, valid: Any, codes: Tensor, plan: Any, unit: str, shown: Any, given: int
    ) -> Tensor:
        t, h, w = plan.schedule.grid
        frames, start = given // (h * w), GRID[0] - t
        found = loss(ids, valid, codes, plan, unit, shown, given)
        if t > 1 or given:
            part = whole[:, start:].flatten(1)[:, plan.schedule.site]
            assert torch.equal(codes, part)
            assert frames < t and set(plan.schedule.site[:given].tolist()) == {*range(given)}
            logits = task.model.image_logits(ids, valid, codes, plan, unit)
            each = F.cross_entropy(logits.transpose(1, 2), codes, reduction="none")
            torch.testing.assert_close(found, each[:, given:].mean())
        seen.add((t, frames))
        return found

    monkeypatch.setattr(task.model, "text_to_image_loss", checked)
    for step in range(60):
        task.losses((still, moving)[step % 2], step, "model")
    # Stills, whole clips, clips with one or two frames given, and those that begin later.
    assert seen == {(1, 0), (3, 0), (3, 1), (3, 2), (2, 1)}


def test_frames_that_an_order_cannot_go_on_from_are_not_drawn() -> None:
    pairs = Unit("pairs", "frame:2", "shift")
    drawn = {given_part(pairs, (6, 2, 2), seed, 1.0) for seed in range(200)}
    assert drawn == {(0, 2), (0, 4), (2, 2)}
    assert given_part(Unit("whole", "whole", "shift"), (3, 2, 2), 0, 1.0) == (0, 0)


def test_a_cache_of_views_holds_what_was_drawn(clips: Path, tmp_path: Path) -> None:
    vision, dataset = tiny_vision(), ClipTextDataset(clips, SIZE, FRAMES, vary=Vary(span=0.5))
    with torch.no_grad():
        vision.encoder.conv_out.weight *= 20
    tokens = cached_tokens(vision, dataset, tmp_path / "tokens", views=3)
    assert len(tokens) == 18 and tokens.grid == GRID
    for i in range(6):
        seen = torch.stack([dataset.view(i, number).pixels for number in range(3)])
        assert torch.equal(tokens.indices[3 * i : 3 * i + 3].long(), vision.encode(seen).indices)
        assert torch.equal(seen[0], dataset[i].pixels)
    assert len({tuple(row.flatten().tolist()) for row in tokens.indices}) > 6
    with pytest.raises(UserError, match="from other pictures or captions"):
        cached_tokens(vision, dataset, tmp_path / "tokens", views=2)
    dataset.reader = replace(dataset.reader, limits=Limits(seconds=100))
    with pytest.raises(UserError, match="from other pictures or captions"):
        cached_tokens(vision, dataset, tmp_path / "tokens", views=3)


def test_reports_count_clips_and_not_their_views(clips: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "clips"
    shutil.copytree(clips, mixed)
    wide = [Image.new("RGB", (2 * SIZE, SIZE), (40 * i, 0, 0)) for i in range(5)]
    save_clip(wide, mixed / "wide.gif", {})
    wide[0].save(mixed / "still.gif")
    for name in ("wide", "still"):
        (mixed / f"{name}.txt").write_text(f"a {name} one", encoding="utf-8")
    dataset = ClipTextDataset(mixed, SIZE, FRAMES, vary=Vary(), limit_bad=0.2)
    tokens = cached_tokens(tiny_vision(), dataset, tmp_path / "tokens", views=3)
    assert len(tokens) == 21 and "Skipped 1 bad of 8 samples" in tokens.report()
    assert "1 of 7 in" in (tokens.cropping() or "")


def test_what_clips_cannot_be_trained_with(
    recipe_of: Callable[..., GeneratorRecipe], vision: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="clips need a tokenizer of clips"):
        GeneratorTask(recipe_of(tmp_path, tokenizer=str(vision)))
    with pytest.raises(ConfigError, match=r"frames_share must be in \[0, 1\]"):
        recipe_of(tmp_path, frames_share=1.5)
    for name, value in (("phase", False), ("span", 0.5), ("crop", 0.9)):
        clips = ClipDataConfig("a", **{name: value})
        with pytest.raises(ConfigError, match=f"clips.{name} does nothing .* clips.views is 1"):
            recipe_of(tmp_path, clips=clips)
    with pytest.raises(ConfigError, match=r"flow.context is for latents, and .* has codes"):
        GeneratorTask(recipe_of(tmp_path / "run", flow=FlowConfig("clean")))
    with pytest.raises(ConfigError, match="None of units draws stills"):
        GeneratorTask(recipe_of(tmp_path / "frames", units=LEARNED[2:3]))


def test_a_run_of_clips_alone_needs_no_stills(
    recipe_of: Callable[..., GeneratorRecipe], tmp_path: Path
) -> None:
    made = recipe_of(tmp_path / "run", units=LEARNED[2:3], data=DataConfig("none", "none", SIZE))
    assert made.clips is not None
    made = replace(made, clips=replace(made.clips, share=1.0))
    run_generator(made)
    scores = log_of(tmp_path / "run")[-1]["eval"]
    assert set(scores) == {"val_clip_frame", "val_clip_caption"}
    lines = log_of(tmp_path / "run")
    assert {name for line in lines for name in line["losses"]} <= {"clip", "clip_caption"}
    pipe = Pipeline.from_pretrained(tmp_path / "run" / "final")
    assert pipe.transformer.config.grids == (GRID,)
    with Image.open(tmp_path / "run" / "previews" / "step-6.png") as sheet:
        assert sheet.width > FRAMES * SIZE
