"""Edits: the kept tokens and pixels are the picture's own, and what does not fit is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from tiny_drawing import conditional_pipeline
from tiny_pipeline import UNITS, tiny_pipeline

from mmgen import Pipeline
from mmgen.data.fit import fit_pixels
from mmgen.errors import UserError
from mmgen.masks import _soft, canvas_of, unpacked
from mmgen.models.schedule import make_schedule


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    pipe = tiny_pipeline()
    with torch.no_grad():
        pipe.vision.encoder.conv_out.weight.mul_(10.0)  # else all pictures get one code everywhere
    return pipe


def noise(width: int, height: int) -> Image.Image:
    """Random colours in large patches, so that the codes differ, and small noise."""
    draw = np.random.default_rng(0)
    patches = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    values = np.asarray(patches.resize((width, height), Image.Resampling.NEAREST)) // 2
    return Image.fromarray(values + draw.integers(0, 128, values.shape, dtype=np.uint8))


def mask_of(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", (width, height), "black")
    mask.paste("white", box)
    return mask


def own_codes(pipe: Pipeline, picture: Image.Image) -> torch.Tensor:
    with torch.inference_mode():
        return pipe.vision.encode(fit_pixels(picture, 16)[None]).indices[0, 0]  # (4, 4)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (160, 160), (97, 64), (50, 131)])
def test_tokens_and_pixels_outside_the_mask_are_the_picture_s_own(
    width: int, height: int, pipe: Pipeline
) -> None:
    picture = noise(width, height)
    side = min(width, height)
    left, top = round((width - side) / 2), round((height - side) / 2)
    part = (left + side // 4, top, left + side // 2, top + side // 2)
    mask = mask_of(width, height, part)
    output = pipe.edit(picture, "a cat", mask=mask, num_images_per_prompt=2, seed=3)
    masked = np.asarray(mask) > 0
    own = own_codes(pipe, picture)
    kept = torch.ones(4, 4, dtype=torch.bool)
    for y in range(4):  # a cell is drawn anew if anything masked lies in it, however little
        for x in range(4):
            pixels = [
                masked[top + row, left + column]
                for row in range(y * side // 4, -(-(y + 1) * side // 4))
                for column in range(x * side // 4, -(-(x + 1) * side // 4))
            ]
            kept[y, x] = not any(pixels)
    assert canvas_of(picture, mask).cells((4, 4)).tolist() == (~kept).tolist()
    assert 0 < int((~kept).sum()) <= 6 and len(own.unique()) > 4
    before = np.asarray(picture)
    for i, image in enumerate(output.images):
        codes = output.codes[i, 0]
        assert torch.equal(codes[kept], own[kept]) and not torch.equal(codes[~kept], own[~kept])
        after = np.asarray(image)
        assert after.shape == before.shape
        assert (after[~masked] == before[~masked]).all()
        assert (after[masked] != before[masked]).mean() > 0.9
    assert output.seeds == [3, 4]
    assert not torch.equal(output.codes[0], output.codes[1])


def test_deep_inside_the_mask_the_pixels_are_the_drawn_ones(pipe: Pipeline) -> None:
    picture = noise(16, 16)
    output = pipe.edit(picture, "a cat", box=(0, 0, 12, 16), seed=1)
    drawn, after = np.asarray(pipe.render(output.codes)[0]), np.asarray(output.images[0])
    assert (after[:, :10] == drawn[:, :10]).all()  # the seam is two pixels; edges have none
    before = np.asarray(picture).astype(int)
    third, two = before[:, 11] * 2 + drawn[:, 11], before[:, 10] + drawn[:, 10].astype(int) * 2
    assert abs(after[:, 11] - third / 3).max() <= 0.5 and abs(after[:, 10] - two / 3).max() <= 0.5
    assert (after[:, 12:] == before[:, 12:]).all()


def test_the_share_of_the_new_is_the_distance_to_the_old() -> None:
    masked = np.random.default_rng(3).random((9, 11)) < 0.9
    masked[:2], masked[4:7, 4:9], masked[:, 10] = False, True, True
    kept = np.argwhere(~masked)
    for y, x in np.ndindex(masked.shape):
        away = abs(kept - (y, x)).max(1).min()  # as a king walks
        assert _soft(masked)[y, x] == pytest.approx(min(away, 3) / 3)
    assert not _soft(np.zeros((4, 4), bool)).any()


def test_a_box_is_the_same_as_its_mask(pipe: Pipeline) -> None:
    picture, box = noise(64, 64), (16, 8, 20, 30)
    mask = mask_of(64, 64, (16, 8, 36, 38))
    small = mask.resize((32, 32), Image.Resampling.NEAREST)
    see_through = Image.merge("RGBA", [*Image.new("RGB", (64, 64)).split(), mask])
    inverse = Image.merge(
        "RGBA", [*Image.new("RGB", (64, 64)).split(), mask.point(lambda v: 255 - v)]
    )
    one = pipe.edit(picture, "a cat", box=box, seed=1)
    for other in (mask, small, mask.convert("1"), inverse):
        again = pipe.edit(picture, "a cat", mask=other, seed=1)
        assert torch.equal(again.codes, one.codes)
        assert again.images[0].tobytes() == one.images[0].tobytes()
    # Transparent is drawn anew, and so is what is not painted over black.
    assert not torch.equal(pipe.edit(picture, "a cat", mask=see_through, seed=1).codes, one.codes)


def test_outpainting_keeps_the_picture_in_the_middle(pipe: Pipeline) -> None:
    picture = noise(40, 20)
    output = pipe.edit(picture, "a cat", outpaint=(0, 12, 0, 8), seed=2)
    after = np.asarray(output.images[0])
    assert after.shape == (40, 40, 3) and (after[12:32] == np.asarray(picture)).all()
    white = Image.new("RGB", (40, 40), "white")
    white.paste(picture, (0, 12))
    own = own_codes(pipe, white)
    assert torch.equal(output.codes[0, 0, 2], own[2])  # rows 20 to 30 lie in the picture
    edge = np.asarray(picture)[0].astype(int)  # the seam begins with the picture's own edge
    drawn = np.asarray(pipe.render(output.codes)[0].resize((40, 40), Image.Resampling.BICUBIC))
    assert abs(after[11] - (2 * edge + drawn[11]) / 3).max() <= 0.5
    assert (after[:10] == drawn[:10]).all()
    alike = pipe.edit(noise(16, 16), "a cat", outpaint=8, seed=2)
    assert alike.images[0].size == (32, 32) and alike.recipes[0]["edit"]["outpaint"] == [8] * 4


def test_the_recipe_tells_the_mask_and_the_source(pipe: Pipeline) -> None:
    picture = noise(16, 16)
    recipe = pipe.edit(picture, "a cat", box=(4, 4, 8, 4), seed=1, steps=2).recipes[0]
    assert recipe["unit"] == "any" and recipe["order"] == "kept:f9ff:0:2"
    assert recipe["edit"].keys() == {"box", "source"} and recipe["edit"]["box"] == [4, 4, 8, 4]
    mask = mask_of(16, 16, (4, 4, 7, 9))
    told = pipe.edit(picture, "a cat", mask=mask, seed=1).recipes[0]["edit"]
    assert (np.asarray(unpacked(told["mask"]).convert("L")) == np.asarray(mask)).all()
    other = pipe.edit(noise(17, 17), "a cat", box=(4, 4, 8, 4), seed=1).recipes[0]["edit"]
    assert told["source"] == recipe["edit"]["source"] != other["source"]


def test_steps_and_settings_count(pipe: Pipeline) -> None:
    picture, done = noise(16, 16), []

    def codes(**settings: Any) -> torch.Tensor:
        report = lambda step, total: done.append((step, total))  # noqa: E731
        asked = {"seed": 1, "box": (4, 4, 8, 8), **settings}
        return pipe.edit(picture, "a cat", progress=report, **asked).codes

    first = codes()
    assert done == [(1, 2), (2, 2)]  # four tokens: about their root
    done.clear()
    assert torch.equal(codes(steps=2), first) and not torch.equal(codes(temperature=0), first)
    done.clear()
    codes(steps=4)
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    alone = codes(seed=9, reproducible=True)
    three = codes(seed=7, num_images_per_prompt=3, reproducible=True)
    assert torch.equal(alone[0], three[2])
    nearly_all = {"box": (0, 0, 16, 12), "temperature": 1.0}
    usual = codes(**nearly_all)
    strong = codes(**nearly_all, guidance_scale=30.0)
    away = codes(**nearly_all, guidance_scale=30.0, negative_prompt="blue square")
    for one, other in ((usual, strong), (strong, away), (usual, codes(**nearly_all, top_k=1))):
        assert not torch.equal(one, other)


def test_the_order_of_an_edit_is_the_plan(pipe: Pipeline) -> None:
    canvas = canvas_of(noise(16, 16), box=(0, 0, 4, 4))
    assert canvas.cells((4, 4)).tolist() == [[True, *[False] * 3], *[[False] * 4] * 3]
    schedule = make_schedule("kept:7fff:0:1", (1, 4, 4))
    assert schedule.sizes == (15, 1) and schedule.site[-1] == 0


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "give one of a mask, a box and outpaint"),
    ({"box": (0, 0, 4, 4), "outpaint": 3}, "give one of"),
    ({"box": (-1, 0, 4, 4)}, r"-1,0,4,4 .* does not lie in the picture of 24x16"),
    ({"box": (20, 0, 5, 4)}, "does not lie in"),
    ({"box": (8, 4, 0, 4)}, "does not lie in"),
    ({"box": (0, 0, 6, 4)}, r"outside the middle square \(x 4 to 20, y 0 to 16\)"),
    ({"box": (4, 0, 16, 16)}, r"Nothing would be kept: no cell of the 4x4 grid \(each 4x4 of"),
    ({"mask": "mask.png"}, "Give PIL pictures; open files with PIL.Image.open."),
    ({"mask": np.zeros((16, 24))}, "Give PIL pictures"),
    ({"image": "apple.png", "outpaint": 4}, "Give PIL pictures"),
    ({"mask": Image.new("L", (24, 16), "black")}, "black everywhere"),
    ({"mask": Image.new("L", (16, 16), "white")}, "16x16 pixels and the picture 24x16"),
    ({"mask": Image.new("L", (24, 16), "white")}, "outside the middle square"),
    ({"outpaint": (0, -1, 0, 0)}, "outpaint is 0,-1,0,0"),
    ({"outpaint": 0}, "outpaint is 0, which adds nothing"),
    ({"outpaint": (0, 0, 0, 0)}, "outpaint is 0,0,0,0; .* not all 0"),
    ({"outpaint": 4}, "be 32x24 pixels, .* make the margins 4,8,4,8, for"),
    ({"box": (4, 4, 4, 4), "steps": 2}, "steps is 2, but 1 tokens"),
    ({"box": (4, 4, 4, 4), "seed": -1}, "seed -1"),
    ({"box": (4, 4, 4, 4), "top_k": -1}, "top_k must be"),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], said: str, pipe: Pipeline) -> None:
    with pytest.raises(UserError, match=said) as caught:
        pipe.edit(**{"image": noise(24, 16), "prompt": "a cat", **settings})
    assert "\n" not in str(caught.value)


def test_weights_of_fixed_orders_are_refused() -> None:
    for pipe in (tiny_pipeline(units=UNITS[:3]), conditional_pipeline()):
        with pytest.raises(UserError, match=r"fixed orders only|only draw"):
            pipe.edit(noise(16, 16), "a cat", box=(0, 0, 4, 4))
