"""Captioned clips as training batches: what `ImageTextDataset` is for pictures.

Which frames of a source a clip shows is a rule and three drawn numbers (`Vary`): the share of the
source that it spans, where it begins, and the square that it sees.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mmgen.data.clips import STILL, frames_at_rate, sample_frames
from mmgen.data.dataset import TextDataset
from mmgen.data.draws import SampleDraw
from mmgen.data.films import Limits
from mmgen.data.fit import fit_bytes, is_square
from mmgen.data.pictures import BadSample
from mmgen.data.sources import Source, open_source
from mmgen.errors import ConfigError


@dataclass(frozen=True)
class Vary:
    """What differs from visit to visit of one clip, where its source has more than is shown.

    Attributes:
        phase: begin at any frame: of a loop, which goes on from its end, or of a longer source.
        span: smallest share of a source's frames over which a clip is spread, so that some move
            slower; only where the source has more frames, and no rate is given.
        crop: smallest share of the sides that is seen, at any place; only where the source has
            more pixels.
    """

    phase: bool = True
    span: float = 1.0
    crop: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for name in ("span", "crop"):
            if not 0.25 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0.25, 1], not {getattr(self, name)}.")


@dataclass(frozen=True)
class Clip:
    """All frames of a source, (n, 3, S, S) uint8, and when each ends, (n,) float64 seconds.

    It is a loop if the step from its last frame to its first is no larger than those inside.
    """

    frames: Tensor
    ends: np.ndarray
    loop: bool

    def __len__(self) -> int:
        return len(self.frames)


def spread_frames(count: int, frames: int) -> np.ndarray:
    """Numbers of `frames` frames spread over a source of `count`: floor(i * count / frames)."""
    return np.arange(frames) * count // frames


def visit_at_rate(clip: Clip, frames: int, fps: float, phase: float = 0.0) -> np.ndarray | None:
    """Numbers of the frames that are seen at `fps`, (frames,) int64; None: the clip is too short.

    Args:
        clip: a loop goes on from its end.
        frames: how many.
        fps: frames a second.
        phase: in [0, 1): where among the possible beginnings.
    """
    total, needed = float(clip.ends[-1]), (frames - 1) / fps
    if not clip.loop and needed > total:
        return None
    start = phase * (total if clip.loop else total - needed)
    return frames_at_rate(clip.ends, start, frames, fps, clip.loop)


@dataclass(frozen=True)
class ClipReader:
    """Clips of so many frames and pixels a side.

    Attributes:
        image_size: pixels a side; frames are cropped to a centred square and resized.
        frames: of a clip.
        fps: frames a second; None: spread over the whole source.
        vary: what is drawn for a visit; None: nothing.
        limits: of sources.
    """

    image_size: int
    frames: int
    fps: float | None = None
    vary: Vary | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse clips of no frames."""
        if self.frames < 1 or (self.fps is not None and not 0 < self.fps <= 1000):
            raise ConfigError(
                f"A clip has at least 1 frame, and fps is above 0 and at most 1000, not "
                f"{self.frames} frames at {self.fps} fps."
            )

    def read(self, source: Source, index: int) -> tuple[Clip, bool]:
        """Decode all frames of one sample; see `mmgen.data.dataset.Reader`."""
        key = source.key(index)
        crop = self.vary.crop if self.vary else 1.0
        kept, ends, square = [], [], True
        for frame in sample_frames(source, index, self.limits):
            side = min(*frame.image.size, round(self.image_size / crop))
            kept.append(fit_bytes(frame.image, max(side, self.image_size)))
            ends.append(frame.end)
            square = square and is_square(frame.image.size)
        if len(kept) == 1 < self.frames:
            raise BadSample(key, STILL)
        if len({pixels.shape for pixels in kept}) > 1:
            raise BadSample(key, "its frames have several sizes")
        frames = torch.stack(kept)
        clip = Clip(frames, np.array(ends), is_loop(frames))
        if self.fps and visit_at_rate(clip, self.frames, self.fps) is None:
            raise BadSample(
                key,
                f"it lasts {ends[-1]:.3g} s, too short for {self.frames} frames at "
                f"{self.fps:g} a second",
            )
        return clip, not square

    def size(self, kept: Clip) -> int:
        """Bytes of its frames."""
        return kept.frames.numel()

    def show(self, kept: Clip, draw: SampleDraw | None) -> Tensor:
        """The frames of one visit, (3, T, H, W) uint8."""
        numbers = self._numbers(kept, draw if self.vary else None)
        frames = kept.frames[torch.from_numpy(numbers)]  # (T, 3, S, S)
        return self._cropped(frames, draw if self.vary else None).transpose(0, 1)

    def _numbers(self, clip: Clip, draw: SampleDraw | None) -> np.ndarray:
        phase = draw.phase if draw and self.vary and self.vary.phase else 0.0
        if self.fps is not None:
            numbers = visit_at_rate(clip, self.frames, self.fps, phase)
            assert numbers is not None  # `read` has refused those
            return numbers
        count = window = len(clip)
        if draw and self.vary and count > self.frames:
            share = self.vary.span + draw.span * (1 - self.vary.span)
            window = max(self.frames, round(count * share))
        starts = count if clip.loop else count - window + 1
        return (int(phase * starts) + spread_frames(window, self.frames)) % count

    def _cropped(self, frames: Tensor, draw: SampleDraw | None) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as transforms

        size, side = self.image_size, frames.shape[-1]
        if side == size:
            return frames
        if draw:
            seen = size + int(draw.scale * (side - size + 1))
            left, top = (int(u * (side - seen + 1)) for u in (draw.left, draw.top))
            frames = frames[..., top : top + seen, left : left + seen]
        bicubic = InterpolationMode.BICUBIC
        fitted: Tensor = transforms.resize(frames, [size, size], bicubic, antialias=True)
        return fitted


def is_loop(frames: Tensor) -> bool:
    """Whether the step from the last of (n, ...) frames to the first is none of the largest."""
    if len(frames) < 3:
        return False
    steps = torch.stack([_step(a, b) for a, b in zip(frames, frames.roll(-1, 0))])
    return bool(steps[-1] <= steps[:-1].max())


def _step(a: Tensor, b: Tensor) -> Tensor:
    return (a.short() - b.short()).abs().float().mean()


class ClipTextDataset(TextDataset[Clip]):
    """Captioned clips of one size and length from shards or a folder."""

    def __init__(
        self,
        source: object,
        image_size: int,
        frames: int,
        *,
        fps: float | None = None,
        vary: Vary | None = None,
        limits: Limits | None = None,
        drop_caption: float = 0.1,
        flip: bool = False,
        limit_bad: float = 0.01,
        cache_bytes: int = 1 << 30,
        workers: int = 2,
    ) -> None:
        """Open a data set of clips; a batch holds pixels (B, 3, T, H, W).

        Args:
            source: an opened source, or what `open_source` takes: animations (.gif, .webp, .png),
                strips (see `sample_frames`) and films (.mp4, .webm ...).
            image_size: pixels a side; frames are cropped to a centred square and resized.
            frames: of a clip.
            fps: frames a second; None: spread over the whole source, which may repeat some.
            vary: what is drawn for a visit; None: nothing, as for evaluation.
            limits: what a source may have at most.
            drop_caption: see `ImageTextDataset`, as of the others.
            flip: mirror half of the clips.
            limit_bad: fraction of bad samples above which the data set is refused.
            cache_bytes: decoded sources are kept in memory, up to so many bytes of pixels.
            workers: threads that decode; they do not change the result.

        Raises:
            ConfigError: an argument is out of its range.
            DataError: there is no data set, or it holds no captioned clips.
        """
        super().__init__(
            source if isinstance(source, Source) else open_source(source, films=True),
            ClipReader(image_size, frames, fps, vary, limits or Limits()),
            drop_caption=drop_caption,
            flip=flip,
            limit_bad=limit_bad,
            cache_bytes=cache_bytes,
            workers=workers,
        )
