"""A pipeline of text and latents: its folder, calls, captions, edits, scores, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmgen.errors import UserError
from mmgen.pipeline import Pipeline
from mmgen.tokenizers_vis.quantizers import FSQConfig
from tests.test_flow_pipeline import latent_tokenizer
from tests.tiny_latents import ORDERS, latent_pipeline, unit_of


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return latent_pipeline()


def test_a_loaded_folder_draws_the_same_pictures(pipe: Pipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    again = Pipeline.from_pretrained(tmp_path)
    assert again.fingerprint == pipe.fingerprint
    one, two = (each(["a red apple", "a blue square"], seed=3) for each in (pipe, again))
    assert torch.equal(one.codes, two.codes) and one.codes.shape == (2, 1, 4, 4, 3)
    assert [image.size for image in one.images] == [(16, 16)] * 2
    recipe = one.recipes[1]
    assert (recipe["solver"], recipe["num_inference_steps"]) == ("euler", 3)
    assert recipe["prompt"] == "a blue square" and "temperature" not in recipe


@pytest.mark.parametrize("order", ORDERS)
def test_every_unit_draws_what_the_text_says(pipe: Pipeline, order: str) -> None:
    settings: dict[str, Any] = {"unit": unit_of(order).name, "output_type": "codes"}
    both = pipe(["a red apple", "a blue square"], seed=[5, 5], **settings).codes
    alone = pipe("a blue square", seed=5, **settings).codes
    assert (alone - both[1:]).abs().max() < 1e-4
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_steps_of_each_entity_and_other_solvers(pipe: Pipeline) -> None:
    settings: dict[str, Any] = {"unit": "cell", "seed": 5, "solver": "heun"}
    output = pipe("a red apple", num_inference_steps=[4, 3, 2, 1], **settings)
    assert output.recipes[0]["num_inference_steps"] == (4, 3, 2, 1)
    with pytest.raises(UserError, match="4 numbers of steps for 1 blocks"):
        pipe("a red apple", unit="whole", num_inference_steps=[4, 3, 2, 1])


def test_an_order_finds_its_unit_and_a_negative_prompt_leads_away(pipe: Pipeline) -> None:
    assert pipe("a red apple", order="subsample:2", seed=1).recipes[0]["unit"] == "subsample"
    free = pipe("a red apple", order="row:2", seed=1)  # by the unit of any order
    assert free.recipes[0]["unit"] == "random"
    one = pipe("a red apple", negative_prompt="a blue square", seed=1).codes
    assert not torch.allclose(one, pipe("a red apple", seed=1).codes, atol=1e-3)


def test_pictures_are_captioned_and_scored_by_the_same_weights(pipe: Pipeline) -> None:
    pictures = [Image.new("RGB", (20, 16), colour) for colour in ("red", "blue")]
    assert pipe.caption(pictures) == [pipe.caption(each)[0] for each in pictures]
    scores = pipe.score(pictures[0], ["a red apple", "a blue square"])
    assert all(score.total < 0 for score in scores)
    with pytest.raises(UserError, match="draw latents, which have no likelihood"):
        pipe.score(pictures[0], "a red apple", by="picture")


def test_a_part_of_a_picture_is_drawn_anew(pipe: Pipeline) -> None:
    picture = Image.new("RGB", (16, 16), "red")
    output = pipe.edit(picture, "a blue square", box=(0, 0, 8, 8), seed=1)
    kept = pipe.vision.encode(torch.ones(1, 3, 16, 16) * torch.tensor([1.0, -1, -1])[:, None, None])
    assert torch.allclose(output.codes[0, 0, 2:], kept.latents[0, 0, 2:], atol=1e-4)
    assert not torch.allclose(output.codes[0, 0, :2, :2], kept.latents[0, 0, :2, :2], atol=1e-1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.5}, "draw latents; leave out temperature"),
        ({"unit": "cells"}, "no unit 'cells'"),
        ({"class_labels": 1, "prompt": None}, "draw from text; give a prompt"),
    ],
)
def test_what_latents_do_not_take(pipe: Pipeline, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pipe(**({"prompt": "a red apple"} | settings))


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"channels": 4}, "4 channels of a latent, but the transformer was trained on 3"),
        ({"quantizer": FSQConfig(levels=(4, 4, 3))}, r"48 codes \(0: latents\)"),
    ],
)
def test_tokenizers_of_other_latents(tmp_path: Path, vision: dict[str, Any], message: str) -> None:
    strange = latent_pipeline()
    strange.vision = latent_tokenizer(**vision)
    strange.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        Pipeline.from_pretrained(tmp_path)


def test_coarse_levels_are_followed_by_no_unit_that_did_not_learn_them(pipe: Pipeline) -> None:
    with pytest.raises(UserError, match="'scale:1,4' was not trained for these weights"):
        pipe("a red apple", order="scale:1,4")
    with pytest.raises(UserError, match="'scale:1,2,4' was not trained for these weights"):
        latent_pipeline(("cell:2", "random"))("a red apple", order="scale:1,2,4")
    assert pipe.request("a red apple", order="scale:1,2,4").unit.name == "scale"
