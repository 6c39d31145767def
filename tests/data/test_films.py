"""Decoding clips: frames and times, limits, and files that want something else opened."""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny_clips import animation, film, grey_frames, strip

from mmgen.data.films import Limits, timed_frames
from mmgen.data.pictures import BadSample

CODECS = {"mp4": "libx264", "webm": "libvpx-vp9", "mov": "mpeg4", "mkv": "mpeg4", "avi": "mpeg4"}


def greys(source: bytes | Path) -> list[int]:
    return [frame.image.getpixel((4, 4))[0] for frame in timed_frames(source, "clip")]


def ends(source: bytes | Path) -> list[float]:
    return [frame.end for frame in timed_frames(source, "clip")]


@pytest.mark.parametrize("form", ["WEBP", "GIF", "PNG"])
def test_animations_give_their_frames_and_times(form: str) -> None:
    content = animation(grey_frames(5, step=40), [100, 50, 200, 40, 60], form)
    assert greys(content) == [0, 40, 80, 120, 160]
    assert ends(content) == pytest.approx([0.1, 0.15, 0.35, 0.39, 0.45])


@pytest.mark.parametrize("ending", CODECS)
def test_films_give_their_frames_and_times(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = film(tmp_path / f"a.{ending}", grey_frames(7, 32, 20, 30), 25, CODECS[ending])
    for source in (path, path.read_bytes()):
        assert greys(source) == pytest.approx(list(range(20, 230, 30)), abs=6)
        assert ends(source) == pytest.approx([0.04 * i for i in range(1, 8)], abs=2e-3)


def test_a_film_that_stands_on_its_side_is_put_upright(tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames = [frame.resize((48, 32)) for frame in grey_frames(2, step=90)]
    for frame in frames:
        frame.paste((255, 255, 255), (0, 0, 48, 8))  # white above
    content = bytearray(film(tmp_path / "a.mp4", frames).read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # the matrix, of a header of version 0
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    content[place : place + 36] = quarter  # to be shown turned right by 90 degrees
    shown = next(timed_frames(bytes(content), "clip")).image
    assert shown.size == (32, 48)
    assert shown.getpixel((29, 24))[0] > 200 and shown.getpixel((2, 24))[0] < 50


def test_what_is_over_a_limit_is_bad(tmp_path: Path) -> None:
    content = animation(grey_frames(5, step=40), 100)
    assert len(list(timed_frames(content, "clip", Limits(5, 0.5, 256)))) == 5
    for limits, said in (
        (Limits(frames=4), "more than 4 frames; cut it"),
        (Limits(seconds=0.45), "lasts more than 0.45 seconds"),
        (Limits(pixels=255), "a frame of it has 16x16 pixels, more than 255"),
    ):
        with pytest.raises(BadSample, match=said):
            list(timed_frames(content, "clip", limits))
    pytest.importorskip("av")
    path = film(tmp_path / "a.mp4", grey_frames(5, 32))
    with pytest.raises(BadSample, match="has 32x32 pixels, more than 1000"):
        list(timed_frames(path, "clip", Limits(pixels=1000)))


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", b"\0\0\0\x18ftypmp42", b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0\0AVI ", b"x"],
)
def test_damage_is_bad(content: bytes) -> None:
    with pytest.raises(BadSample, match=r"damaged|PyAV"):
        list(timed_frames(content, "clip"))


def test_a_film_cut_short_is_bad_or_shorter(tmp_path: Path) -> None:
    pytest.importorskip("av")
    for ending, codec in CODECS.items():
        whole = film(tmp_path / f"a.{ending}", grey_frames(20, 32), 10, codec).read_bytes()
        for share in (0.1, 0.5, 0.9):
            try:
                assert len(ends(whole[: int(share * len(whole))])) <= 20
            except BadSample as error:
                assert error.key == "clip"


def test_a_film_needs_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BadSample, match=r"needs PyAV.*mmgen-ar\[video\]"):
        list(timed_frames(b"\0\0\0\x18ftypmp42", "clip"))


@contextmanager
def server() -> Iterator[tuple[str, list[str]]]:
    """A local HTTP server and the list of what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}", asked
        finally:
            http.shutdown()
            thread.join()


def external_film(content: bytes, url: str) -> bytes:
    """A film whose track says that its data lie at `url` (a `url ` box in `dref`)."""
    at = content.index(b"url \0\0\0\1")
    name = url.encode() + b"\0"
    box = struct.pack(">I", 12 + len(name)) + b"url \0\0\0\0" + name
    out = bytearray(content[: at - 4] + box + content[at + 8 :])
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = out.index(kind) - 4
        size = struct.unpack(">I", out[place : place + 4])[0] + len(box) - 12
        out[place : place + 4] = struct.pack(">I", size)
    return bytes(out)


def test_nothing_else_is_opened(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    plain = film(tmp_path / "plain.mp4", grey_frames(3, 32)).read_bytes()
    (tmp_path / "plain.ts").write_bytes(plain)
    with server() as (url, asked):
        lists = {
            "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}/1.ts\n"
            "#EXT-X-ENDLIST\n",
            "beside.mp4": f"ffconcat version 1.0\nfile {tmp_path / 'plain.mp4'}\n",
            "net.webm": f"ffconcat version 1.0\nfile '{url}/2.mp4'\n",
            "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
            'type="static"><Period><AdaptationSet><Representation bandwidth="1">'
            f"<BaseURL>{url}/3.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
            "stream.sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\n"
            "m=video 5004 RTP/AVP 96\n",
        }
        for name, text in lists.items():
            (tmp_path / name).write_text(text)
        (tmp_path / "drefs.mp4").write_bytes(external_film(plain, f"{url}/4.mp4"))
        for name in lists:
            for source in (tmp_path / name, (tmp_path / name).read_bytes()):
                with pytest.raises(BadSample, match="no animation and no film"):
                    ends(source)
        with suppress(BadSample):  # its own samples may be read
            ends(tmp_path / "drefs.mp4")
        assert asked == []
        # Where nobody watches, a list does lead to the server.
        with suppress(OSError, av.error.FFmpegError):
            (tmp_path / "list.mp4").rename(tmp_path / "list.m3u8")
            options = {"protocol_whitelist": "file,http,tcp"}
            av.open(str(tmp_path / "list.m3u8"), options=options)
        assert asked == ["/1.ts"]


def test_a_path_that_reads_as_a_protocol_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server() as (url, asked):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(BadSample, match="cannot be read"):
            list(timed_frames(Path(f"{url}/a.mp4"), "clip"))
        with pytest.raises(BadSample, match="cannot be read"):
            list(timed_frames(Path("concat:a.mp4|b.mp4"), "clip"))
        assert asked == []


def test_a_still_is_one_frame() -> None:
    assert len(ends(strip(grey_frames(1)))) == 1
