"""A pipeline that draws latents: calls, recipes, its folder, what it takes and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmgen.errors import UserError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.velocity import VelocityConfig, VelocityModel
from mmgen.pipeline import FORMAT, Pipeline, PipelineInfo, SamplingDefaults
from mmgen.preview import UNDECIDED, Growth
from mmgen.sample.engine import Step
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig, KLConfig
from tests.tiny_networks import everywhere

USUAL = SamplingDefaults(guidance_scale=2.5, guidance_ramp="linear", steps=3)


def latent_tokenizer(channels: int = 3, **changes: Any) -> ConvTokenizer:
    """Pictures of 16x16 pixels to 4x4 latents."""
    sizes: dict[str, Any] = {"quantizer": KLConfig(channels=channels, scale=0.5), "norm_groups": 4}
    sizes |= {"widths": (8, 8, 8), "res_blocks": 1, "decoder_res_blocks": 1, "z_channels": channels}
    sizes |= {"attention_levels": (), "middle_attention": False}
    return ConvTokenizer(ConvTokenizerConfig(**(sizes | changes)))


def flow_pipeline() -> Pipeline:
    """Four cells of 2x2 latents, classes 0 to 4."""
    torch.manual_seed(0)
    stack = BackboneConfig(width=32, depth=1, heads=2, mlp="geglu", qk_norm=False, adaln=True)
    config = VelocityConfig((stack, stack), 3, (1, 4, 4), "cell:2", classes=5, whole_times=True)
    info = PipelineInfo(format=FORMAT, name="flow", image_size=16, sampling=USUAL)
    return Pipeline(None, latent_tokenizer(), everywhere(VelocityModel(config)), info)


def test_a_call_uses_the_settings_of_the_folder(tmp_path: Path) -> None:
    flow_pipeline().save_pretrained(tmp_path)
    pipe = Pipeline.from_pretrained(tmp_path)
    output = pipe(class_labels=[1, 4], num_images_per_prompt=2, seed=3)
    assert output.codes.shape == (4, 1, 4, 4, 3) and output.codes.is_floating_point()
    assert [image.size for image in output.images] == [(16, 16)] * 4
    recipe = output.recipes[0]
    assert (recipe["guidance_scale"], recipe["guidance_ramp"]) == (2.5, "linear")
    assert (recipe["solver"], recipe["num_inference_steps"]) == ("euler-maruyama", 3)
    assert (recipe["class_label"], recipe["seed"], recipe["unit"]) == (1, 3, "cell")
    assert "temperature" not in recipe


def test_a_recipe_draws_the_picture_again_alone() -> None:
    pipe = flow_pipeline()
    output = pipe(class_labels=[1, 4], seed=3, num_inference_steps=[4, 3, 2, 1], solver="heun")
    recipe = output.recipes[1]
    names = ("seed", "guidance_scale", "guidance_ramp", "solver", "num_inference_steps", "order")
    again = pipe(class_labels=recipe["class_label"], **{name: recipe[name] for name in names})
    assert torch.allclose(again.codes, output.codes[1:], atol=1e-5)


def test_latents_in_progress_can_be_shown() -> None:
    pipe = flow_pipeline()
    steps = list(pipe.stream(class_labels=[0, 5], seed=1))
    assert [step.index for step in steps] == list(range(1, 13)) and steps[0].total == 12
    assert [int(step.done.sum()) for step in steps] == [0, 0, 4, 4, 4, 8, 8, 8, 12, 12, 12, 16]
    assert [int(step.begun.sum()) for step in steps] == [4] * 3 + [8] * 3 + [12] * 3 + [16] * 3
    assert len(pipe.render(steps[0].codes)) == 2
    for before, step in pairwise(steps):
        moved = (step.codes != before.codes).any(0).any(-1)  # (t, h, w)
        assert torch.equal(moved, step.begun & ~before.done)  # the cell that the solver is at
        assert not step.codes[:, ~step.begun].any()


def test_a_clip_shows_how_cells_are_denoised(tmp_path: Path) -> None:
    pipe = flow_pipeline()
    growth = Growth(pipe, 1, None, keep=True)
    output = pipe(class_labels=2, seed=1, watch=growth.watch)
    frames = np.stack([np.asarray(frame) for frame in growth.frames])  # (12, 16, 16, 3)
    assert np.array_equal(frames[-1], np.asarray(output.images[0]))
    grey = (frames == UNDECIDED).all(-1)
    for number, frame in enumerate(grey):
        cells = [frame[y : y + 8, x : x + 8].all() for y in (0, 8) for x in (0, 8)]
        assert cells == [cell > number // 3 for cell in range(4)]
    changed = (frames[1:] != frames[:-1]).any(-1)[:, :8, :8].any((1, 2))
    assert changed[:2].all()  # noise, then less of it, then the cell
    growth.save(tmp_path / "denoised.gif", output.recipes, 2)
    with Image.open(tmp_path / "denoised.gif") as animation:
        assert animation.size == (32, 32)


def test_each_block_has_its_own_number_of_steps_to_watch() -> None:
    seen: list[Step] = []
    flow_pipeline()(class_labels=2, seed=1, num_inference_steps=[4, 3, 2, 1], watch=seen.append)
    assert [int(step.begun.sum()) // 4 for step in seen] == [1] * 4 + [2] * 3 + [3] * 2 + [4]
    assert {step.total for step in seen} == {10} and seen[-1].done.all()


def test_many_pictures_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = flow_pipeline()
    whole = pipe(class_labels=[1, 2, 3], seed=3, output_type="codes").codes
    monkeypatch.setattr("mmgen.drawing.CACHE_BYTES", 1)
    parts = pipe(class_labels=[1, 2, 3], seed=3, output_type="codes").codes
    assert torch.allclose(whole, parts, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.5}, "draw latents; leave out temperature"),
        ({"top_k": 5}, "draw latents; leave out top_k"),
        ({"num_inference_steps": 0}, "1 step or more"),
        ({"num_inference_steps": [3, 3]}, "2 numbers of steps for 4 blocks"),
        ({"solver": "hein"}, "did you mean 'heun'"),
        ({"order": "raster"}, "was not trained for these weights"),
        ({"class_labels": 6}, "There is no class 6"),
    ],
)
def test_what_latents_do_not_take(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        flow_pipeline()(**({"class_labels": 1} | settings))


def test_codes_take_no_solver() -> None:
    from tests.tiny_pipeline import tiny_pipeline

    for settings in ({"solver": "euler"}, {"num_inference_steps": 4}):
        with pytest.raises(UserError, match="draw codes; leave out the solver and its steps"):
            tiny_pipeline()("a red square", **settings)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"channels": 4}, "4 channels of a latent, but the transformer was trained on 3"),
        ({"quantizer": FSQConfig(levels=(4, 4, 3))}, r"48 codes \(0: latents\)"),
    ],
)
def test_tokenizers_of_other_latents(tmp_path: Path, vision: dict[str, Any], message: str) -> None:
    pipe = flow_pipeline()
    pipe.vision = latent_tokenizer(**vision)
    pipe.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        Pipeline.from_pretrained(tmp_path)


def test_the_folder_keeps_steps_of_each_block(tmp_path: Path) -> None:
    pipe = flow_pipeline()
    pipe.info = replace(pipe.info, sampling=replace(USUAL, steps=(4, 3, 2, 1), solver="euler"))
    pipe.save_pretrained(tmp_path)
    recipe = Pipeline.from_pretrained(tmp_path)(class_labels=0, seed=0).recipes[0]
    assert (recipe["solver"], recipe["num_inference_steps"]) == ("euler", (4, 3, 2, 1))
