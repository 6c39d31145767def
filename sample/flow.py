"""Solvers: from noise to latents along a learned velocity, as pure functions.

Time runs from 1 (noise) to 0 (data), so every step is negative. The state is float64: a hundred
small steps add up in it, and the network rounds once a visit. `euler` and `heun` follow the
probability flow; `euler-maruyama` follows the reverse SDE whose noise is `sqrt(2 t)` (SiT, arXiv
2401.08740), whose drift with a straight path is `(2 - t) v + x`, and ends in a step without noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from mmgen.errors import ConfigError, suggestion
from mmgen.models.decodable import Decodable
from mmgen.models.moments import Conditions, Moment
from mmgen.models.plan import Plan
from mmgen.noise import gaussian
from mmgen.sample.deciding import Decided, Turn

Solver = Literal["euler", "heun", "euler-maruyama"]
SOLVERS: tuple[str, ...] = get_args(Solver)

Velocity = Callable[[Tensor, int], Tensor]  # state and index of its time -> velocity, both float64
FlowNoise = Callable[[int, Tensor, int], Tensor]  # (block, slots (n,), visit) -> (B, n, C)
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
        if isinstance(self.steps, list):  # as JSON and YAML have it
            object.__setattr__(self, "steps", tuple(self.steps))
        steps = self.steps if isinstance(self.steps, tuple) else (self.steps,)
        if not steps or not all(isinstance(count, int) and count >= 1 for count in steps):
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

    def all_times(self, blocks: int) -> Tensor:
        """The different times of all blocks, (T,) float64, rising from the 0 of finished ones."""
        each = [self.times(block, blocks) for block in range(blocks)]
        return torch.cat([torch.zeros(1, dtype=torch.float64), *each]).unique()  # type: ignore[no-untyped-call, no-any-return]


def solve(
    solver: Solver, velocity: Velocity, noise: Tensor, times: Tensor, step_noise: StepNoise
) -> Iterator[Tensor]:
    """Integrate from noise to data.

    Args:
        solver: one of `SOLVERS`.
        velocity: the network, asked for a state at one of `times`.
        noise: the state at time 1, of any shape.
        times: (S,) float64 of `FlowSettings.times`; time 0 follows them.
        step_noise: noise of a step that has any; it is called once for each, in order.

    Yields:
        The state after each step, float64; the last one is at time 0.
    """
    x = noise.double()
    ends = [*times.tolist(), 0.0]
    for index, (start, end) in enumerate(pairwise(ends)):
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
        yield x


class VelocityNetwork(Decodable, Protocol):
    """A network whose heads say velocities; its `image_rows` take a `Moment` as their tables."""

    config: Any  # its `channels` are those of a latent

    def conditions(self, condition: Tensor, times: Tensor) -> Conditions:
        """Compute adaLN for conditions (U, ...) at times (U, T), or (T,) for all of them alike."""


@dataclass(frozen=True)
class FlowDecider:
    """Latents of a block: from noise to data, with a visit of the network at every solver step.

    The finished blocks are context at time 0 in both branches; they are fed with the first visit
    and stay in the cache. What conditions and times do to the network is computed once for all
    visits.

    Args:
        model: in evaluation mode.
        plan: the schedule, compiled.
        condition: (G, ...) what adaLN tells each sequence of besides the time, of the prefix's
            cursor: labels, or what a text comes to.
        seeds: (B,) int64, the seed of each picture.
        settings: solver and steps.
        noise: standard normal numbers to use instead of the counter-based ones.
        segment: which picture of the sequence this is; part of the noise counter.
        trace: called with step, visit and the raw velocities (G, n, C), for reference runs.
    """

    model: VelocityNetwork
    plan: Plan
    condition: Tensor
    seeds: Tensor
    settings: FlowSettings
    noise: FlowNoise | None = None
    segment: int = 0
    trace: Callable[[int, int, Tensor], None] | None = None

    def blank(self, batch: int, slots: int, device: torch.device) -> Tensor:
        """(B, N, C) float32 zeros."""
        return torch.zeros(batch, slots, self.model.config.channels, device=device)

    def moves(self, step: int, steps: int) -> int:
        """The solver's steps."""
        return len(self.settings.times(step, steps))

    def decide(self, turn: Turn) -> Iterator[Decided]:
        """Visit the network once or more a solver step."""
        times = self.settings.times(turn.step, self.plan.steps)

        def velocity(x: Tensor, index: int) -> Tensor:
            values = turn.values.clone()
            values[:, turn.slots] = x.float()
            said = turn.feed(values, self._moment(turn.step, times[index]))
            if self.trace:
                self.trace(turn.step, index, said)
            return turn.guided(said).double()

        def noise(visit: int) -> Tensor:
            return self._noise(turn, visit)

        for x in solve(self.settings.solver, velocity, noise(0), times, lambda i: noise(i + 1)):
            yield Decided(x.float())

    def _noise(self, turn: Turn, visit: int) -> Tensor:
        """Numbers (B, n, C): visit 0 is where the block begins, visit 1 + i follows step i."""
        if self.noise:
            return self.noise(turn.step, turn.slots, visit)
        channels = self.model.config.channels
        drawn = gaussian(self.seeds, turn.slots, channels, visit=visit, segment=self.segment)
        return drawn.to(turn.values.device)

    @cached_property
    def _times(self) -> Tensor:
        return self.settings.all_times(self.plan.steps)

    @cached_property
    def _kinds(self) -> tuple[Tensor, Tensor]:
        """The different conditions (U, ...), and which each sequence has (G,)."""
        different, which = torch.unique(self.condition, dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
        return different, which

    @cached_property
    def _conditions(self) -> Conditions:
        different = self._kinds[0]
        return self.model.conditions(different, self._times.to(different.device))

    def _moment(self, step: int, t: Tensor) -> Moment:
        """Conditions and times of the rows of a visit; other blocks are finished, or not fed."""
        which = self._kinds[1]
        time = torch.zeros(self.plan.steps, dtype=torch.long)
        time[step] = torch.searchsorted(self._times, t)
        return Moment(self._conditions, which, time.to(which.device))
