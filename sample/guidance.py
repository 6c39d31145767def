"""Classifier-free guidance: how far to move from the unconditional to the conditional prediction.

Ho and Salimans, "Classifier-Free Diffusion Guidance" (arXiv 2207.12598); an interval after
Kynkäänniemi et al. (arXiv 2404.07724); the linear ramp as in xAR and VAR.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from mmgen.errors import ConfigError, suggestion

Unit = Literal["share", "steps", "tokens"]
Ramp = Literal["constant", "linear", "cosine"]

_UNITS: tuple[str, ...] = get_args(Unit)
_RAMPS: tuple[str, ...] = get_args(Ramp)


@dataclass(frozen=True)
class Guidance:
    """The guidance scale as a function of decoding progress.

    A step is guided if `start <= progress < stop`, where progress is what was done before it. The
    published intervals, both of which always guide the first step, read here:

        LlamaGen `cfg_interval = c` (decode steps after the prefill):  stop = c + 2, unit "steps"
        NAR `cfg_interval = c` (tokens generated before the step):     stop = c + 1, unit "tokens"

    Args:
        scale: 1 is the conditional prediction alone, more moves away from the unconditional one.
        start: progress from which steps are guided.
        stop: progress from which steps are no longer guided; None never stops.
        unit: what `start` and `stop` count: steps, tokens, or the share (0 to 1) of all tokens.
        ramp: how the scale grows from 1 at the first step to `scale` at the last: not at all
            ("constant": `scale` everywhere), "linear" (xAR, VAR) or "cosine" (half a period).

    Raises:
        ConfigError: a value outside its range.
    """

    scale: float = 1.0
    start: float = 0.0
    stop: float | None = None
    unit: Unit = "share"
    ramp: Ramp = "constant"

    def __post_init__(self) -> None:
        self.validate()

    @property
    def enabled(self) -> bool:
        """Whether any step may need the unconditional branch."""
        return self.scale != 1.0

    def scale_at(self, step: int, steps: int, tokens_done: int, tokens: int) -> float:
        """Return the scale of one step; 1.0 means that the conditional prediction stands alone.

        Args:
            step: index of the step, from 0 (the one that the prefill decides).
            steps: number of steps of the picture.
            tokens_done: tokens decided before this step.
            tokens: tokens of the picture.
        """
        progress = self._progress(step, tokens_done, tokens)
        if progress < self.start or (self.stop is not None and progress >= self.stop):
            return 1.0
        if self.ramp == "constant" or steps == 1:  # a single step has nothing to grow from
            return self.scale
        done = step / (steps - 1)
        if self.ramp == "cosine":
            done = 0.5 - 0.5 * math.cos(math.pi * done)
        return 1.0 + (self.scale - 1.0) * done

    def is_over(self, step: int, steps: int, tokens_done: int, tokens: int) -> bool:
        """Whether neither this step nor a later one is guided; arguments as for `scale_at`."""
        if self.scale == 1.0:
            return True
        return self.stop is not None and self._progress(step, tokens_done, tokens) >= self.stop

    def _progress(self, step: int, tokens_done: int, tokens: int) -> float:
        return {"share": tokens_done / tokens, "steps": step, "tokens": tokens_done}[self.unit]

    def validate(self) -> None:
        """Check the values.

        Raises:
            ConfigError: a value outside its range.
        """
        if not 0.0 <= self.scale < math.inf:
            raise ConfigError(f"The guidance scale must be 0 or more, not {self.scale}.")
        if self.unit not in _UNITS:
            raise ConfigError(
                f"The guidance unit cannot be '{self.unit}'{_hint(self.unit, _UNITS)}"
            )
        if self.ramp not in _RAMPS:
            raise ConfigError(
                f"The guidance ramp cannot be '{self.ramp}'{_hint(self.ramp, _RAMPS)}"
            )
        self._validate_interval()

    def _validate_interval(self) -> None:
        limit = 1.0 if self.unit == "share" else math.inf
        if not 0.0 <= self.start < limit:
            raise ConfigError(
                f"The guidance start {self.start} must be 0 or more and below {limit:g} "
                f"{self.unit}."
            )
        if self.stop is not None and not self.start < self.stop <= limit:
            raise ConfigError(
                f"The guidance stop {self.stop} must be above the start {self.start} and at most "
                f"{limit:g} {self.unit}; leave it out to guide to the end."
            )


def guide(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Return `uncond + scale * (cond - uncond)`, every operation rounded to float32.

    Forbid tokens (-inf) after guiding: the difference of two infinities is NaN.

    Args:
        cond: conditional logits or velocities, any shape and float type.
        uncond: unconditional ones of the same shape.
        scale: from `Guidance.scale_at`; 1.0 returns `cond` itself, in float32.

    Returns:
        float32 of the same shape.
    """
    cond = cond.float()
    if scale == 1.0:
        return cond
    uncond = uncond.float()
    return uncond + (cond - uncond) * scale


def _hint(word: object, known: tuple[str, ...]) -> str:
    return suggestion(str(word), known)
