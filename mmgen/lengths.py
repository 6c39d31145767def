"""How long clips are: frames of a call, latent frames of a grid, windows of a long clip.

A clip that is longer than those of the training is drawn window by window. The first window is as
long as a trained clip; each later one begins with the last latent frames of the window before, as
the trained clips do that begin in their middle, and is one latent frame shorter, as the longest of
those are: their first frame is none that stands alone. Windows are always whole and the clip is cut
at its end, so a longer clip begins with the shorter one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmgen.errors import ConfigError, UserError

if TYPE_CHECKING:
    from mmgen.models.schedule import Grid
    from mmgen.pipeline import Pipeline


@dataclass(frozen=True)
class Window:
    """A part of a clip that is drawn at once, in latent frames.

    Args:
        start: the frame of the clip that it begins with.
        given: how many of its frames are decided already.
        frames: how many it has.
    """

    start: int
    given: int
    frames: int


def windows(frames: int, longest: int, given: int = 0) -> Iterator[Window]:
    """Cut a clip into windows.

    Args:
        frames: latent frames of the clip.
        longest: latent frames of a trained clip.
        given: latent frames at the beginning that are decided already, fewer than `frames`.
    """
    if frames <= longest:
        yield Window(0, given, frames)
        return
    done, kept, later = given, overlap(longest), max(2, longest - 1)
    while done < frames:
        window = Window(0, done, longest) if done < longest else Window(done - kept, kept, later)
        yield window
        done = window.start + window.frames


def overlap(longest: int) -> int:
    """Latent frames that a window takes over from the one before."""
    return max(1, longest // 2)


def frames_of(vision: Any, latent: int) -> int:
    """Frames of the clip that so many latent frames decode to."""
    config: Any = getattr(vision, "config", None)
    if hasattr(config, "time_stride"):  # the first frame stands alone
        return 1 + (latent - 1) * int(config.time_stride)
    if hasattr(config, "temporal_stride"):
        return latent * int(config.temporal_stride)
    return int(getattr(config, "frames", latent)) if latent > 1 else 1


def trained_frames(pipe: Pipeline) -> int:
    """Frames of the clips that weights were trained on; 1 if they draw pictures alone."""
    latent: int = pipe.transformer.config.grid[0]
    return frames_of(pipe.vision, latent) if latent > 1 else 1


def usual_frames(pipe: Pipeline) -> int:
    """Frames of a call that does not say."""
    usual = pipe.info.sampling.num_frames
    if usual is None:
        return 1 if learned_stills(pipe) else trained_frames(pipe)
    return usual


def learned_stills(pipe: Pipeline) -> bool:
    """Whether the weights were trained on pictures."""
    config: Any = pipe.transformer.config
    return bool(config.grid[0] == 1 or getattr(config, "stills", False))


def call_grid(pipe: Pipeline, num_frames: int | None = None) -> Grid:
    """The grid (t, h, w) of a clip; of a picture where it has one frame.

    Args:
        pipe: whose weights draw.
        num_frames: None: what a call draws that does not say.

    Raises:
        UserError: the weights draw no clips, or no others than those that they know.
        ConfigError: no latent frames decode to so many.
    """
    from mmgen.models.unified import UnifiedModel

    count = usual_frames(pipe) if num_frames is None else num_frames
    name, trained = pipe.info.name, trained_frames(pipe)
    t, h, w = pipe.transformer.config.grid
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"num_frames is {count!r}; give a whole number from 1 (a picture) up.")
    if count == trained:
        return t, h, w
    if t == 1:
        raise UserError(f"The weights of '{name}' draw pictures, no clips; leave out num_frames.")
    if not isinstance(pipe.transformer, UnifiedModel):
        raise UserError(f"The weights of '{name}' draw clips of {trained} frames only.")
    latent = 1
    while (frames := frames_of(pipe.vision, latent)) < count:
        latent += 1
    if frames != count:
        before = frames_of(pipe.vision, latent - 1)
        raise ConfigError(
            f"num_frames is {count}, but the codes of '{name}' are of {before} or {frames} frames."
        )
    return latent, h, w
