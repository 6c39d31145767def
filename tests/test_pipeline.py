"""The front door of the library: loading, drawing, streaming, captioning, and its refusals."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from tiny_pipeline import SIZE, UNITS, captions, tiny_pipeline

import mmgen
from mmgen import Pipeline
from mmgen.calling import CallSettings
from mmgen.errors import CheckpointError, ConfigError, UserError
from mmgen.files import read_json
from mmgen.models.text import TextTokenizer
from mmgen.models.unified import Unit
from mmgen.pipeline_folder import PIPELINE_FILE, SamplingDefaults, shipped_pipelines
from mmgen.request import choose_schedule
from mmgen.sample.engine import last_step
from mmgen.saving import WEIGHTS_FILE


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline()


@pytest.fixture
def folder(pipe: Pipeline, tmp_path: Path) -> Path:
    pipe.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def codes(pipe: Pipeline, prompt: str | list[str] = "a cat", **settings: Any) -> Tensor:
    settings = {"seed": 0, "output_type": "codes", **settings}
    return pipe(prompt, **settings).codes


def test_a_pipeline_says_what_it_is(pipe: Pipeline) -> None:
    assert repr(pipe) == "Pipeline('tiny', 16 pixels, units: neighbor, block, token, any)"


# -- folders -----------------------------------------------------------------------------------


def test_a_saved_pipeline_draws_the_same(pipe: Pipeline, folder: Path) -> None:
    again = Pipeline.from_pretrained(folder)
    one, other = pipe("a red apple", seed=3), again("a red apple", seed=3)
    assert again.info == pipe.info and one.recipes == other.recipes
    assert (one.codes == other.codes).all() and one.images[0].tobytes() == other.images[0].tobytes()
    assert again.fingerprint == pipe.fingerprint
    parts = ["pipeline.json", "text", "transformer", "vision"]
    assert sorted(path.name for path in folder.iterdir()) == parts


def test_half_precision_halves_the_files(pipe: Pipeline, folder: Path, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "half", torch.bfloat16)
    again = Pipeline.from_pretrained(str(tmp_path / "half"))
    sizes = [(f / "transformer" / WEIGHTS_FILE).stat().st_size for f in (folder, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert again.transformer.mask_token.dtype is torch.float32
    assert again("a cat", seed=0).images[0].size == (SIZE, SIZE)


def test_a_name_is_one_of_those_shipped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"^There is no pipeline 'emoji-65'"):
        Pipeline.from_pretrained("emoji-65")
    package = tmp_path / "assets"
    (package / "pipelines").mkdir(parents=True)
    (folder).rename(package / "pipelines/emoji-64")
    (package / "pipelines/not-one").mkdir()
    monkeypatch.setattr("mmgen.pipeline_folder.resources.files", lambda _: package)
    monkeypatch.chdir(tmp_path)
    assert shipped_pipelines() == ["emoji-64"]
    assert Pipeline.from_pretrained().info.name == "tiny"
    assert Pipeline.from_pretrained("emoji-64").info.name == "tiny"
    with pytest.raises(CheckpointError, match=r"'emoji-65'; did you mean 'emoji-64'\?$"):
        Pipeline.from_pretrained("emoji-65")
    (tmp_path / "emoji-64").mkdir()  # a folder without a pipeline hides no name
    assert Pipeline.from_pretrained("emoji-64").info.name == "tiny"


def change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps({**read_json(file), **keys}))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"format": 2, "unheard": 1}, "has format 2, newer than this mmgen understands"),
        ({"format": "x"}, "pipeline.json.format must be of type int"),
        ({"unheard": 1}, "pipeline.json has no key 'unheard'"),
        ({"name": None}, "pipeline.json.name must be of type str"),
        ({"image_size": 20}, r"20 pixels a side, but the transformer was trained on 16"),
        ({"image_size": 32}, "32 pixels a side"),
        ({"sampling": {"top_q": 1}}, "did you mean 'top_"),
    ],
)
def test_a_pipeline_file_that_does_not_fit(keys: dict[str, Any], said: str, folder: Path) -> None:
    change(folder / PIPELINE_FILE, **keys)
    with pytest.raises(UserError, match=said) as caught:
        Pipeline.from_pretrained(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_pieces_of_different_pipelines_are_refused(folder: Path) -> None:
    TextTokenizer.train([*captions(), "some other words"] * 3, 310).save_pretrained(folder / "text")
    with pytest.raises(CheckpointError, match=r"together \(\d+ ids of text, but .* trained on"):
        Pipeline.from_pretrained(folder)
    tiny_pipeline().save_pretrained(folder)
    change(folder / "vision/config.json", quantizer={"kind": "fsq", "levels": [4, 4, 4]})
    with pytest.raises(CheckpointError, match=r"\(64 codes, but the transformer was trained on 48"):
        Pipeline.from_pretrained(folder)


@pytest.mark.parametrize("part", ["text", "vision", "transformer"])
def test_a_missing_piece_is_named(part: str, folder: Path) -> None:
    (folder / part).rename(folder / "elsewhere")
    with pytest.raises(CheckpointError, match=str(folder / part)):
        Pipeline.from_pretrained(folder)


def test_the_fingerprint_follows_every_weight(pipe: Pipeline) -> None:
    own = tiny_pipeline()
    assert own.fingerprint == pipe.fingerprint == own.fingerprint
    seen = {own.fingerprint}
    for network in (own.transformer, own.vision.decoder, own.vision.encoder):
        with torch.no_grad():
            next(network.parameters()).add_(1)
        seen.add(own.fingerprint)
    own.transformer.load_state_dict(tiny_pipeline().transformer.state_dict())
    seen.add(own.fingerprint)
    assert len(seen) == 5


def test_the_weights_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own, calls = tiny_pipeline(), []
    hash_of_weights = type(own.transformer).hash_of_weights
    monkeypatch.setattr(
        type(own.transformer),
        "hash_of_weights",
        lambda self: calls.append(1) or hash_of_weights(self),
    )
    own("a cat", num_images_per_prompt=3, seed=0)
    own("a dog", seed=0)
    assert len(calls) == 1


# -- calls -------------------------------------------------------------------------------------


def test_pictures_seeds_and_recipes_go_together(pipe: Pipeline) -> None:
    output = pipe(["a cat", "a dog"], num_images_per_prompt=2, seed=5, negative_prompt="blue")
    assert [image.size for image in output.images] == [(SIZE, SIZE)] * 4
    assert output.codes.shape == (4, 1, 4, 4) and output.seeds == [5, 6, 7, 8]
    told = [(recipe["prompt"], recipe["seed"]) for recipe in output.recipes]
    assert told == [("a cat", 5), ("a cat", 6), ("a dog", 7), ("a dog", 8)]
    assert output.recipes[0] == {
        "mmgen": mmgen.__version__,
        "model": "tiny",
        "weights": pipe.fingerprint,
        "prompt": "a cat",
        "negative_prompt": "blue",
        "seed": 5,
        "unit": "neighbor",
        "order": "neighbor",
        "guidance_scale": 3.0,
        "guidance_interval": None,
        "guidance_ramp": "constant",
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "reproducible": False,
    }


def test_each_picture_has_its_own_seed(pipe: Pipeline) -> None:
    three = codes(pipe, num_images_per_prompt=3, seed=[9, 4, 9], reproducible=True)
    assert (three[0] == three[2]).all() and (three[0] != three[1]).any()
    assert (codes(pipe, seed=4, reproducible=True) == three[1:2]).all()
    with pytest.raises(ConfigError, match="2 seeds for 3 pictures"):
        pipe("a cat", num_images_per_prompt=3, seed=[1, 2])
    assert pipe("a cat").seeds != pipe("a cat").seeds  # none was asked for


@pytest.mark.parametrize("unit", [unit.name for unit in UNITS])
def test_reproducible_tokens_do_not_depend_on_the_batch(pipe: Pipeline, unit: str) -> None:
    prompts = [*captions()[:6], "a cat, and a much longer prompt", ""]
    eight = codes(pipe, prompts, seed=100, unit=unit, reproducible=True)
    for i, prompt in enumerate(prompts):
        alone = codes(pipe, prompt, seed=100 + i, unit=unit, reproducible=True)
        assert (alone == eight[i : i + 1]).all()


def test_reproducible_pictures_do_not_share_a_batch(pipe: Pipeline) -> None:
    sizes = set()

    def watch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        sizes.add(len(args[0]))

    handle = pipe.transformer.backbone.register_forward_pre_hook(watch)
    codes(pipe, num_images_per_prompt=3, reproducible=True)
    assert sizes == {2}  # a picture, and what guidance leads away from
    handle.remove()


def test_many_pictures_go_in_batches(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        sizes.append(len(args[0]))

    monkeypatch.setattr("mmgen.request.BATCH", 3)
    handles = [
        network.register_forward_pre_hook(watch)
        for network in (pipe.transformer.backbone, pipe.vision.decoder)
    ]
    call = {"num_images_per_prompt": 7, "order": "whole", "seed": 0, "guidance_scale": 1}
    output = pipe("a cat", **call)
    assert sizes == [3, 3, 1, 3, 3, 1] and len(output.images) == 7
    (step,) = pipe.stream("a cat", **call)
    assert (step.codes == output.codes).all()
    for handle in handles:
        handle.remove()


def test_a_scale_of_one_has_no_second_branch(pipe: Pipeline) -> None:
    sizes = []

    def watch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        sizes.append(len(args[0]))

    handle = pipe.transformer.backbone.register_forward_pre_hook(watch)
    plain = codes(pipe, ["a cat", "a dog"], guidance_scale=1)
    assert set(sizes) == {2}
    pulled = codes(pipe, ["a cat", "a dog"], guidance_scale=8)
    assert set(sizes) == {2, 4} and (plain != pulled).any()
    handle.remove()


def test_the_negative_prompt_leads_away(pipe: Pipeline) -> None:
    plain = codes(pipe, num_images_per_prompt=8, guidance_scale=5)
    told = {"num_images_per_prompt": 8, "guidance_scale": 5}
    assert (codes(pipe, negative_prompt="", **told) == plain).all()
    assert (codes(pipe, negative_prompt="a red apple", **told) != plain).any()


def test_guidance_has_an_interval_and_a_ramp(pipe: Pipeline) -> None:
    many = {"num_images_per_prompt": 8, "unit": "token"}
    plain = codes(pipe, guidance_scale=1, **many)
    full = codes(pipe, guidance_scale=9, **many)
    late = codes(pipe, guidance_scale=9, guidance_interval=(0.5, 1.0), **many)
    # Until half of the sixteen tokens are decided it is as if there were no guidance.
    assert (late[:, 0, :2] == plain[:, 0, :2]).all() and (late != plain).any()
    ramped = codes(pipe, guidance_scale=9, guidance_ramp="linear", **many)
    assert (ramped[:, 0, 0, 0] == plain[:, 0, 0, 0]).all()
    assert (ramped != plain).any() and (ramped != full).any()
    told = pipe("a cat", seed=0, guidance_interval=(0.1, 0.8), guidance_ramp="cosine").recipes[0]
    assert told["guidance_interval"] == [0.1, 0.8] and told["guidance_ramp"] == "cosine"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_and_describes(dtype: torch.dtype) -> None:
    half = tiny_pipeline().to(dtype=dtype)
    assert half.transformer.mask_token.dtype == dtype and half.device.type == "cpu"
    for unit in UNITS:
        output = half("a cat", seed=0, unit=unit.name, guidance_scale=3)
        assert output.codes.shape == (1, 1, 4, 4) and output.images[0].size == (SIZE, SIZE)
    assert isinstance(half.caption(output.images)[0], str)


def test_weights_as_integers_draw_and_say_so(tmp_path: Path) -> None:
    own, plain = tiny_pipeline(), tiny_pipeline()
    size = sum(t.numel() * t.element_size() for t in own.transformer.state_dict().values())
    assert own.to(weights="float") is own and not own.is_int8
    assert own.to(weights="int8").is_int8 and own.to(weights="int8").is_int8
    stored = own.transformer.state_dict().values()
    assert sum(t.numel() * t.element_size() for t in stored) < size
    output = own("a cat", seed=3)
    assert output.recipes[0]["stored_as"] == "int8"
    assert output.recipes[0]["weights"] != plain.fingerprint
    assert output.codes.shape == plain("a cat", seed=3).codes.shape
    assert isinstance(own.caption(output.images)[0], str)
    with pytest.raises(ConfigError, match="load the pipeline again"):
        own.to(weights="float")
    with pytest.raises(ConfigError, match="save the pipeline before"):
        own.save_pretrained(tmp_path / "int8")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="weights cannot be 'int7'; did you mean 'int8'"):
        own.to(weights="int7")  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "meta"])
def test_a_device_that_is_not_there(device: str, pipe: Pipeline) -> None:
    with pytest.raises(ConfigError, match=device):
        pipe.to(device)
    assert pipe.device.type == "cpu"


def test_codes_alone_need_no_pixel_decoder(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe.vision, "decode", None)
    output = pipe("a cat", seed=0, output_type="codes")
    assert output.images == [] and output.codes.shape == (1, 1, 4, 4) and output.recipes
    with pytest.raises(ConfigError, match="output_type cannot be 'code'; did you mean 'codes'"):
        pipe("a cat", output_type="code")  # type: ignore[arg-type]


def test_progress_counts_the_steps(pipe: Pipeline) -> None:
    told: list[tuple[int, int]] = []
    pipe("a cat", seed=0, unit="block", progress=lambda *pair: told.append(pair))
    assert told == [(i, 4) for i in range(1, 5)]
    told.clear()
    words = {"num_images_per_prompt": 2, "reproducible": True, "order": "whole", "seed": 0}
    pipe("a cat", **words, progress=lambda *pair: told.append(pair))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize("settings", [{"unit": "token"}, {"order": "random:3:5"}, {}])
def test_a_stream_grows_to_the_picture(pipe: Pipeline, settings: dict[str, Any]) -> None:
    for reproducible in (False, True):
        call = {"seed": 1, "reproducible": reproducible, **settings}
        steps = list(pipe.stream(["a cat", "a dog"], **call))
        final = pipe(["a cat", "a dog"], **call)
        assert (steps[-1].codes == final.codes).all() and steps[-1].done.all()
        shown = [image.tobytes() for image in pipe.render(steps[-1].codes)]
        assert shown == [image.tobytes() for image in final.images]
        known = torch.zeros(1, 4, 4, dtype=torch.bool)
        for step in steps:
            assert (step.done & known == known).all() and step.done.sum() > known.sum()
            known = step.done
            assert (step.codes[:, known] == final.codes[:, known]).all()
            assert (step.codes[:, ~known] == 0).all() and len(step.entropy) == 2
        assert [step.index for step in steps] == list(range(1, steps[0].total + 1))


def test_a_stream_refuses_at_once(pipe: Pipeline) -> None:
    with pytest.raises(ConfigError):
        pipe.stream("a cat", unit="tokn")
    assert last_step(pipe.stream("a cat", seed=0)).done.all()


def test_a_misspelled_setting_is_named_with_the_function_that_was_called(pipe: Pipeline) -> None:
    wrong: dict[str, Any] = {"tempreature": 1.0}
    said = r"\(\) got an unexpected keyword argument 'tempreature'"
    hint = said + "; did you mean 'temperature'"
    for function, words in ((pipe.request, hint), (pipe.stream, hint), (pipe, said)):
        name = getattr(function, "__name__", "__call__")
        with pytest.raises(TypeError, match=rf"Pipeline\.{name}{words}"):
            function("a cat", **wrong)
    picture = Image.new("RGB", (16, 16))
    for name in (*wrong, "unit", "frames"):
        with pytest.raises(TypeError, match=rf"Pipeline\.edit\(\) got an .* '{name}'"):
            pipe.edit(picture, "a cat", box=(0, 0, 8, 8), **{name: None})


def test_the_settings_of_a_call_are_its_arguments() -> None:
    of_call = dict(inspect.signature(Pipeline.__call__).parameters)
    for name in ("self", "prompt", "output_type", "progress", "watch"):
        del of_call[name]
    types = {name: each.annotation for name, each in of_call.items()}
    known = {name: each.__forward_arg__ for name, each in CallSettings.__annotations__.items()}
    assert known == types


def test_a_call_is_silent_where_the_pipeline_speaks() -> None:
    usual = SamplingDefaults("block", 1.5, 0.7, 11, 0.9, 0.05)
    pipe = tiny_pipeline(sampling=usual)
    request = pipe.request("a cat")
    draw = request.settings.draw
    assert (request.unit.name, request.settings.guidance.scale) == ("block", 1.5)
    assert (draw.temperature, draw.top_k, draw.top_p, draw.min_p) == (0.7, 11, 0.9, 0.05)
    zeros = pipe.request(
        "a cat", guidance_scale=0, temperature=0, top_k=0, top_p=1, min_p=0, unit="token"
    )
    draw = zeros.settings.draw
    assert (zeros.unit.name, zeros.settings.guidance.scale) == ("token", 0)
    assert (draw.temperature, draw.top_k, draw.top_p, draw.min_p) == (0, 0, 1, 0)
    # The usual unit does not stand in the way of an order.
    assert pipe.request("a cat", order="subsample:2").unit.name == "any"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt": []}, "list of prompts is empty"),
        ({"prompt": 5}, "A prompt is a text, or a list of texts, not 5"),
        ({"prompt": ["a cat", 5]}, "A prompt is a text, or a list of texts"),
        ({"num_images_per_prompt": 0}, "is 0; give 1 or more"),
        ({"seed": -1}, "seed -1"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": "many"}, "top_k must be a number, not 'many'"),
        ({"temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ({"guidance_scale": "2"}, "guidance_scale must be a number"),
        ({"top_p": 0.0}, "top_p"),
        ({"min_p": 1.0}, "min_p"),
        ({"temperature": -1.0}, "temperature"),
        ({"guidance_scale": -1.0}, "guidance scale"),
        ({"guidance_scale": 1.0, "negative_prompt": "a dog"}, "negative prompt does nothing"),
        ({"guidance_interval": (0.5, 0.2)}, "guidance stop 0.2 must be above the start 0.5"),
        ({"guidance_interval": (0.0, 7.0)}, "at most 1 share"),
        ({"guidance_ramp": "quadratic"}, "guidance ramp cannot be 'quadratic'"),
        ({"unit": "frame"}, "no unit 'frame'"),
        ({"order": "diagonal"}, "Unknown order 'diagonal'"),
    ],
)
def test_a_setting_out_of_range(settings: dict[str, Any], said: str, pipe: Pipeline) -> None:
    with pytest.raises(UserError, match=said):
        pipe(**{"prompt": "a cat", **settings})


# -- orders and units --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "order", "found", "spelled", "prediction"),
    [
        (None, None, "neighbor", "neighbor", "neighbors"),
        ("token", None, "token", "raster", "shift"),
        ("any", None, "any", "random:0:4", "self"),
        (None, "raster", "token", "raster", "shift"),
        (None, "row:1", "block", "row:1", "shift"),
        (None, "block:1x1x4", "block", "row:1", "shift"),  # other spellings of what was trained
        (None, "run:4", "block", "row:1", "shift"),
        (None, "cell:1", "token", "raster", "shift"),
        (None, "neighbor", "neighbor", "neighbor", "neighbors"),
        (None, "row:2", "any", "row:2", "self"),
        (None, "subsample:2", "any", "subsample:2", "self"),
        (None, "interlace:1,2,4", "any", "interlace:1,2,4", "self"),
        (None, "random", "any", "random:0:4", "self"),
        (None, "locality", "any", "locality:0:4", "self"),
        (None, "locality:3:5", "any", "locality:3:5", "self"),
        (None, "random:3:5", "any", "random:3:5", "self"),
        (None, "whole", "any", "whole", "self"),
        ("any", "raster", "any", "raster", "self"),
        ("block", "row:1", "block", "row:1", "shift"),
    ],
)
def test_an_order_finds_its_unit(
    unit: str | None, order: str | None, found: str, spelled: str, prediction: str, pipe: Pipeline
) -> None:
    chosen, plan = choose_schedule(pipe.transformer.config, pipe.grid, unit, order)
    told = (chosen.name, plan.schedule.order, plan.prediction)
    assert told == (found, spelled, prediction)
    assert codes(pipe, unit=unit, order=order).shape == (1, 1, 4, 4)


def test_a_unit_of_localities_follows_them_alone(pipe: Pipeline) -> None:
    near = Unit("near", "locality", "self")
    both = replace(pipe.transformer.config, units=(*UNITS, near))  # the last of UNITS is random
    alone = replace(both, units=(*UNITS[:3], near))
    for config, other in ((both, "any"), (alone, None)):
        for order, spelled in (("locality", "locality:0:4"), ("locality:3:5", "locality:3:5")):
            unit, plan = choose_schedule(config, pipe.grid, None, order)
            assert (unit.name, plan.schedule.order) == ("near", spelled)
        for order in ("random", "random:0:4", "subsample:2"):
            if other:
                assert choose_schedule(config, pipe.grid, None, order)[0].name == other
                continue
            with pytest.raises(ConfigError, match=r"not trained for these weights|not of the form"):
                choose_schedule(config, pipe.grid, None, order)


def test_an_order_that_was_not_trained_is_refused(pipe: Pipeline) -> None:
    config = pipe.transformer.config
    with pytest.raises(ConfigError, match="for unit 'token'; choose one of raster"):
        choose_schedule(config, pipe.grid, "token", "row:2")
    stiff = replace(config, units=(*UNITS[:3], Unit("cells", "cell:2", "self")))
    assert choose_schedule(stiff, pipe.grid, None, "cell:2")[0].name == "cells"
    for order in ("row:2", "subsample:2", "random:0:4"):
        with pytest.raises(ConfigError, match="for these weights; choose one of neighbor, row:1"):
            choose_schedule(stiff, pipe.grid, None, order)
    with pytest.raises(ConfigError):
        choose_schedule(stiff, pipe.grid, None, "random")
    with pytest.raises(ConfigError, match="latents"):
        choose_schedule(config, pipe.grid, None, "scale:1,2,4")


# -- captions ----------------------------------------------------------------------------------


def test_pictures_of_any_size_and_mode_are_captioned(pipe: Pipeline) -> None:
    images = [
        Image.new(mode, size, 120)
        for mode, size in (("RGB", (16, 16)), ("L", (90, 31)), ("P", (3, 5)), ("RGBA", (16, 16)))
    ]
    told = pipe.caption(images)
    assert len(told) == 4 and all(isinstance(text, str) for text in told)
    assert pipe.caption(images[0]) == told[:1] == pipe.caption(images[0])
    assert not {"<pad>", "<bos>", "<eos>"} & set(" ".join(told).split())
    first = pipe.caption(images[0], temperature=1.0, seed=1)
    assert first == pipe.caption(images[0], temperature=1.0, seed=1)
    assert first != pipe.caption(images[0], temperature=1.0, seed=2)
    with pytest.raises(UserError, match="Give PIL pictures; open"):
        pipe.caption("heart.png")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="There is no picture; give"):
        pipe.caption([])
    with pytest.raises(ConfigError, match="top_p"):
        pipe.caption(images, top_p=0)


def test_many_pictures_are_captioned_in_batches(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [Image.new("RGB", (SIZE, SIZE), (40 * i, 255 - 40 * i, 90)) for i in range(5)]
    whole = pipe.caption(images, temperature=1.0, seed=4)
    sizes = []

    def watch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        sizes.append(len(args[0]))

    handle = pipe.transformer.backbone.register_forward_pre_hook(watch)
    monkeypatch.setattr("mmgen.request.BATCH", 2)
    assert pipe.caption(images, temperature=1.0, seed=4) == whole
    assert set(sizes) == {2, 1}
    handle.remove()


def test_transparent_pictures_are_seen_over_white() -> None:
    from PIL import Image

    from mmgen.data.fit import fit_pixels

    assert bool((fit_pixels(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 4) == 1.0).all())


def test_sampling_defaults_out_of_range_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="top_p"):
        SamplingDefaults(top_p=7.0)
    for steps in (0, (5, 0), ()):
        with pytest.raises(ConfigError, match="steps must be 1 or more"):
            SamplingDefaults(steps=steps)
