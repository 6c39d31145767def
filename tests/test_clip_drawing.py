"""Clips and stills of one set of weights: lengths, given frames, windows, frames as they come."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from mmgen.beginnings import clip_beginning
from mmgen.errors import ConfigError, UserError
from mmgen.lengths import Window, windows
from mmgen.models.plan import Plan
from mmgen.models.schedule import to_slots
from mmgen.models.unified import Unit, plan_for
from mmgen.pipeline import Pipeline
from mmgen.replaying import replay
from mmgen.request import Frames
from mmgen.rolling import later_plans, roll
from mmgen.sample.clip_files import save_clip
from mmgen.sample.draw import DrawSettings
from mmgen.sample.engine import DecodeSettings, Step, decode, text_prefix
from mmgen.sample.flow import FlowDecider, FlowSettings
from mmgen.train.generator_clips import given_part
from tests.tiny_clip_pipeline import FRAMES, GRID, SIZE, UNITS, tiny_clips
from tests.tiny_latents import latent_model, texts
from tests.tiny_pipeline import tiny_pipeline

NAMES = [unit.name for unit in UNITS]
CAUSAL = ["frame", "row", "token", "block"]  # later frames say nothing about earlier ones
PROMPTS = ["a red apple", "a blue square"]
GREEDY = DecodeSettings(DrawSettings(temperature=0.0))


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_clips()


def beginning(frames: int, batch: int = 2) -> Tensor:
    """(batch, 3, frames, SIZE, SIZE)."""
    numbers = torch.Generator().manual_seed(5)
    return torch.rand(batch, 3, frames, SIZE, SIZE, generator=numbers) * 2 - 1


# -- cached decoding ---------------------------------------------------------------------------


@pytest.mark.parametrize("given", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_cached_decoding_equals_the_forward(pipe: Pipeline, name: str, given: int) -> None:
    text, model = pipe.two_way()
    unit = model.config.unit(name)
    plan = plan_for(unit, GRID, frames=given)
    ids, valid = text.encode(PROMPTS, 12)
    known = torch.randint(48, (2, *GRID), generator=torch.Generator().manual_seed(given))
    first = to_slots(plan.schedule, known)[:, : given * GRID[1] * GRID[2]]
    seeds = torch.zeros(2, dtype=torch.long)
    prefix = text_prefix(model, name, ids, valid)
    steps = list(decode(model, prefix, plan, name, seeds, GREEDY, given=first if given else None))
    assert torch.equal(steps[-1].codes[:, :given], known[:, :given])
    codes = to_slots(plan.schedule, steps[-1].codes)
    logits = torch.cat([step.logits for step in steps if step.logits is not None], dim=1)
    with torch.no_grad():
        whole = model.image_logits(ids, valid, codes, plan, name)[:, first.shape[1] :]
    torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_decoding_that_is_broken_off_between_frames_goes_on_the_same(
    pipe: Pipeline, name: str
) -> None:
    text, model = pipe.two_way()
    plan = plan_for(model.config.unit(name), GRID)
    ids, valid = text.encode(PROMPTS, 12)
    seeds = torch.tensor([4, 9])
    (*_, whole) = decode(model, text_prefix(model, name, ids, valid), plan, name, seeds)
    given = to_slots(plan.schedule, whole.codes)[:, : GRID[1] * GRID[2]]
    prefix = text_prefix(model, name, ids, valid)
    (*_, again) = decode(model, prefix, plan, name, seeds, given=given)
    assert torch.equal(again.codes, whole.codes)


@pytest.mark.parametrize("name", CAUSAL)
def test_positions_go_on_past_the_trained_length(pipe: Pipeline, name: str) -> None:
    text, model = pipe.two_way()
    ids, valid = text.encode(PROMPTS, 12)
    codes = torch.randint(48, (2, 6, *GRID[1:]), generator=torch.Generator().manual_seed(1))
    said = []
    for frames in (3, 6):
        plan = plan_for(model.config.unit(name), (frames, *GRID[1:]))
        with torch.no_grad():
            slots = to_slots(plan.schedule, codes[:, :frames])
            said.append(model.image_logits(ids, valid, slots, plan, name))
    torch.testing.assert_close(said[1][:, :12], said[0], atol=1e-4, rtol=1e-4)
    assert said[1].isfinite().all()
    assert not torch.allclose(said[1][:, 16:20], said[1][:, 20:], atol=1e-3)


# -- lengths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_one_set_of_weights_draws_stills_and_clips(pipe: Pipeline, name: str) -> None:
    still = pipe(PROMPTS, unit=name, seed=3)
    assert [image.size for image in still.images] == [(SIZE, SIZE)] * 2 and still.frames == []
    assert not pipe.draws_clips and pipe.grid == (1, *GRID[1:])
    one = pipe(PROMPTS, unit=name, seed=3, num_frames=1)
    assert torch.equal(one.codes, still.codes) and one.recipes[0]["num_frames"] == 1
    clip = pipe(PROMPTS, unit=name, seed=3, num_frames=FRAMES)
    assert [len(frames) for frames in clip.frames] == [FRAMES] * 2 and clip.images == []
    assert clip.codes.shape == (2, *GRID)
    if name in CAUSAL:  # a still is the beginning of a clip
        assert torch.equal(clip.codes[:, :1], still.codes)
        assert clip.frames[0][0].tobytes() == still.images[0].tobytes()


def test_the_defaults_say_what_a_silent_call_draws() -> None:
    silent = tiny_clips(num_frames=FRAMES)
    assert silent.draws_clips and silent.usual_frames == silent.trained_frames == FRAMES
    assert len(silent("a red apple", seed=0).frames[0]) == FRAMES
    assert silent("a red apple", seed=0, num_frames=1).images


def test_units_that_learned_clips_alone_are_passed_over_for_stills() -> None:
    units = (Unit("frame", "frame:1", "shift", of="clips"), *UNITS[1:])
    pipe = tiny_clips(units, unit="frame")
    assert pipe("a red apple", seed=0).recipes[0]["unit"] == "row"
    assert pipe("a red apple", seed=0, num_frames=5).recipes[0]["unit"] == "frame"
    with pytest.raises(ConfigError, match="'frame' was not trained on stills; choose one of row"):
        pipe("a red apple", unit="frame")


def test_units_that_do_not_fit_a_clip_are_passed_over() -> None:
    thirds = Unit("thirds", "frame:3", "shift", of="clips")
    pipe = tiny_clips((thirds, *UNITS), num_frames=FRAMES)
    assert pipe.request("a", num_frames=3, order="raster").unit.name == "token"
    assert pipe.request("a", num_frames=3).unit.name == "frame"
    assert pipe.request("a").unit.name == "thirds"
    for order in (None, "raster"):
        with pytest.raises(ConfigError, match="frame:3"):
            pipe.request("a", num_frames=3, unit="thirds", order=order)


def test_what_has_no_such_length_is_said(pipe: Pipeline) -> None:
    with pytest.raises(ConfigError, match="is 4, but the codes of 'clips' are of 3 or 5"):
        pipe("a", num_frames=4)
    for count in (0, -3, 1.5, True):
        with pytest.raises(ConfigError, match="whole number from 1"):
            pipe("a", num_frames=count)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="draw pictures, no clips"):
        tiny_pipeline()("a", num_frames=5)
    with pytest.raises(UserError, match="no frames to stream"):
        pipe.stream_frames("a")


# -- frames to go on from ----------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_given_frames_stand_at_the_beginning(pipe: Pipeline, name: str, frames: int) -> None:
    pixels = beginning(frames)
    known = pipe.vision.encode(pixels).indices
    output = pipe(PROMPTS, frames=pixels, unit=name, seed=1)
    assert output.codes.shape == (2, *GRID) and len(output.frames[0]) == FRAMES
    assert torch.equal(output.codes[:, : known.shape[1]], known)
    strong = [
        pipe(text, frames=pixels, unit=name, seed=1, guidance_scale=50.0).codes for text in PROMPTS
    ]
    assert not torch.equal(*strong)  # the prompt counts
    assert all(torch.equal(codes[:, : known.shape[1]], known) for codes in strong)
    assert pipe(frames=pixels[:1], unit=name, seed=1).recipes[0]["frames"] == "frames"


def test_frames_that_cannot_be_gone_on_from(pipe: Pipeline) -> None:
    with pytest.raises(UserError, match="2 frames of 8x8, and the clip will have 5; give 1, 3 of"):
        pipe("a", frames=beginning(2))
    with pytest.raises(UserError, match="5 frames of 8x8"):
        pipe("a", frames=beginning(5))
    with pytest.raises(UserError, match="does not go on from frames; let num_frames"):
        pipe("a", frames=beginning(1), num_frames=1)
    with pytest.raises(UserError, match="3 prompts for 2 clips"):
        pipe(["a", "b", "c"], frames=beginning(1))
    with pytest.raises(UserError, match="different lengths"):
        clips = [Frames("one", beginning(1)[0]), Frames("two", beginning(3)[0])]
        pipe("a", frames=clips)
    with pytest.raises(UserError, match="do not go on from frames"):
        tiny_pipeline()("a", frames=beginning(1))


# -- windows -----------------------------------------------------------------------------------


def test_windows_cover_a_clip() -> None:
    assert list(windows(3, 5)) == [Window(0, 0, 3)]
    assert list(windows(9, 5)) == [Window(0, 0, 5), Window(3, 2, 4), Window(5, 2, 4)]
    assert list(windows(7, 5, 1)) == [Window(0, 1, 5), Window(3, 2, 4)]
    assert list(windows(9, 5, 6)) == [Window(4, 2, 4), Window(6, 2, 4)]
    assert list(windows(4, 2)) == [Window(0, 0, 2), Window(1, 1, 2), Window(2, 1, 2)]


@settings(max_examples=50)
@given(longest=st.integers(3, 9), frames=st.integers(1, 30), known=st.integers(0, 12))
def test_later_windows_are_among_what_is_trained(longest: int, frames: int, known: int) -> None:
    """Of clips that begin in their middle, and all of what is left of them is decided or drawn."""
    assume(known < frames and frames > longest)
    row = Unit("row", "row:1", "shift")
    late = {
        (longest - part[0], part[1])
        for part in (given_part(row, (longest, 2, 2), seed, 1.0) for seed in range(300))
        if part[0]
    }
    parts, done = list(windows(frames, longest, known)), known
    for part in parts:
        assert part.start + part.given == done and part.frames > part.given
        assert part.start == 0 or (part.frames, part.given) in late
        done = part.start + part.frames
    assert done >= frames


def test_long_clips_that_windows_cannot_draw_are_refused_at_once() -> None:
    pipe = tiny_clips((Unit("thirds", "frame:3", "shift", of="clips"), *UNITS))
    assert pipe.request("a", num_frames=FRAMES).unit.name == "thirds"
    assert pipe.request("a", num_frames=9).unit.name == "frame"
    with pytest.raises(ConfigError, match="'thirds' draws no clips that are longer than") as error:
        pipe.request("a", unit="thirds", num_frames=9)
    assert "latent frames" not in str(error.value)  # nobody gave those


def test_steps_of_windows_of_latents_count_those_of_the_solver() -> None:
    model, flow = latent_model((3, 4, 4), ("frame:1",)), FlowSettings("euler", 2)
    parts, unit = list(windows(5, 3)), model.config.units[0]
    plan = plan_for(unit, (3, 4, 4))
    plans = [plan, *later_plans(unit, plan, parts[1:], flow)]
    ids, valid = texts([3])
    seeds = torch.tensor([4])

    def draw(number: int, plan: Plan, known: Tensor | None) -> Iterator[Step]:
        prefix = text_prefix(model, unit.name, ids, valid)
        assert prefix.cursor.condition is not None
        decider = FlowDecider(model, plan, prefix.cursor.condition, seeds, flow, segment=number)
        return decode(model, prefix, plan, unit.name, seeds, decider=decider, given=known)

    steps = list(roll(parts, plans, 5, None, draw, flow))
    assert [step.index for step in steps] == list(range(1, 11))
    assert {step.total for step in steps} == {10} and steps[-1].done.all()
    assert [int(step.begun.sum()) // 16 for step in steps] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    with pytest.raises(ConfigError, match="a later window cannot be drawn"):
        later_plans(unit, plan, parts[1:], FlowSettings("euler", (3, 2, 1)))


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_clip_begins_with_the_shorter_one(pipe: Pipeline, name: str) -> None:
    short, long = (pipe(PROMPTS, unit=name, seed=2, num_frames=n) for n in (9, 15))
    assert torch.equal(long.codes[:, :5], short.codes)
    trained = pipe(PROMPTS, unit=name, seed=2, num_frames=FRAMES)
    assert torch.equal(long.codes[:, :3], trained.codes)
    tail = long.codes[0, 3:].flatten()
    assert not torch.equal(tail[:4], tail[4:8])  # each window has noise of its own
    alone = pipe(PROMPTS[1], unit=name, seed=3, num_frames=15)
    assert torch.equal(alone.codes[0], long.codes[1])  # whatever the batch
    assert len(long.frames[0]) == 15 and long.recipes[0]["num_frames"] == 15


@pytest.mark.parametrize("name", NAMES)
def test_the_steps_of_windows_are_those_of_one_clip(pipe: Pipeline, name: str) -> None:
    steps = list(pipe.stream("a red apple", unit=name, seed=2, num_frames=9))
    assert [step.index for step in steps] == list(range(1, len(steps) + 1))
    assert {step.total for step in steps} == {len(steps)}
    for before, after in pairwise(steps):
        assert not (before.done & ~after.done).any() and after.done.sum() >= before.done.sum()
        assert torch.equal(before.codes[:, before.done], after.codes[:, before.done])
        assert torch.equal(after.begun, after.done)  # codes are decided at once
    assert steps[-1].done.all() and steps[-1].codes.shape[1] == 5


def test_a_clip_that_is_longer_than_the_training_is_gone_on_from(pipe: Pipeline) -> None:
    pixels = beginning(7)  # four latent frames, and three were trained
    output = pipe(PROMPTS, frames=pixels, num_frames=11, seed=1)
    known = pipe.vision.encode(pixels).indices
    assert output.codes.shape[1] == 6 and torch.equal(output.codes[:, :4], known)


# -- frames as they come -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_frames_come_as_they_are_finished(pipe: Pipeline, name: str) -> None:
    call = {"unit": name, "seed": 6, "num_frames": 15}
    parts = list(pipe.stream_frames(PROMPTS, **call))
    assert len(parts) > 2 and all(len(part) == 2 for part in parts)
    whole = pipe(PROMPTS, **call).frames
    for i in range(2):
        frames = [frame for part in parts for frame in part[i]]
        assert len(frames) == 15
        for one, other in zip(frames, whole[i]):
            assert np.abs(np.int16(one) - np.int16(other)).max() <= 1
    if name != "any":  # the first frame comes alone
        assert len(parts[0][0]) == 1 and len(parts) == 8


# -- files, captions ---------------------------------------------------------------------------


@pytest.mark.parametrize("given", [False, True])
def test_a_clip_is_drawn_again_from_its_file(pipe: Pipeline, given: bool, tmp_path: Path) -> None:
    source = tmp_path / "source.gif"
    save_clip([Image.new("RGB", (SIZE, SIZE), (60 * i, 9, 90)) for i in range(4)], source, {})
    frames = [clip_beginning(pipe, source, 3).frames] if given else None
    output = pipe("a red apple", frames=frames, num_frames=9, seed=8, unit="neighbor")
    save_clip(output.frames[0], tmp_path / "clip.webp", output.recipes[0])
    verdict = replay(pipe, tmp_path / "clip.webp", source if given else None)
    assert verdict.same, verdict.said


def test_clips_are_described(pipe: Pipeline) -> None:
    clips = pipe(PROMPTS, num_frames=FRAMES, seed=0).frames
    texts = pipe.caption(clips)
    assert len(texts) == 2 and texts == pipe.caption(clips) and pipe.caption(clips[1:]) == texts[1:]
    assert pipe.caption([clip[0] for clip in clips])
    with pytest.raises(UserError, match="different numbers of frames"):
        pipe.caption([clips[0], clips[1][:3]])
    with pytest.raises(UserError, match="read pictures, no clips"):
        tiny_pipeline().caption(clips)


def test_stills_of_clip_weights_are_edited(pipe: Pipeline) -> None:
    picture = pipe("a red apple", seed=0).images[0]
    edited = pipe.edit(picture, "a blue apple", box=(0, 0, 4, 8), seed=1)
    assert edited.images[0].size == (SIZE, SIZE) and edited.codes.shape[1] == 1
