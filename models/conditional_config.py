"""What a `ConditionalModel` is made of: its sizes, and which schedules and heads it has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mmgen.errors import ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.conditions import ClassConfig, ConditionConfig
from mmgen.models.units import Unit, find_unit, plan_for
from mmgen.models.words import WordConfig

ANY = "any"  # the direction of a head that speaks for all of them


@dataclass(frozen=True)
class Tap:
    """A direction of the head, and how many blocks it stands on; `ANY` stands alone."""

    direction: str
    depth: int


@dataclass(frozen=True)
class ConditionalConfig:
    """Sizes of a `ConditionalModel`.

    Args:
        backbone: the transformer.
        condition: what stands before the picture.
        codebook_size: K.
        grid: (t, h, w) of the pictures it was trained on.
        units: the schedules it was trained on; the first is the default.
        taps: the head's directions; all those that the units need.
        positions: "tyx" and "yx" are rotary over three axes or the picture's two, "learned" is a
            table over condition and grid, "order" one over the places of the sequence.
        longest: rows of the table of "order".
        rope_base: see `models/rope.py`.
        silent_condition: the rotary tables of condition rows are zero and not the identity, so
            that only their values speak (LlamaGen and NAR were trained so).
        code_channels: codes enter as vectors of the tokenizer's codebook, of so many channels,
            through an MLP (an option of IBQ's); None: as rows of a table.

    With `backbone.adaln` the class also speaks to all rows through it.
    """

    backbone: BackboneConfig
    condition: ConditionConfig
    codebook_size: int
    grid: tuple[int, int, int]
    units: tuple[Unit, ...]
    taps: tuple[Tap, ...]
    positions: Literal["tyx", "yx", "learned", "order"] = "tyx"
    longest: int = 0
    rope_base: float = 100.0
    silent_condition: bool = False
    code_channels: int | None = None

    def __post_init__(self) -> None:
        """Refuse heads that do not stand on the backbone, or that a unit would miss."""
        if any(not 0 < tap.depth <= self.backbone.depth for tap in self.taps):
            raise ConfigError(f"taps must stand on 1 to {self.backbone.depth} blocks.")
        if self.backbone.adaln and not isinstance(self.condition, ClassConfig):
            raise ConfigError("backbone.adaln needs a condition of kind 'class'.")
        if self.positions == "yx" and self.backbone.head_dim % 4:
            raise ConfigError(
                f"Heads of {self.backbone.head_dim} channels cannot carry rows and columns; the "
                "width divided by the heads must be a multiple of 4."
            )
        if not 0 < self.rope_base < math.inf:
            raise ConfigError(f"rope_base must be above 0 and finite, not {self.rope_base}.")
        if self.code_channels and isinstance(self.condition, WordConfig):
            raise ConfigError("code_channels leaves words without a table; leave it out.")
        if [tap.direction for tap in self.taps] == [ANY] and self.units:
            return
        spoken = {name for unit in self.units for name in plan_for(unit, self.grid).heads}
        missing = sorted(spoken - {tap.direction for tap in self.taps})
        if missing or not self.units:
            raise ConfigError(f"taps needs the direction '{missing[0]}'." if missing else "no unit")

    def unit(self, name: str) -> Unit:
        """The unit of that name.

        Raises:
            ConfigError: the weights were not trained on it.
        """
        return find_unit(self.units, name)
