"""Sizes of a `UnifiedModel`, and what follows from its units."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmgen.config import later
from mmgen.errors import ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.plan import Input, Plan
from mmgen.models.schedule import Grid
from mmgen.models.units import Unit, find_unit, plan_for

END = "end"  # the marker behind a picture


@dataclass(frozen=True)
class UnifiedConfig:
    """Sizes of a `UnifiedModel`.

    Args:
        backbone: the transformer.
        text_vocab: ids of the text tokenizer.
        max_text: longest text in ids, `<bos>` included.
        codebook_size: K; 0: the visual tokenizer has latents, and the model draws those.
        code_channels: C, of a code's vector or of a latent.
        grid: (t, h, w) of the pictures it was trained on, or of the clips.
        units: the schedules it was trained on; the first is the default.
        logit_width: channels of the vectors that logits are measured with.
        rope_base: see `models/rope.py`.
        stills: whether weights that draw clips were trained on pictures (1, h, w) too.
    """

    backbone: BackboneConfig
    text_vocab: int
    max_text: int
    codebook_size: int
    code_channels: int
    grid: tuple[int, int, int]
    units: tuple[Unit, ...]
    logit_width: int = 256
    rope_base: float = 100.0
    stills: bool = later(False)

    def __post_init__(self) -> None:
        """Refuse units that could not be told apart."""
        names = [unit.name for unit in self.units]
        if not names or len(set(names)) < len(names) or END in names:
            raise ConfigError(
                f"units needs one entry or more, each with its own name and none called '{END}', "
                f"not {names}."
            )
        for grid in self.grids:
            if not any(unit.draws(grid) for unit in self.units):
                what = "clips" if grid[0] > 1 else "stills"
                raise ConfigError(f"None of units draws {what}; add one, or change its `of`.")
        self._check_kind()

    def _check_kind(self) -> None:
        what = "latents" if self.continuous else "codes"
        for unit in self.units:
            if unit.continuous != self.continuous:
                raise ConfigError(
                    f"Unit '{unit.name}' must say continuous: {str(self.continuous).lower()}, "
                    f"since the visual tokenizer has {what}."
                )
        if self.backbone.adaln != self.continuous:
            raise ConfigError(
                f"backbone.adaln must be {str(self.continuous).lower()} for a visual tokenizer of "
                f"{what}: it tells latents their time."
            )

    @property
    def continuous(self) -> bool:
        """Whether latents are drawn, not codes."""
        return self.codebook_size == 0

    @property
    def channels(self) -> int:
        """C."""
        return self.code_channels

    def unit(self, name: str) -> Unit:
        """The unit of that name.

        Raises:
            ConfigError: the weights were not trained on it.
        """
        return find_unit(self.units, name)

    def first_unit(self, grid: Grid) -> Unit:
        """The first unit that was trained on stills, or on clips, like those of a grid."""
        return next(unit for unit in self.units if unit.draws(grid))

    @property
    def markers(self) -> tuple[str, ...]:
        """Names of the rows that open a picture, one a unit, and of the one behind it."""
        return (*(unit.name for unit in self.units), END)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The grids it was trained on: of stills, of clips, or of both."""
        t, h, w = self.grid
        return ((1, h, w), self.grid) if self.stills and t > 1 else (self.grid,)

    def directions(self) -> tuple[str, ...]:
        """Names of the heads that the units need."""
        return tuple(sorted({name for plan in self._plans() for name in plan.heads}))

    def learned_starts(self) -> int:
        """How many start tokens the units need, at least 1."""
        learned = [plan.source[plan.input == Input.START] for plan in self._plans()]
        return int(torch.cat(learned).max()) + 1 if any(map(len, learned)) else 1

    def levels(self) -> int:
        """How many sizes of the picture the units show, 1 without `scale` orders."""
        coarse = [(plan.schedule.site < 0, plan.schedule) for plan in self._plans()]
        return max(schedule.blocks if some.any() else 1 for some, schedule in coarse)

    def _plans(self) -> list[Plan]:
        return [
            plan_for(unit, grid) for grid in self.grids for unit in self.units if unit.draws(grid)
        ]
