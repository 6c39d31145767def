from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmgen.data.pictures import FORMATS, BadSample, open_picture

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
rng = np.random.default_rng(0)
noise = Image.fromarray(rng.integers(0, 255, (40, 30, 3), dtype=np.uint8))


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_size(width: int, height: int) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + head + data + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("form", FORMATS)
def test_known_formats_come_back_as_rgb(form: str, tmp_path: Path) -> None:
    content = encoded(noise, form)
    (tmp_path / "p").write_bytes(content)
    for source in (content, tmp_path / "p"):
        picture = open_picture(source, "k")
        assert (picture.mode, picture.size) == ("RGB", (30, 40))
    if form in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(np.asarray(picture), np.asarray(noise))


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_truncated_pictures_are_bad_samples(form: str, data: st.DataObject) -> None:
    content = encoded(noise, form)
    # The last bytes may be an end mark that decoders do without.
    cut = data.draw(st.integers(0, len(content) * 3 // 4))
    with pytest.raises(BadSample) as caught:
        open_picture(content[:cut], "k7")
    assert caught.value.key == "k7"


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=40, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8))
def test_damaged_pictures_are_pictures_or_bad_samples(
    form: str, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(encoded(noise, form))
    for place, value in changes:
        content[place % len(content)] = value
    with contextlib.suppress(BadSample):
        assert open_picture(bytes(content), "k", limit=1_000_000).mode == "RGB"


@pytest.mark.parametrize("size", [(8001, 8000), (20000, 20000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    with pytest.raises(BadSample, match=r"pixels"):
        open_picture(png_of_size(*size), "bomb")


def test_the_pixel_limit_is_exact() -> None:
    content = encoded(noise, "PNG")
    assert open_picture(content, "k", limit=1200).size == (30, 40)
    with pytest.raises(BadSample, match="30x40 pixels, more than 1199"):
        open_picture(content, "k", limit=1199)


@pytest.mark.parametrize(
    "content",
    [b"", b"just text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>"],
    ids=["empty", "text", "eps", "svg"],
)
def test_what_is_no_picture_is_a_bad_sample(content: bytes) -> None:
    with pytest.raises(BadSample, match="not a picture"):
        open_picture(content, "note.png")


def test_a_missing_file_is_a_bad_sample(tmp_path: Path) -> None:
    with pytest.raises(BadSample):
        open_picture(tmp_path / "none.png", "k")


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparency_goes_over_white(form: str) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (0, 0, 255, 255))
    picture = open_picture(encoded(clear, form, lossless=True), "k")
    assert picture.getpixel((0, 0)) == (0, 0, 255)
    assert picture.getpixel((3, 3)) == (255, 255, 255)


def test_half_transparency_is_mixed() -> None:
    half = encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG")
    assert open_picture(half, "k").getpixel((0, 0)) == (127, 127, 127)


def test_palette_and_grey_transparency_go_over_white() -> None:
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    opaque, clear = encoded(palette, "PNG"), encoded(palette, "PNG", transparency=1)
    assert open_picture(opaque, "k").getpixel((0, 0)) == (10, 20, 30)
    assert open_picture(clear, "k").getpixel((0, 0)) == (255, 255, 255)
    grey = encoded(Image.new("LA", (2, 2), (9, 0)), "PNG")
    assert open_picture(grey, "k").getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 0x1234, 0x8000, 0xFFFF]], dtype=np.uint16)
    picture = open_picture(encoded(Image.fromarray(values), "PNG"), "k")
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 0x12, 0x80, 0xFF]


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_is_scaled_in_either_byte_order(order: str) -> None:
    values = np.array([[0, 0x1234, 0x8000, 0xFFFF]], dtype=f"{order}u2")
    mode = "I;16" if order == "<" else "I;16B"
    picture = Image.frombytes(mode, (4, 1), values.tobytes())
    opened = open_picture(encoded(picture, "TIFF"), "k")
    assert np.asarray(opened)[0, :, 0].tolist() == [0, 0x12, 0x80, 0xFF]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bits_a_channel_are_a_bad_sample_not_black(kind: type) -> None:
    picture = Image.fromarray(np.array([[0, 1, 100, 255]], dtype=kind))
    with pytest.raises(BadSample, match=r"'k' .* 32 bits a channel; save it with 8"):
        open_picture(encoded(picture, "TIFF"), "k")


def test_photos_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert open_picture(encoded(noise, "JPEG", exif=exif), "k").size == (40, 30)


def test_animations_give_their_first_frame() -> None:
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    content = encoded(red, "GIF", save_all=True, append_images=[blue])
    assert open_picture(content, "k").getpixel((0, 0)) == (255, 0, 0)


def test_a_bad_sample_crosses_process_borders() -> None:
    error = pickle.loads(pickle.dumps(BadSample("k", "why")))
    assert (error.key, error.reason, str(error)) == (
        "k",
        "why",
        "The sample 'k' cannot be used: why.",
    )
