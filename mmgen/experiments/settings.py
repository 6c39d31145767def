"""What `mmgen experiment` is told: a base recipe, its variants, seeds, and what is measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmgen.config import from_dict
from mmgen.errors import ConfigError
from mmgen.train.recipe import read_recipe, shipped

SHELF = "experiments"  # the folder of those that come with the package


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Args:
        name: of the row and of its folder.
        change: keys of the recipe with their values, such as `flow.context: clean`; a mapping
            takes the place of the whole mapping that was there.
    """

    name: str
    change: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no name of a folder."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*", self.name):
            raise ConfigError(
                f"A variant cannot be named {self.name!r}; use letters, digits, spaces and ._+-"
            )


@dataclass(frozen=True)
class PictureMeasures:
    """What is measured on pictures.

    Args:
        real: folder that `mmgen data emoji` wrote.
        sets: of prompts: trained pairs, these in fresh wordings, held-out pairs. An experiment
            chooses between variants, so test splits are none of them.
        count: most pictures of each set. `batch`: pictures drawn at a time.
        speed: batches that pictures a second are measured at.
    """

    real: str
    sets: tuple[Literal["train", "fresh", "val"], ...] = ("val",)
    count: int = 200
    batch: int = 16
    speed: tuple[int, ...] = (1, 16)

    def __post_init__(self) -> None:
        """Refuse counts that cannot be measured with."""
        _check("pictures", self.count, (self.batch, *self.speed))
        if not self.sets:
            raise ConfigError("pictures.sets needs at least one of train, fresh, val.")


@dataclass(frozen=True)
class ClipMeasures:
    """What is measured on clips.

    Args:
        real: held-out clips with captions, which are asked for.
        reference: other real clips, which both are compared with, such as the training clips.
        count: most clips of either. `batch`: clips drawn at a time.
        speed: batches that frames a second are measured at.
    """

    real: str
    reference: str
    count: int = 100
    batch: int = 8
    speed: tuple[int, ...] = (1, 8)

    def __post_init__(self) -> None:
        """Refuse counts that cannot be measured with."""
        _check("clips", self.count, (self.batch, *self.speed))


@dataclass(frozen=True)
class Experiment:
    """A comparison.

    Args:
        recipe: of a generator: its name, its file, or the recipe itself.
        variants: what is compared, a row each.
        out: folder of the runs and of what comes out.
        change: of the recipe in all variants, written as in `Variant`.
        seeds: of the training; each variant is trained once with each.
        differ: keys in which variants may differ, or their beginnings; `samples` is how many
            pictures and clips are seen. Everything else must be equal.
        before: recipes whose result the variants need, such as a tokenizer; each is trained where
            its folder `final` is missing.
        pictures: none: nothing is measured on pictures.
        clips: none: nothing is measured on clips.
        prompts: of the picture, a column each; none: those of the recipe's previews.
        seed: of everything that is drawn to measure.
    """

    recipe: str | dict[str, Any]
    variants: tuple[Variant, ...]
    out: str
    change: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    differ: tuple[str, ...] = ("units", "sampling")
    before: tuple[str, ...] = ()
    pictures: PictureMeasures | None = None
    clips: ClipMeasures | None = None
    prompts: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a table without rows or figures, and rows of one name."""
        names = [variant.name for variant in self.variants]
        if not names or len({name.lower() for name in names}) < len(names):
            raise ConfigError("variants needs at least one entry, each with a name of its own.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError("seeds needs at least one number, none negative and none twice.")
        if self.pictures is None and self.clips is None:
            raise ConfigError("An experiment measures something; give `pictures` or `clips`.")
        if not self.out.strip():
            raise ConfigError("out must be the name of a folder.")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, not {self.seed}.")


def load_experiment(source: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment, apply the overrides and check it.

    Args:
        source: path of a YAML file, or the name of a shipped experiment.
        overrides: words `key=value` or `key.sub=value`, such as `change.train.steps=1000`.

    Raises:
        ConfigError: no such experiment, bad YAML, an unknown key or a value of another type.
    """
    data = read_recipe(source, overrides, SHELF)
    return from_dict(Experiment, data, f"experiment {source}")


def shipped_experiments() -> list[str]:
    """Return the names of the experiments that come with the package."""
    return shipped(SHELF)


def _check(where: str, count: int, batches: Sequence[int]) -> None:
    if count < 2 or min(batches, default=0) < 1:
        raise ConfigError(
            f"{where}.count must be at least 2, and {where}.batch and each of {where}.speed at "
            "least 1."
        )
