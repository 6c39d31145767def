"""Replays: the same pixels from a file's own metadata, and every way in which they are not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from tiny_drawing import conditional_pipeline
from tiny_pipeline import SIZE, tiny_pipeline

from mmgen import Pipeline
from mmgen.errors import UserError
from mmgen.files import CLIP_ENDINGS, FILM_FORMATS
from mmgen.outputs import write
from mmgen.replaying import replay
from mmgen.sample.clip_files import save_clip
from mmgen.sample.pictures import save_picture
from mmgen.sample.recipe_files import read_recipe
from mmgen.sheets import enlarged


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "source.png"
    Image.effect_noise((32, 32), 100).convert("RGB").save(path)
    return path


def settings(**more: Any) -> dict[str, Any]:
    return {"seed": 5, "unit": "block", "negative_prompt": "blue", "top_k": 20, **more}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif"])
@pytest.mark.parametrize("each", [1, 2])
def test_every_format_is_drawn_again(
    suffix: str, each: int, pipe: Pipeline, tmp_path: Path
) -> None:
    output = pipe(["a cat", "a dog"][:each], **settings(guidance_interval=(0.1, 0.8)))
    write(output, tmp_path / f"a{suffix}", 3)
    assert replay(pipe, tmp_path / f"a{suffix}").said == "identical"


@pytest.mark.parametrize("scale", [1, 3])
def test_what_is_saved_from_python_is_drawn_again(
    scale: int, pipe: Pipeline, source: Path, tmp_path: Path
) -> None:
    output = pipe(["a cat", "a dog"], **settings())
    output.save(tmp_path / "new/both.png", scale=scale)
    for name in ("both.png", "both-1.png", "both-2.png"):
        assert replay(pipe, tmp_path / "new" / name).said == "identical"
    with Image.open(tmp_path / "new/both-1.png") as image:
        assert image.size == (SIZE * scale, SIZE * scale)
    with Image.open(source) as image:
        pipe.edit(image, "a cat", box=(4, 4, 20, 9), seed=4).save(tmp_path / "edit.webp")
    assert replay(pipe, tmp_path / "edit.webp", source).same
    clips = conditional_pipeline(grid=(3, 4, 4))
    clips(class_labels=[2], seed=1).save(str(tmp_path / "clip.gif"))
    assert replay(clips, tmp_path / "clip.gif").same


def test_what_cannot_be_saved_is_refused(pipe: Pipeline, tmp_path: Path) -> None:
    output = pipe("a cat", **settings())
    for path, scale, said in (("a.txt", 1, "end the name in one of"), ("a.png", 0, "scale is 0")):
        with pytest.raises(UserError, match=said):
            output.save(tmp_path / path, scale=scale)
    with pytest.raises(UserError, match="no picture to save; call without"):
        pipe("a cat", output_type="codes").save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_classes_are_drawn_again(tmp_path: Path) -> None:
    pipe = conditional_pipeline()
    write(pipe(class_labels=[2], seed=1), tmp_path / "a.png", 1)
    assert replay(pipe, tmp_path / "a.png").said == "identical"


@pytest.mark.parametrize("ending", CLIP_ENDINGS)
def test_clips_are_drawn_again(ending: str, tmp_path: Path) -> None:
    film, path = ending in FILM_FORMATS, tmp_path / f"a{ending}"
    if film:
        pytest.importorskip("av")
    pipe = conditional_pipeline(grid=(3, 4, 4))
    output = pipe(class_labels=[2], seed=1)
    write(output, path, 2, fps=24)
    said = "identical" if ending == ".png" else "identical, all 3 frames"
    lossy = " (as a film has them: it is lossy, so what was drawn again became one too)"
    assert replay(pipe, path).said == said + lossy * film
    recipe = read_recipe(path)
    frames = [enlarged(frame, 2) for frame in output.frames[0]]
    frames[1] = Image.new("RGB", frames[1].size, "red")
    save_clip(frames, path, recipe, recipe["fps"])
    verdict = replay(pipe, path)
    assert not verdict.same and verdict.said.startswith("values differ by at most")
    if ending in (".webp", ".apng"):  # a GIF's colours suit all frames, so all have changed
        assert ", in 1 of 3 frames" in verdict.said
    for wrong, said in (("x", "has fps 'x'"), (0, "cannot play 0 frames")):
        save_clip(frames, path, {**recipe, "fps": wrong})
        with pytest.raises(UserError, match=said):
            replay(pipe, path)


@pytest.mark.parametrize("where", [{"box": (4, 4, 20, 9)}, {"outpaint": 8}, {"mask": None}])
def test_edits_are_drawn_again_from_their_source(
    where: dict[str, Any], pipe: Pipeline, source: Path, tmp_path: Path
) -> None:
    with Image.open(source) as image:
        if "mask" in where:
            where = {"mask": Image.new("L", image.size)}
            where["mask"].paste("white", (3, 5, 14, 30))
        output = pipe.edit(image, ["a cat", "a dog"], seed=4, steps=3, temperature=0.7, **where)
    write(output, tmp_path / "a.png", 1)
    assert replay(pipe, tmp_path / "a.png", source).said == "identical"
    beside = replay(pipe, tmp_path / "a-2.png", source).said  # it was drawn beside another
    assert beside == "identical" or "differ by at most 1 of 255" in beside
    with pytest.raises(UserError, match="is an edit; give the one that was edited as --source"):
        replay(pipe, tmp_path / "a.png")
    with pytest.raises(UserError, match="is not the picture that was edited"):
        replay(pipe, tmp_path / "a.png", tmp_path / "a-1.png")


def test_other_pixels_are_measured(pipe: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(pipe("a cat", **settings()), path, 1)
    recipe = read_recipe(path)
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    red = pixels.getpixel((3, 4))
    pixels.putpixel((3, 4), (red[0] ^ 64, *red[1:]))
    save_picture(pixels, path, recipe)
    verdict = replay(pipe, path)
    assert not verdict.same
    assert verdict.said == f"values differ by at most 64 of 255, 1 of {SIZE * SIZE * 3} values do"
    save_picture(pixels.resize((20, 16)), path, recipe)
    assert replay(pipe, path).said == "different: 20x16 pixels in the file, 16x16 pixels now"
    save_picture(pixels, path, {**recipe, "seed": recipe["seed"] + 1})
    assert not replay(pipe, path).same


@pytest.mark.parametrize(
    ("part", "said"), [("transformer", "another transformer"), ("vision", "another visual tok")]
)
def test_other_weights_are_named(part: str, said: str, tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    write(pipe("a cat", **settings()), tmp_path / "a.png", 1)
    with torch.no_grad():
        next(getattr(pipe, part).parameters()).add_(1)
    verdict = replay(pipe, tmp_path / "a.png")
    assert not verdict.same and verdict.said.startswith(f"different weights: {said}")


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"weights": 3}, "no recipe of finished pictures"),
    ({"pictures": []}, "damaged recipe"),
    ({"pictures": ["x"]}, "no recipe of finished pictures"),
    ({"seed": "x"}, "has seed 'x'"),
    ({"seed": True}, "has seed True"),
    ({"prompt": 3}, "has prompt 3"),
    ({"top_k": [1]}, r"has top_k \[1\]"),
    ({"guidance_scale": [1, "x"]}, "has guidance_scale"),
    ({"guidance_interval": [0.1]}, "has guidance_interval"),
    ({"unit": "nothing"}, "no unit 'nothing'"),
    ({"order": "kept:zz:0:1"}, "not of the form"),
    ({"scale": "big"}, "has scale 'big'"),
    ({"temperature": float("nan")}, "temperature must be"),
    ({"edit": 3}, "is not the picture that was edited"),
]


@pytest.mark.parametrize(("change", "said"), HOSTILE)
def test_a_recipe_is_not_believed(
    change: dict[str, Any], said: str, pipe: Pipeline, source: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    output = pipe("a cat", **settings())
    recipe = {**output.recipes[0], **change}
    monkey = recipe.get("temperature")
    if monkey != monkey:  # NaN is no JSON of ours, but others write it
        import json

        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("mmgen", json.dumps(recipe))
        output.images[0].save(path, pnginfo=info)
    else:
        save_picture(output.images[0], path, recipe)
    with pytest.raises(UserError, match=said) as caught:
        replay(pipe, path, source)
    assert "\n" not in str(caught.value)


EDITS: list[tuple[dict[str, Any], str]] = [
    ({"box": [1, 2, "x", 4]}, "no four numbers"),
    ({"box": [0, 0, 400, 4]}, "does not lie in the picture"),
    ({"mask": "????"}, "mask in the recipe is damaged"),
    ({"mask": "AAAA"}, "mask in the recipe is damaged"),
    ({"outpaint": [1, 1]}, "no four numbers"),
    ({"outpaint": [10**9] * 4}, "more than"),
]


@pytest.mark.parametrize(("change", "said"), EDITS)
def test_an_edit_is_not_believed(
    change: dict[str, Any], said: str, pipe: Pipeline, source: Path, tmp_path: Path
) -> None:
    with Image.open(source) as image:
        output = pipe.edit(image, "a cat", box=(0, 0, 9, 9), seed=1)
    told = {"source": output.recipes[0]["edit"]["source"], **change}
    path = tmp_path / "a.png"
    save_picture(output.images[0], path, {**output.recipes[0], "edit": told})
    with pytest.raises(UserError, match=said) as caught:
        replay(pipe, path, source)
    assert "\n" not in str(caught.value)
