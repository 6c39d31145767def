"""Pictures: bytes, contact sheets, and recipes that survive every format and hostile files."""

from __future__ import annotations

import json
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin
from safetensors.torch import load_file

from mmgen.errors import UserError
from mmgen.files import PICTURE_FORMATS
from mmgen.sample.pictures import grid, save_picture, to_pil
from mmgen.sample.recipe_files import read_recipe

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MMGEN_SHARED", ROOT.parent / "shared"))
SUFFIXES = list(PICTURE_FORMATS)
RECIPE = {
    "prompt": 'ein Fuchs 🦊 "im" Schnee\n雪の中の狐\u0000 é \\ </x>',
    "seed": 2**63 - 1,
    "settings": {"temperature": 0.9, "top_k": 0, "order": None, "ok": True},
    "weights": ["sha256:" + "0" * 64],
}
FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
OFTEN = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def picture(width: int = 24, height: int = 16) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


# -- to_pil ---------------------------------------------------------------------------------------


def test_pixels_round_to_the_nearest_byte_halves_up() -> None:
    wanted = torch.tensor([0, 1, 127, 128, 200, 254, 255], dtype=torch.float64)
    values = torch.cat([wanted / 127.5 - 1, torch.tensor([-2.0, -1.001, 1.001, 9, 0]).double()])
    pixels = values.float().expand(1, 3, 1, -1)
    row = np.asarray(to_pil(pixels)[0])[0, :, 0].tolist()
    assert row == [0, 1, 127, 128, 200, 254, 255, 0, 0, 255, 255, 128]
    # a quarter away from a whole number on either side
    near = ((torch.tensor([100.25, 100.75, 100.49, 100.51]).double() / 127.5) - 1).float()
    assert np.asarray(to_pil(near.expand(1, 3, 1, -1))[0])[0, :, 2].tolist() == [100, 101, 100, 101]


def test_bytes_survive_the_round_trip() -> None:
    levels = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    for kind in (torch.float32, torch.float64):
        out = np.asarray(to_pil(levels.to(kind) / 127.5 - 1)[0])
        assert (out == levels[0].permute(1, 2, 0).numpy()).all()


def test_axes_and_channels_keep_their_places() -> None:
    pixels = -torch.ones(2, 3, 4, 6)
    pixels[1, 2, 3, 5] = 1.0
    images = to_pil(pixels.bfloat16())
    assert [image.size for image in images] == [(6, 4), (6, 4)]
    assert images[0].getextrema() == ((0, 0), (0, 0), (0, 0))
    assert images[1].getpixel((5, 3)) == (0, 0, 255)


def test_broken_pixels_are_refused() -> None:
    pixels = torch.zeros(1, 3, 2, 2)
    pixels[0, 1, 1, 1] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        to_pil(pixels)


def test_bytes_equal_the_official_ones() -> None:
    folder = SHARED / "goldens" / "llamagen-vq16-tiny"
    if not folder.is_dir():
        pytest.skip(f"there is no golden case llamagen-vq16-tiny in {SHARED}; set MMGEN_SHARED")
    tensors = load_file(folder / "tensors.safetensors")
    ours = np.asarray(to_pil(tensors["decoded_from_indices"])[0])
    assert (ours == tensors["decoded_uint8"][0].numpy()).all()


# -- contact sheet --------------------------------------------------------------------------------


def plain(colour: str, size: tuple[int, int] = (10, 8)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_grid_places_pictures_row_by_row() -> None:
    colours = ["red", "lime", "blue", "black", "yellow"]
    sheet = grid([plain(c) for c in colours])  # 3 columns, 2 rows
    assert sheet.size == (8 + 3 * 18, 8 + 2 * 16)
    for i, colour in enumerate(colours):
        x, y = 8 + i % 3 * 18, 8 + i // 3 * 16
        cell = np.asarray(sheet.crop((x, y, x + 10, y + 8)))
        assert (cell == np.asarray(plain(colour))).all()
    assert sheet.getpixel((8 + 2 * 18 + 3, 8 + 16 + 3)) == (255, 255, 255)  # the empty cell
    assert sheet.getpixel((0, 0)) == (255, 255, 255)


def test_grid_with_columns_and_scale() -> None:
    images = [picture(5, 4), picture(5, 4)]
    sheet = grid(images, columns=7, scale=3)  # no empty columns
    assert sheet.size == (8 + 2 * (15 + 8), 8 + 12 + 8)
    enlarged = np.asarray(sheet.crop((8, 8, 23, 20)))
    assert (enlarged == np.asarray(images[0]).repeat(3, 0).repeat(3, 1)).all()
    assert grid(images, columns=1).size == (5 + 16, 8 + 2 * 12)


def test_smaller_pictures_are_centred() -> None:
    sheet = grid([plain("red", (20, 20)), plain("blue", (10, 4))], columns=2)
    box = np.asarray(sheet)[:, 8 + 28 :]
    blue = (box == (0, 0, 255)).all(-1)
    assert blue.sum() == 40
    assert np.argwhere(blue).min(0).tolist() == [8 + 8, 5]


@pytest.mark.parametrize(
    ("label", "drawn"),
    [("яблоко", "2"), ("a りんご", "2"), ("crème brûlée", "creme brulee"), ("☕ cup", "? cup")],
)
def test_a_label_whose_letters_the_font_lacks_is_a_number(label: str, drawn: str) -> None:
    images = [plain("red", (90, 5))] * 2
    sheets = [grid(images, labels=["a fox", text]) for text in (label, drawn)]
    assert sheets[0].tobytes() == sheets[1].tobytes()


def test_labels_stand_below_their_picture_and_inside_their_cell() -> None:
    images = [plain("red", (80, 30))] * 3
    sheet = grid(images, columns=2, labels=["a fox", "", "word " * 60 + "end"])
    assert sheet.width == grid(images, columns=2).width == 184
    pixels = np.asarray(sheet).astype(int)
    rows, columns = ((pixels.sum(-1) < 600) & (pixels[..., 0] != 255)).nonzero()  # ink
    second = int((pixels[38:, 10] == (255, 0, 0)).all(-1).argmax()) + 38  # top of the second row
    first = rows < second
    assert rows[first].min() >= 8 + 30
    assert rows[first].max() < second - 8
    assert rows[~first].min() >= second + 30
    assert rows.max() < sheet.height - 8
    assert columns.min() >= 8
    assert columns.max() < 88  # the empty label left no ink
    assert 25 < columns[first].mean() < 71  # centred
    assert sheet.height - second > 2 * (second - 38)  # three lines against one


@given(st.lists(st.text(max_size=80), min_size=1, max_size=3), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_any_label_can_be_drawn(labels: list[str], width: int) -> None:
    sheet = grid([plain("red", (width, 5))] * len(labels), labels=labels)
    assert sheet.mode == "RGB"
    assert sheet.height < 5 * 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": []}, "at least one picture"),
        ({"labels": ["one"]}, "1 labels for 2 pictures"),
        ({"columns": 0}, "columns"),
        ({"scale": 0}, "scale"),
    ],
)
def test_grid_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        grid(**({"images": [picture(), picture()]} | options))


# -- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG", ".Jpg"])
def test_a_recipe_survives(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "ünter 夜" / f"x y{suffix}"
    save_picture(picture(), path, RECIPE)
    assert read_recipe(path) == RECIPE
    assert read_recipe(str(path)) == RECIPE
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing left beside it
    with Image.open(path) as image:
        assert image.format == PICTURE_FORMATS[suffix.lower()]
        assert image.size == (24, 16)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(recipe=st.dictionaries(st.text(), json_values, max_size=4))
@OFTEN
def test_any_recipe_survives(suffix: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / f"any{suffix}"
    save_picture(picture(4, 4), path, recipe)
    assert read_recipe(path) == recipe


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_png_and_webp_keep_every_pixel(suffix: str, tmp_path: Path) -> None:
    save_picture(picture(), tmp_path / f"a{suffix}", RECIPE)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert (np.asarray(image.convert("RGB")) == np.asarray(picture())).all()


def test_jpeg_is_close(tmp_path: Path) -> None:
    smooth = Image.linear_gradient("L").resize((64, 64)).convert("RGBA")
    save_picture(smooth, tmp_path / "a.jpg", RECIPE)
    with Image.open(tmp_path / "a.jpg") as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # colours at full resolution
        difference = np.asarray(image, dtype=int) - np.asarray(smooth.convert("RGB"), dtype=int)
    assert np.abs(difference).max() <= 4


def test_other_tools_find_the_recipe(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".gif"):
        save_picture(picture(), tmp_path / f"a{suffix}", RECIPE)
    with Image.open(tmp_path / "a.png") as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert json.loads(image.text["mmgen"]) == RECIPE
    with Image.open(tmp_path / "a.jpg") as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment[:8] == b"ASCII\0\0\0"
    assert json.loads(comment[8:]) == {"mmgen": RECIPE}
    with Image.open(tmp_path / "a.gif") as image:
        assert json.loads(image.info["comment"]) == {"mmgen": RECIPE}


def test_a_long_recipe_fits_all_but_jpeg(tmp_path: Path) -> None:
    recipe = {"codes": list(range(40_000))}
    for suffix in (".png", ".webp", ".gif"):
        save_picture(picture(), tmp_path / f"a{suffix}", recipe)
        assert read_recipe(tmp_path / f"a{suffix}") == recipe
    (tmp_path / "a.jpg").write_bytes(b"before")
    with pytest.raises(UserError, match="too long"):
        save_picture(picture(), tmp_path / "a.jpg", recipe)
    assert (tmp_path / "a.jpg").read_bytes() == b"before"
    for length in range(64_700, 65_600, 50):  # the limit itself: written whole or refused
        recipe = {"prompt": "x" * length}
        try:
            save_picture(picture(), tmp_path / "b.jpg", recipe)
        except UserError:
            continue
        assert read_recipe(tmp_path / "b.jpg") == recipe


def test_a_picture_too_large_for_its_format(tmp_path: Path) -> None:
    for suffix, side in ((".jpg", 65_501), (".webp", 16_384), (".gif", 65_536)):
        with pytest.raises(UserError, match=f"{side} pixels is too large.*write a .png"):
            save_picture(Image.new("L", (1, side)), tmp_path / f"a{suffix}", RECIPE)
        save_picture(Image.new("L", (side - 1, 1)), tmp_path / f"a{suffix}", RECIPE)
    save_picture(Image.new("L", (70_000, 1)), tmp_path / "a.png", RECIPE)


@pytest.mark.parametrize("name", ["a", "a.bmp", "a.png.txt", ".png", "a."])
def test_an_unknown_suffix_lists_what_works(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.png, \.jpg, \.jpeg, \.webp, \.gif"):
        save_picture(picture(), tmp_path / name, RECIPE)
    assert not list(tmp_path.iterdir())


def test_a_recipe_that_is_not_json_writes_nothing(tmp_path: Path) -> None:
    for recipe in ({"path": tmp_path}, {"loss": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            save_picture(picture(), tmp_path / "a.png", recipe)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "folder.png", tmp_path / "file" / "a.png"):
        with pytest.raises(UserError, match="Cannot write"):
            save_picture(picture(), path, RECIPE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


# -- hostile and foreign files --------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, size: tuple[int, int] = (1, 1)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


HOSTILE = {
    "empty": b"",
    "text": b"no picture at all",
    "only a signature": b"\x89PNG\r\n\x1a\n",
    "not json": png(chunk(b"tEXt", b"mmgen\0{oops")),
    "a list": png(chunk(b"tEXt", b"mmgen\0[1, 2]")),
    "empty text": png(chunk(b"tEXt", b"mmgen\0")),
    "another key": png(chunk(b"tEXt", b'parameters\0{"a": 1}')),
    "deep": png(chunk(b"tEXt", b"mmgen\0" + b"[" * 200_000)),
    "huge number": png(chunk(b"tEXt", b'mmgen\0{"a": ' + b"9" * 10_000 + b"}")),
    "bomb": png(chunk(b"zTXt", b"mmgen\0\0" + zlib.compress(b" " * 200_000_000))),
    "wide": png(size=(2**31 - 1, 2**31 - 1)),
    "bad utf-8": png(chunk(b"iTXt", b"mmgen\0\0\0\0\0\xff\xfe")),
    "jpeg head": b"\xff\xd8\xff\xe1\xff\xffExif\0\0MM\0*\xff\xff\xff\xff",
    "gif head": b"GIF89a\1\0\1\0\0\0\0!\xfe\xff{",
    "webp head": b"RIFF\xff\xff\xff\xffWEBPVP8X",
    "bmp": b"BM" + bytes(60),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_user_errors(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(UserError, match=r"a\.png") as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pictures_without_a_recipe(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    picture().save(path)
    with pytest.raises(UserError, match="holds no mmgen recipe"):
        read_recipe(path)


@pytest.mark.parametrize("comment", [b"made by hand", b'{"a": 1}', b'{"mmgen": 3}', b"[1]", b"{"])
def test_foreign_comments_are_not_recipes(comment: bytes, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: b"ASCII\0\0\0" + comment}
    picture().save(tmp_path / "a.jpg", exif=exif)
    picture().save(tmp_path / "a.gif", comment=comment)
    for name in ("a.jpg", "a.gif"):
        with pytest.raises(UserError, match="holds no mmgen recipe"):
            read_recipe(tmp_path / name)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        read_recipe(tmp_path / "none.png")
    with pytest.raises(UserError, match="cannot be read"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif"])
@given(data=st.data())
@FUZZ
def test_damaged_files_give_a_recipe_or_a_user_error(
    suffix: str, data: st.DataObject, tmp_path: Path
) -> None:
    whole = tmp_path / f"whole{suffix}"
    if not whole.exists():
        save_picture(picture(6, 5), whole, RECIPE)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(content)))
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(content[:cut])
    try:
        recipe = read_recipe(broken)
    except UserError:
        return
    assert isinstance(recipe, dict)


def test_a_very_large_picture_is_read_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(chunk(b"tEXt", b'mmgen\0{"a": 1}'), size=(12_000, 12_000)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_recipe(tmp_path / "a.png") == {"a": 1}
