"""Recipes inside the files of pictures and clips.

A recipe (model, prompt, seed, settings ...) is what draws the same picture again. It travels in
the file as JSON: the PNG text chunk "mmgen", the EXIF tag UserComment of JPEG and WEBP, the comment
of a GIF, or that of a film (MP4, WEBM); all but PNG hold `{"mmgen": recipe}`. The JSON is plain
ASCII, so that no tool on the way can take it for another character set.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from mmgen.errors import UserError
from mmgen.files import FILM_FORMATS, PICTURE_FORMATS

KEY = "mmgen"

_EXIF_LIMIT = 65_000  # a JPEG segment holds 65533 bytes, the EXIF header included
_ASCII = b"ASCII\0\0\0"  # the character code that begins a UserComment


def options_with(recipe: dict[str, Any], kind: str, path: Path) -> dict[str, Any]:
    """What Pillow takes to write a picture of ours with its recipe: metadata and quality.

    Args:
        recipe: plain JSON data.
        kind: Pillow's name of the format.
        path: the file, for errors.

    Raises:
        UserError: the recipe is too long for the format.
    """
    if kind == "PNG":
        info = PngInfo()
        info.add_text(KEY, json.dumps(recipe, allow_nan=False))
        return {"pnginfo": info}
    comment = comment_with(recipe).encode("ascii")
    if kind == "GIF":
        return {"comment": comment}
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: _ASCII + comment}
    if kind == "WEBP":
        return {"exif": exif.tobytes(), "lossless": True}
    if len(exif.tobytes()) > _EXIF_LIMIT:
        raise UserError(f"The recipe is too long for {path}: JPEG holds 64 kB; write a .png.")
    return {"exif": exif.tobytes(), "quality": 95, "subsampling": 0}


def comment_with(recipe: dict[str, Any]) -> str:
    """A recipe as a comment, in ASCII."""
    return json.dumps({KEY: recipe}, allow_nan=False)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Return the recipe that mmgen wrote into a file; nothing is decoded.

    Args:
        path: a PNG, JPEG, WEBP or GIF file, or a film (MP4, WEBM) where PyAV is installed.

    Raises:
        UserError: the file is missing, is no such picture or film, or holds no recipe.
    """
    film = FILM_FORMATS.get(Path(path).suffix.lower())
    what = "film" if film else "PNG, JPEG, WEBP or GIF picture"
    try:
        recipe = _of_film(Path(path), film) if film else _of_picture(Path(path))
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; check the path.") from None
    except OSError as error:
        reason = error.strerror if error.errno and not film else None
        reason = reason or f"it is not a {what}, or it is damaged"
        raise UserError(f"{path} cannot be read: {reason}.") from None
    except Exception:  # parsers raise nearly anything on damaged bytes
        raise UserError(f"{path} is damaged and cannot be read; use the original file.") from None
    if recipe is None:
        kind = "films" if film else "pictures"
        raise UserError(f"{path} holds no mmgen recipe; only {kind} that mmgen wrote have one.")
    return recipe


def _of_picture(path: Path) -> dict[str, Any] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of size limits and odd EXIF: only the header is read
        with Image.open(path, formats=sorted(set(PICTURE_FORMATS.values()))) as image:
            if image.format == "PNG":
                return _mapping(image.info.get(KEY))
            if image.format == "GIF":
                return _told_in(image.info.get("comment"))
            comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
            return _told_in(comment.removeprefix(_ASCII) if isinstance(comment, bytes) else None)


def _of_film(path: Path, form: str) -> dict[str, Any] | None:
    try:
        import av
    except ImportError:
        raise UserError(f"{path} needs PyAV to be read; `pip install 'mmgen-ar[video]'`.") from None
    # An open file in a known format: no name that asks for the network, no playlist.
    with path.open("rb") as file, av.open(file, format=form) as film:
        told = {name.lower(): text for name, text in film.metadata.items()}
    return _told_in(told.get("comment"))


def _told_in(comment: str | bytes | None) -> dict[str, Any] | None:
    recipe = (_mapping(comment) or {}).get(KEY)
    return recipe if isinstance(recipe, dict) else None


def _mapping(text: str | bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "null")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
