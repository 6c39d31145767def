"""A folder with everything that people's folders hold: what is used, and what is bad and why."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

GOOD = {
    "animated.gif": "animated: only the first frame is used",
    "cmyk.jpg": "in CMYK: converted to RGB",
    "link.png": "",
    "n\\xf6.png": "",  # a name that is no UTF-8
    "palette.png": "transparent: laid over white",
    "sixteen.png": "of 16 bits: reduced to 8",
    "turned.jpg": "turned upright as their EXIF says",
    "words.png": "",
}
BAD = {
    "bomb.png": "pixels",
    "broken.png": "damaged",
    "dangling.png": "a link to a file that is not there",
    "empty.png": "it is empty",
    "long.png": "larger than",
    "text.jpg": "not a picture",
    "elsewhere": "a link to a folder",
    "fifo.png": "a pipe",
}


def write_bad_pictures(folder: Path, outside: Path) -> Path:
    """Write them to `folder`; `outside` is what links lead to."""
    folder.mkdir(parents=True)
    outside.mkdir(parents=True)
    for name in (*GOOD, *BAD):
        if "\\" in name:
            continue
        (folder / name).with_suffix(".txt").write_text(f"about {name}", encoding="utf-8")
    (folder / "elsewhere.txt").unlink()
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    red.save(folder / "animated.gif", save_all=True, append_images=[blue])
    red.convert("CMYK").save(folder / "cmyk.jpg")
    red.save(outside / "real.png")
    (folder / "link.png").symlink_to(outside / "real.png")
    (folder / "dangling.png").symlink_to(outside / "gone.png")
    (folder / "elsewhere").symlink_to(outside)
    latin = os.fsdecode(bytes(folder) + b"/n\xf6")
    red.save(f"{latin}.png")
    Path(f"{latin}.txt").write_text("a latin name")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    palette.save(folder / "palette.png", transparency=1)
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(folder / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    half = Image.new("RGB", (16, 8), "blue")
    half.paste("red", (0, 0, 8, 8))
    half.save(folder / "turned.jpg", exif=exif, quality=95)
    blue.save(folder / "words.png")
    (folder / "words.txt").write_text("تفاحة حمراء 🍎 on a plate", encoding="utf-8")
    (folder / "bomb.png").write_bytes(_png_of_size(60_000, 60_000))
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    (folder / "broken.png").write_bytes(buffer.getvalue()[:1000])
    (folder / "empty.png").touch()
    blue.save(folder / "long.png")
    (folder / "long.txt").write_text("word " * 400_000)
    (folder / "text.jpg").write_text("buy milk")
    os.mkfifo(folder / "fifo.png")
    return folder


def _png_of_size(width: int, height: int) -> bytes:
    """The header of a large picture, and little behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b"")
