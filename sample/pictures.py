"""Pictures out of the decoder: to PIL, onto a sheet, into a file with their recipe."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmgen.errors import UserError
from mmgen.files import PICTURE_FORMATS, replacing
from mmgen.sample.recipe_files import options_with

_SIDE_LIMITS = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535}
_GAP, _TEXT_GAP = 8, 4  # pixels between the cells of a sheet, and above a label
_FONT_SIZE = 13
_LABEL_LINES = 3
_PAPER, _INK = "white", "#202020"

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """Turn decoded pixels into pictures.

    A byte is `127.5 * x + 128` in float32, clamped to 0 .. 255 and cut to a whole number: the
    nearest one to `(x + 1) * 127.5`, halves up, as LlamaGen and NAR write their samples.

    Args:
        pixels: (B, 3, H, W) of any float type; -1 is black, 1 is white, the rest is clipped.

    Raises:
        ValueError: a pixel is NaN.
    """
    x = pixels.detach().float()
    if x.isnan().any():
        raise ValueError("decoded pixels hold NaN; the weights or the latents are broken")
    data = (x * 127.5 + 128.0).clamp(0.0, 255.0).to(torch.uint8)
    return [Image.fromarray(each) for each in data.permute(0, 2, 3, 1).cpu().numpy()]


def grid(
    images: Sequence[Image.Image],
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    scale: int = 1,
) -> Image.Image:
    """Lay pictures out on a white contact sheet, row by row.

    Args:
        images: at least one; smaller ones are centred in their cell.
        columns: cells in a row; None makes the sheet about square.
        labels: text below each picture: wrapped, cut after three lines, reduced to ASCII; its
            number, from 1, where letters would be lost (`has_letters`).
        scale: enlarges every picture this many times, without smoothing.

    Raises:
        UserError: no pictures, another number of labels, or `columns` or `scale` below 1.
    """
    if not images:
        raise UserError("A contact sheet needs at least one picture.")
    if labels is not None and len(labels) != len(images):
        raise UserError(f"There are {len(labels)} labels for {len(images)} pictures.")
    columns = math.ceil(math.sqrt(len(images))) if columns is None else columns
    if columns < 1 or scale < 1:
        raise UserError(f"columns ({columns}) and scale ({scale}) must be at least 1.")
    columns = min(columns, len(images))
    tiles = [_enlarged(image, scale) for image in images]
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    font = ImageFont.load_default(_FONT_SIZE)
    pitch = math.ceil(font.getbbox("Ag")[3]) + 3  # from one line of text to the next
    shown = [
        label if has_letters(label) else str(number)
        for number, label in enumerate(labels or [""] * len(tiles), start=1)
    ]
    texts = [_wrapped(label, font, width) for label in shown]
    tops = _row_tops(texts, columns, height, pitch)
    sheet = Image.new("RGB", (_GAP + columns * (width + _GAP), tops[-1]), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (tile, lines) in enumerate(zip(tiles, texts)):
        x, y = _GAP + i % columns * (width + _GAP), tops[i // columns]
        sheet.paste(tile, (x + (width - tile.width) // 2, y + (height - tile.height) // 2))
        for n, line in enumerate(lines):
            left = x + (width - font.getlength(line)) // 2
            pen.text((left, y + height + _TEXT_GAP + n * pitch), line, fill=_INK, font=font)
    return sheet


def has_letters(label: str) -> bool:
    """Whether the labels' font, Pillow's own, has the letters of a text: those of ASCII."""
    return all(c < "\x7f" for c in _plain(label) if c.isalpha())


def save_picture(image: Image.Image, path: str | Path, recipe: dict[str, Any]) -> None:
    """Write a picture with its recipe inside, all of it or nothing.

    PNG and WEBP are lossless, JPEG has quality 95 without chroma subsampling, GIF has 256 colours.

    Args:
        image: the picture.
        path: the suffix chooses the format: .png, .jpg, .jpeg, .webp or .gif.
        recipe: plain JSON data.

    Raises:
        UserError: an unknown suffix, a picture or a recipe too large for the format, or a place
            that cannot be written to.
    """
    target = Path(path)
    kind = PICTURE_FORMATS.get(target.suffix.lower())
    if kind is None:
        raise UserError(
            f"{target} does not say which picture format to write; "
            f"end the name in one of {', '.join(PICTURE_FORMATS)}."
        )
    write_image(image, target, kind, recipe)


def write_image(
    image: Image.Image, target: Path, kind: str, recipe: dict[str, Any], **moving: Any
) -> None:
    """Write a picture, or with `moving` a clip, in a format whatever its name says.

    Args:
        image: the picture, or the first frame.
        target: the file.
        kind: Pillow's name of the format.
        recipe: plain JSON data.
        moving: further frames and how they play, as Pillow takes them.

    Raises:
        UserError: as of `save_picture`.
    """
    limit = _SIDE_LIMITS.get(kind, max(image.size))
    if max(image.size) > limit:
        raise UserError(
            f"A picture of {image.width} x {image.height} pixels is too large for {target}: "
            f"{kind} holds {limit} a side; write a .png."
        )
    options = options_with(recipe, kind, target) | moving
    if kind == "JPEG" and image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    try:
        with replacing(target) as temporary:
            image.save(temporary, format=kind, **options)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot write {target}: {reason}; choose another place.") from None


def _enlarged(image: Image.Image, scale: int) -> Image.Image:
    size = (image.width * scale, image.height * scale)
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST)


def _row_tops(texts: list[list[str]], columns: int, height: int, pitch: int) -> list[int]:
    # Where the rows of the sheet begin, and where the sheet ends.
    tops = [_GAP]
    for start in range(0, len(texts), columns):
        lines = max(len(text) for text in texts[start : start + columns])
        tops.append(tops[-1] + height + (_TEXT_GAP + lines * pitch if lines else 0) + _GAP)
    return tops


def _wrapped(label: str, font: _Font, width: int) -> list[str]:
    # Lines that fit the cell: whole words where possible, a word wider than the cell is cut.
    # Pillow's own font draws ASCII: accents are taken off, other characters become "?".
    rest = " ".join("".join(c if c < "\x7f" else "?" for c in _plain(label)).split())
    lines: list[str] = []
    while rest:
        line = _fitting(rest, font, width)
        rest = rest[len(line) :].lstrip()
        if rest and len(lines) == _LABEL_LINES - 1:
            line = _shortened(line, font, width)
            rest = ""
        lines.append(line)
    return lines


def _plain(label: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", label) if not unicodedata.combining(c))


def _fitting(text: str, font: _Font, width: int) -> str:
    # The longest beginning that fits, at least one character.
    end = len(text)
    while end > 1 and font.getlength(text[:end]) > width:
        space = text.rfind(" ", 0, end)
        end = space if space > 0 else end - 1
    return text[:end]


def _shortened(line: str, font: _Font, width: int) -> str:
    while len(line) > 1 and font.getlength(line + "...") > width:
        line = line[:-1]
    return line.rstrip() + "..."
