"""The `clips` part of a recipe, and the data sets that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from mmgen.data.clip_dataset import ClipTextDataset, Vary
from mmgen.data.films import Limits
from mmgen.data.sources import Source, open_source
from mmgen.errors import ConfigError


@dataclass(frozen=True)
class ClipDataConfig:
    """Where clips and their captions come from, and how many frames are seen of one.

    Args:
        train: folder or tar shards of animations, films, or strips (see `ClipTextDataset`).
        val: held-out clips of the same kinds; none: see `held_out`.
        frames: of a clip.
        fps: frames a second; none: the frames are spread over the whole source.
        share: of the steps that see clips, above 0; the others see pictures.
        batch_size: clips in a batch; none: that of `train`.
        phase: begin at any frame of a loop, or of a source that has more than is shown.
        span: smallest share of a source over which a clip is spread (see `Vary`).
        crop: smallest share of the sides that is seen, where the source has more pixels.
        views: drawn versions of each clip (`phase`, `span`, `crop`) whose codes a generator is
            trained on; 1: the whole clip alone.
        drop_caption: probability of an empty caption, for guidance.
        limit_bad: share of clips that may be unusable; above it, training stops.
        most_frames: a source with more is unusable.
        most_seconds: a source that lasts longer is unusable.
        held_out: share of `train` that is kept for evaluation where there is no `val`; 0: nothing
            is evaluated on clips.
    """

    train: str
    val: str | None = None
    frames: int = 17
    fps: float | None = None
    share: float = 0.5
    batch_size: int | None = None
    phase: bool = True
    span: float = 1.0
    crop: float = 1.0
    views: int = 1
    drop_caption: float = 0.1
    limit_bad: float = 0.01
    most_frames: int = 1000
    most_seconds: float = 120.0
    held_out: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no share and no count."""
        if not 0 < self.share <= 1:
            raise ConfigError(
                f"clips.share must be above 0 and at most 1, not {self.share}; leave out clips to "
                "train on pictures alone."
            )
        for name in ("drop_caption", "limit_bad"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"clips.{name} must be in [0, 1], not {getattr(self, name)}.")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"clips.held_out must be in [0, 1), not {self.held_out}.")
        if self.val is not None and self.held_out:
            raise ConfigError("clips.val and clips.held_out both name clips; leave one out.")
        try:
            self.vary()
        except ConfigError as error:
            raise ConfigError(f"clips.{error}") from None
        for name in ("frames", "batch_size", "views", "most_frames"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"clips.{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("fps", "most_seconds"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ConfigError(f"clips.{name} must be above 0, not {getattr(self, name)}.")

    def vary(self) -> Vary:
        """What is drawn for a visit of a clip."""
        return Vary(self.phase, self.span, self.crop)

    def refuse_idle(self, names: Sequence[str], where: str) -> None:
        """Refuse keys that would do nothing.

        Args:
            names: of the keys, which must be as they are by default.
            where: they do nothing, such as "in a recipe of a tokenizer".

        Raises:
            ConfigError: one of them is set.
        """
        for each in fields(self):
            if each.name in names and getattr(self, each.name) != each.default:
                raise ConfigError(f"clips.{each.name} does nothing {where}; leave it out.")


def open_train_clips(
    config: ClipDataConfig, image_size: int, captioned: bool = True
) -> ClipTextDataset:
    """The clips that a recipe trains on.

    Args:
        config: of the recipe.
        image_size: pixels a side.
        captioned: False: the clips alone are read, and need no captions.
    """
    source = _source(config.train, captioned)
    kept = source.split(config.held_out)[0] if config.held_out else source
    return _dataset(config, kept, image_size, config.vary())


def open_held_out_clips(
    config: ClipDataConfig, image_size: int, captioned: bool = True
) -> ClipTextDataset | None:
    """The clips that a recipe evaluates on, if there are any, without anything drawn."""
    if config.val is not None:
        return _dataset(config, _source(config.val, captioned), image_size, None)
    if not config.held_out:
        return None
    source = _source(config.train, captioned)
    held = source.split(config.held_out)[1]
    # As many as in the whole: of two clips one would be half.
    few = min(1.0, config.limit_bad * len(source) / len(held))
    return _dataset(replace(config, limit_bad=few), held, image_size, None)


def _source(place: str, captioned: bool) -> Source:
    return open_source(place, captioned=captioned, films=True)


def _dataset(
    config: ClipDataConfig, source: Source, image_size: int, vary: Vary | None
) -> ClipTextDataset:
    return ClipTextDataset(
        source,
        image_size,
        config.frames,
        fps=config.fps,
        vary=vary,
        limits=Limits(config.most_frames, config.most_seconds),
        drop_caption=config.drop_caption,
        limit_bad=config.limit_bad,
    )
