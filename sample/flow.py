"""Solvers: from noise to latents along a learned velocity, as pure functions.

Time runs from 1 (noise) to 0 (data), so every step is negative. The state is float64: a hundred
small steps add up in it, and the network rounds once a visit. `euler` and `heun` follow the
probability flow; `euler-maruyama` follows the reverse SDE whose noise is `sqrt(2 t)` (SiT, arXiv
2401.08740), whose drift with a straight path is `(2 - t) v + x`, and ends in a step without noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mmgen.errors import ConfigError, suggestion

Solver = Literal["euler", "heun", "euler-maruyama"]
SOLVERS: tuple[str, ...] = get_args(Solver)

Velocity = Callable[[Tensor, int], Tensor]  # state and index of its time -> velocity, both float64
StepNoise = Callable[[int], Tensor]  # index of the step -> standard normal noise like the state


@dataclass(frozen=True)
class FlowSettings:
    """How each block of latents is integrated.

    Args:
        solver: one of `SOLVERS`.
        steps: solver steps of every block, or one number a block (DiSA, arXiv 2505.20297). A step
            is one visit of the network, with "heun" two, except the last.
        last_time: where "euler-maruyama" begins its last step, the one without noise.

    Raises:
        ConfigError: a value outside its range.
    """

    solver: Solver = "euler-maruyama"
    steps: int | tuple[int, ...] = 50
    last_time: float = 0.04

    def __post_init__(self) -> None:
        """Refuse what no solver can do."""
        if self.solver not in SOLVERS:
            raise ConfigError(
                f"The solver cannot be '{self.solver}'{suggestion(str(self.solver), SOLVERS)}"
            )
        steps = self.steps if isinstance(self.steps, tuple) else (self.steps,)
        if not steps or min(steps) < 1:
            raise ConfigError(f"The solver needs 1 step or more in each block, not {self.steps}.")
        if not 0.0 < self.last_time < 1.0:
            raise ConfigError(f"last_time must lie between 0 and 1, not {self.last_time}.")

    def times(self, block: int, blocks: int) -> Tensor:
        """Times at which the network is visited, (S,) float64, from 1 down.

        Args:
            block: which block is integrated.
            blocks: how many there are.

        Raises:
            ConfigError: a list of steps for another number of blocks.
        """
        steps = self.steps if isinstance(self.steps, tuple) else (self.steps,) * blocks
        if len(steps) != blocks:
            raise ConfigError(
                f"There are {len(steps)} numbers of steps for {blocks} blocks; give one for each."
            )
        count = steps[block]
        if self.solver == "euler-maruyama":
            return torch.linspace(1.0, self.last_time, count, dtype=torch.float64)
        return torch.linspace(1.0, 0.0, count + 1, dtype=torch.float64)[:-1]


def solve(
    solver: Solver, velocity: Velocity, noise: Tensor, times: Tensor, step_noise: StepNoise
) -> Tensor:
    """Integrate from noise to data.

    Args:
        solver: one of `SOLVERS`.
        velocity: the network, asked for a state at one of `times`.
        noise: the state at time 1, of any shape.
        times: (S,) float64 of `FlowSettings.times`; time 0 follows them.
        step_noise: noise of a step that has any; it is called once for each, in order.

    Returns:
        The state at time 0, float64.
    """
    x = noise.double()
    ends = [*times.tolist(), 0.0]
    for index, (start, end) in enumerate(zip(ends, ends[1:])):
        dt = end - start
        v = velocity(x, index)
        if solver == "euler-maruyama":
            x = x + dt * ((2 - start) * v + x)
            if end > 0.0:
                x = x + math.sqrt(2 * start) * math.sqrt(-dt) * step_noise(index).double()
        elif solver == "heun" and end > 0.0:
            x = x + dt / 2 * (v + velocity(x + dt * v, index + 1))
        else:
            x = x + dt * v
    return x
