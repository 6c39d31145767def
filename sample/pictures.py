"""Pictures and clips out of the decoder: to PIL, onto a sheet, into a file with their recipe.

A recipe (model, prompt, seed, settings ...) is what draws the same picture again. It travels in the
file as JSON: the PNG text chunk "mmgen", the EXIF tag UserComment of JPEG and WEBP, or the comment
of a GIF; the latter two hold `{"mmgen": recipe}`. The JSON is plain ASCII, so that no tool on the
way can take it for another character set.
"""

from __future__ import annotations

import json
import math
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from mmgen.errors import UserError
from mmgen.files import PICTURE_FORMATS, replacing

KEY = "mmgen"
FPS = 8  # frames a second of clips
CLIP_ENDINGS = (".gif", ".webp", ".png")

_SIDE_LIMITS = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535}
_EXIF_LIMIT = 65_000  # a JPEG segment holds 65533 bytes, the EXIF header included
_ASCII = b"ASCII\0\0\0"  # the character code that begins a UserComment
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
        labels: text below each picture: wrapped, cut after three lines, reduced to ASCII.
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
    texts = [_wrapped(label, font, width) for label in labels or [""] * len(tiles)]
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
    _save(image, path, recipe, {})


def _save(
    image: Image.Image, path: str | Path, recipe: dict[str, Any], moving: dict[str, Any]
) -> None:
    target = Path(path)
    kind = PICTURE_FORMATS.get(target.suffix.lower())
    if kind is None:
        raise UserError(
            f"{target} does not say which picture format to write; "
            f"end the name in one of {', '.join(PICTURE_FORMATS)}."
        )
    limit = _SIDE_LIMITS.get(kind, max(image.size))
    if max(image.size) > limit:
        raise UserError(
            f"A picture of {image.width} x {image.height} pixels is too large for {target}: "
            f"{kind} holds {limit} a side; write a .png."
        )
    options = _options(kind, json.dumps(recipe, allow_nan=False), target) | moving
    if kind == "JPEG" and image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    try:
        with replacing(target) as temporary:
            image.save(temporary, format=kind, **options)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot write {target}: {reason}; choose another place.") from None


def save_clip(
    frames: Sequence[Image.Image], path: str | Path, recipe: dict[str, Any], fps: float = FPS
) -> None:
    """Write a clip that plays over and over, with its recipe inside.

    Args:
        frames: at least one, all of one size.
        path: the suffix chooses the format: .webp (lossless), .png or .gif (256 colours).
        recipe: plain JSON data.
        fps: frames a second.

    Raises:
        UserError: a suffix that holds no clips, or as in `save_picture`.
    """
    check_clip_ending(path)
    rest = {"append_images": list(frames[1:]), "duration": round(1000 / fps), "loop": 0}
    _save(frames[0], path, recipe, {"save_all": True, **rest})


def check_clip_ending(path: str | Path) -> None:
    """Refuse the name of a picture that holds no clip.

    Raises:
        UserError: the suffix is that of a still picture.
    """
    if PICTURE_FORMATS.get(Path(path).suffix.lower()) == "JPEG":
        raise UserError(f"{path} holds no clips; end its name in one of {', '.join(CLIP_ENDINGS)}.")


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Return the recipe that `save_picture` wrote into a file; the pixels are not decoded.

    Args:
        path: a PNG, JPEG, WEBP or GIF file.

    Raises:
        UserError: the file is missing, is no such picture, or holds no recipe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size limits and odd EXIF: only the header is read
            with Image.open(path, formats=sorted(set(PICTURE_FORMATS.values()))) as image:
                recipe = _recipe_in(image)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; check the path.") from None
    except OSError as error:
        reason = error.strerror or "it is not a PNG, JPEG, WEBP or GIF picture, or it is damaged"
        raise UserError(f"{path} cannot be read: {reason}.") from None
    except Exception:  # Pillow's parsers raise nearly anything on damaged bytes
        raise UserError(f"{path} is damaged and cannot be read; use the original file.") from None
    if recipe is None:
        raise UserError(f"{path} holds no mmgen recipe; only pictures that mmgen wrote have one.")
    return recipe


def _options(kind: str, text: str, path: Path) -> dict[str, Any]:
    # What `Image.save` takes to write the recipe, and the quality, in this format.
    if kind == "PNG":
        info = PngInfo()
        info.add_text(KEY, text)
        return {"pnginfo": info}
    comment = f'{{"{KEY}": {text}}}'.encode("ascii")
    if kind == "GIF":
        return {"comment": comment}
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: _ASCII + comment}
    if kind == "WEBP":
        return {"exif": exif.tobytes(), "lossless": True}
    if len(exif.tobytes()) > _EXIF_LIMIT:
        raise UserError(f"The recipe is too long for {path}: JPEG holds 64 kB; write a .png.")
    return {"exif": exif.tobytes(), "quality": 95, "subsampling": 0}


def _recipe_in(image: Image.Image) -> dict[str, Any] | None:
    if image.format == "PNG":
        return _mapping(image.info.get(KEY))
    if image.format == "GIF":
        comment = image.info.get("comment")
    else:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
        comment = comment.removeprefix(_ASCII) if isinstance(comment, bytes) else None
    recipe = (_mapping(comment) or {}).get(KEY)
    return recipe if isinstance(recipe, dict) else None


def _mapping(text: str | bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "null")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


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
    plain = "".join(c for c in unicodedata.normalize("NFKD", label) if not unicodedata.combining(c))
    rest = " ".join("".join(c if c < "\x7f" else "?" for c in plain).split())
    lines: list[str] = []
    while rest:
        line = _fitting(rest, font, width)
        rest = rest[len(line) :].lstrip()
        if rest and len(lines) == _LABEL_LINES - 1:
            line = _shortened(line, font, width)
            rest = ""
        lines.append(line)
    return lines


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
