"""Opening pictures that may be damaged or hostile: known formats only, size checked first."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.errors import DataError, first_line

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
EXTENSIONS = ("png", "apng", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")
FILMS = ("mp4", "webm", "mov", "mkv", "avi", "m4v")
PIXEL_LIMIT = 64_000_000
_DEEP = "has 32 bits a channel; save it with 8"


class BadSample(DataError):
    """One sample that cannot be used; data sets skip it, count it and name it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"The sample {key!r} cannot be used: {reason}.")
        self.key = key
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadSample], tuple[str, str]]:
        return BadSample, (self.key, self.reason)  # so that it crosses process borders


def open_picture(source: bytes | str | Path, key: str, *, limit: int = PIXEL_LIMIT) -> Image.Image:
    """Decode the first frame of a picture as RGB, upright, transparency over white.

    Args:
        source: the file's content, or its path.
        key: what to call the sample in errors.
        limit: most pixels allowed; checked in the header, before anything is decoded.

    Raises:
        BadSample: not a picture of a known format, too large, or damaged.
    """
    from PIL import Image, UnidentifiedImageError

    if source == b"":
        raise BadSample(key, "it is empty, not a picture")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=FORMATS) as picture:
            if picture.width * picture.height > limit:
                raise BadSample(key, _too_large(picture.size, limit))
            picture.load()
            return to_rgb(picture)
    except BadSample:
        raise
    except DataError:
        raise BadSample(key, f"it {_DEEP}") from None
    except UnidentifiedImageError:
        raise BadSample(key, f"it is not a picture ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadSample(key, f"it has more than {limit} pixels") from None
    except Exception as error:  # decoders meet damage with any kind of exception
        raise BadSample(key, f"it is damaged ({first_line(error)})") from None


def _too_large(size: tuple[int, int], limit: int) -> str:
    return f"it has {size[0]}x{size[1]} pixels, more than {limit}"


def to_rgb(picture: Image.Image) -> Image.Image:
    """Return a decoded picture as RGB: upright, transparency over white.

    Raises:
        DataError: it has 32 bits a channel, of which nobody says what is white.
    """
    from PIL import Image, ImageOps

    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PNG"):
        raise DataError(f"The picture {_DEEP}.")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # some versions of Pillow open 16-bit PNGs as "I"
        picture = _sixteen_bits_to_eight(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    front = picture.convert("RGBA")
    white = Image.new("RGBA", front.size, "white")
    white.alpha_composite(front)
    return white.convert("RGB")


def _sixteen_bits_to_eight(picture: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion would clip it to white."""
    import numpy as np
    from PIL import Image

    values = np.asarray(picture).astype(np.int64)
    return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
