"""Pipelines of weights that draw classes, captions through a text encoder, and clips."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from tiny_drawing import CLASSES, WORDS, conditional_pipeline, load_encoder, save_encoder
from tiny_pipeline import SIZE, tiny_pipeline

from mmgen.drawing import parts_of
from mmgen.errors import CheckpointError, ConfigError, UserError
from mmgen.models.caption_cleaning import clean_caption
from mmgen.models.text_features import TextEncoder
from mmgen.outputs import write
from mmgen.pipeline import Pipeline
from mmgen.sample.engine import last_step
from mmgen.sample.recipe_files import read_recipe


@pytest.fixture(scope="module")
def classes() -> Pipeline:
    return conditional_pipeline()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("t5"))


# -- classes -----------------------------------------------------------------------------------


def test_classes_are_drawn_and_recorded(classes: Pipeline) -> None:
    output = classes(class_labels=[2, 0], num_images_per_prompt=2, seed=5)
    assert [image.size for image in output.images] == [(SIZE, SIZE)] * 4 and not output.frames
    assert [recipe["class_label"] for recipe in output.recipes] == [2, 2, 0, 0]
    assert output.seeds == [5, 6, 7, 8] and "prompt" not in output.recipes[0]
    assert output.recipes[0]["guidance_scale"] == 2.0 and output.recipes[0]["unit"] == "neighbor"
    alone = classes(class_labels=0, seed=7, reproducible=True)
    again = classes(class_labels=[2, 0], seed=[1, 7], reproducible=True)
    assert torch.equal(alone.codes, again.codes[1:])
    steps = classes.stream(class_labels=[2, 2, 0, 0], seed=5)
    assert torch.equal(last_step(steps).codes, output.codes)


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([2, 0]),
        np.array([2, 0]),
        [np.int64(2), torch.tensor(0)],
    ],
)
def test_labels_may_be_tensors_and_arrays(labels: Any, classes: Pipeline) -> None:
    assert classes.request(class_labels=labels).subjects == [2, 0]
    assert classes.request(class_labels=labels[0]).subjects == [2]
    with pytest.raises(UserError, match="whole numbers"):
        classes.request(class_labels=torch.tensor([0.5]))
    with pytest.raises(UserError, match="whole numbers"):
        classes.request(class_labels=torch.tensor([[1, 2]]))


def test_a_text_encoder_is_refused_before_it_is_looked_for(
    classes: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes.save_pretrained(tmp_path / "classes")
    tiny_pipeline().save_pretrained(tmp_path / "own")
    monkeypatch.setattr(TextEncoder, "from_pretrained", lambda _: pytest.fail("it was looked for"))
    for name, said in (("classes", "read no text of a T5 encoder"), ("own", "of their own")):
        with pytest.raises(UserError, match=f"{said}; leave the text encoder out"):
            Pipeline.from_pretrained(tmp_path / name, text_encoder="some/t5")


def test_guidance_and_the_null_class(classes: Pipeline) -> None:
    def codes(label: int, scale: float) -> torch.Tensor:
        call: dict[str, Any] = {"num_images_per_prompt": 4, "seed": 0, "output_type": "codes"}
        return classes(class_labels=label, guidance_scale=scale, **call).codes

    assert torch.equal(codes(CLASSES, 1.0), codes(1, 0.0))
    assert (codes(1, 1.0) != codes(1, 6.0)).any() and (codes(1, 6.0) != codes(2, 6.0)).any()


def test_a_folder_needs_no_text(classes: Pipeline, tmp_path: Path) -> None:
    classes.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pipeline.json",
        "transformer",
        "vision",
    ]
    again = Pipeline.from_pretrained(tmp_path)
    one, other = classes(class_labels=3, seed=1), again(class_labels=3, seed=1)
    assert torch.equal(one.codes, other.codes) and one.recipes == other.recipes


def test_pieces_that_do_not_fit_are_refused(classes: Pipeline, tmp_path: Path) -> None:
    classes.save_pretrained(tmp_path)
    text = (tmp_path / "pipeline.json").read_text()
    (tmp_path / "pipeline.json").write_text(text.replace('"image_size": 16', '"image_size": 32'))
    with pytest.raises(CheckpointError, match=r"32 pixels a side, but .* trained on 16"):
        Pipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({}, "nothing to draw"),
        ({"prompt": "a cat"}, "draw classes, not text; give class labels"),
        ({"prompt": "a cat", "class_labels": 1}, "not several of them"),
        ({"class_labels": []}, "list of class labels is empty"),
        ({"class_labels": ["cat"]}, "whole numbers"),
        ({"class_labels": [True]}, "whole numbers"),
        ({"class_labels": 1.5}, "whole numbers, not 1.5"),
        ({"class_labels": [1, 6]}, "There is no class 6; give labels from 0 to 4"),
        ({"class_labels": -1}, "no class -1"),
        ({"class_labels": 1, "negative_prompt": "a dog"}, "no negative prompt"),
        ({"class_labels": 1, "unit": "token"}, "no unit 'token'"),
        ({"class_labels": 1, "order": "raster"}, "'raster' was not trained"),
    ],
)
def test_what_these_weights_do_not_draw(call: dict[str, Any], said: str, classes: Pipeline) -> None:
    with pytest.raises(UserError, match=said):
        classes(**call)


def test_they_only_draw(classes: Pipeline) -> None:
    with pytest.raises(UserError, match="only draw"):
        classes.caption(Image.new("RGB", (SIZE, SIZE)))
    with pytest.raises(UserError, match="draw from text; give a prompt"):
        tiny_pipeline()(class_labels=1)


def test_large_caches_make_small_batches(
    classes: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = classes.request(class_labels=[1] * 9)
    assert [len(part.seeds) for part in parts_of(classes, request)] == [9]
    one = 8 * 2 * 17 * 4 * 32  # bytes of a guided picture: two branches, keys and values in float32
    monkeypatch.setattr("mmgen.drawing.CACHE_BYTES", 4 * one)
    assert [len(part.seeds) for part in parts_of(classes, request)] == [4, 4, 1]


# -- captions ----------------------------------------------------------------------------------


def test_captions_go_through_the_encoder(encoder: Path) -> None:
    pipe = conditional_pipeline(captioned=True, text=load_encoder(encoder))
    call: dict[str, Any] = {"num_images_per_prompt": 4, "seed": 0}
    red, green = pipe("a red apple", **call), pipe("a green apple", **call)
    assert (red.codes != green.codes).any() and len(red.images) == 4
    assert red.recipes[0]["prompt"] == "a red apple"
    assert torch.equal(red.codes, pipe("A RED apple", **call).codes)  # the cleaner's lower case
    with pytest.raises(ConfigError, match="no negative prompt"):
        pipe("a red apple", negative_prompt="green")
    with pytest.raises(UserError, match="draw from text; give a prompt"):
        pipe(class_labels=1)


def test_features_end_where_the_picture_begins(encoder: Path) -> None:
    text = load_encoder(encoder)
    features = text.encode(["a red apple", "apple", "a red green apple square a red"])
    assert features.values.shape == (3, WORDS, text.channels)
    assert features.valid.sum(1).tolist() == [4, 2, WORDS]  # the end of the text counts
    assert features.valid[:, -1].all() and not features.values[~features.valid].any()
    ids = torch.tensor([[3, 4, 6, 1]])  # a red apple </s>
    with torch.inference_mode():
        expected = text.encoder(input_ids=ids).last_hidden_state
    assert torch.allclose(features.values[:1, 2:], expected, atol=1e-5)
    assert text.part_read("a red apple") is None
    assert text.part_read("a red green apple square a red") == "a red green apple square"


def test_an_encoder_lies_in_the_folder_or_elsewhere(encoder: Path, tmp_path: Path) -> None:
    text = load_encoder(encoder)
    pipe = conditional_pipeline(captioned=True, text=text)
    pipe.save_pretrained(tmp_path / "whole")
    whole = Pipeline.from_pretrained(tmp_path / "whole")
    assert isinstance(whole.text, TextEncoder) and whole.text.channels == text.channels
    conditional_pipeline(captioned=True).save_pretrained(tmp_path / "bare")
    bare = Pipeline.from_pretrained(tmp_path / "bare")
    with pytest.raises(UserError, match="no text encoder; load it with text_encoder=FOLDER"):
        bare("a red apple")
    beside = Pipeline.from_pretrained(tmp_path / "bare", text_encoder=encoder)
    assert isinstance(beside.text, TextEncoder)
    with pytest.raises(CheckpointError, match="holds no T5 text encoder"):
        Pipeline.from_pretrained(tmp_path / "bare", text_encoder=tmp_path)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("A Red   Apple", "a red apple"),
        ("see https://example.com/a.png now", "see now"),
        ("visit example.com/page today", "visit today"),
        ("<b>bold</b> move", "bold move"),
        ("by @someone with love", "by with love"),
        ("on “smart” ‘quotes’ — here", "on \"smart\" 'quotes' - here"),
        ("caf%C3%A9 noir", "café noir"),
        ("cafÃ© noir", "café noir"),
        ("salt &amp;amp; pepper", "salt pepper"),
        ("photo_of_a_very_old_house", "photo of a very old house"),
        ("a well-known state-of-the-art car", "a well-known state-of-the-art car"),
        ("free shipping on a lamp", "on a lamp"),
        ("lamp 1920x1080 wallpaper", "lamp wallpaper"),
        ("lamp at 192.168.0.1 id 1234567", "lamp at id"),
        ("a 3d render from the 1980s", "a 3d render from the 1980s"),
        ("...wow!! #1 [best] (lamp) img_0042.jpg", "wow!! best lamp"),
        ("", ""),
    ],
)
def test_captions_are_cleaned(text: str, clean: str) -> None:
    assert clean_caption(text) == clean


# -- clips -------------------------------------------------------------------------------------


def test_clips_are_frames(tmp_path: Path) -> None:
    pipe = conditional_pipeline(grid=(3, 4, 4))
    output = pipe(class_labels=[1, 4], seed=2)
    assert pipe.draws_clips and not output.images and output.codes.shape == (2, 3, 4, 4)
    assert [[frame.size for frame in clip] for clip in output.frames] == [[(SIZE, SIZE)] * 3] * 2
    files = [Path(line) for line in write(output, tmp_path, 2)]
    assert [file.name for file in files] == ["class-1.gif", "class-4.gif"]
    with Image.open(files[0]) as clip:
        assert (clip.n_frames, clip.size) == (3, (2 * SIZE, 2 * SIZE))
    assert read_recipe(files[1])["class_label"] == 4
    assert not pipe(class_labels=1, output_type="codes").frames
