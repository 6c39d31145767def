"""Small clips for tests: frames of one grey each, as animations, films and strips."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmgen.data.clips import strip_of
from mmgen.data.shards import write_shard


def grey_frames(count: int, size: int = 16, first: int = 0, step: int = 8) -> list[Image.Image]:
    """Frames whose grey is first, first + step, ..."""
    return [Image.new("RGB", (size, size), (first + step * i,) * 3) for i in range(count)]


def animation(frames: list[Image.Image], ms: int | list[int] = 100, form: str = "WEBP") -> bytes:
    """Frames as a lossless animation."""
    buffer = io.BytesIO()
    lossless = {"lossless": True} if form == "WEBP" else {}
    rest = {"save_all": True, "append_images": frames[1:], "duration": ms}
    frames[0].save(buffer, form, **rest, **lossless)
    return buffer.getvalue()


def strip(frames: list[Image.Image]) -> bytes:
    """Frames side by side in one picture."""
    buffer = io.BytesIO()
    strip_of(frames).save(buffer, "PNG")
    return buffer.getvalue()


def write_strips(path: Path, count: int, frames: int, size: int = 16) -> Path:
    """A shard of strips; clip i begins with the grey 3 * i."""
    samples = []
    for i in range(count):
        record = {"captions": [f"clip {i}"], "frames": frames, "ms": 100 * frames}
        content = strip(grey_frames(frames, size, 3 * i))
        samples.append((f"{i:02d}", {"png": content, "json": json.dumps(record).encode()}))
    write_shard(path, samples)
    return path


def film(path: Path, frames: list[Image.Image], fps: int = 10, codec: str = "mpeg4") -> Path:
    """Frames as a film; needs PyAV."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            shown = av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path
