"""A schedule and a prediction, compiled to the rows that a network is fed.

Row i sees row j iff `lane_j = 0 and block_j < block_i`, or block and lane are equal: every mask of
training and of cached decoding comes from these two integers (design section 4).

Numbering: the lane-0 row of a slot that is decided in step j has block j + 1, the lane-1 query rows
of that step too; learned start tokens have block 0. The prefix stands before all of it.
Shapes: R rows, N slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from mmgen.errors import ConfigError, suggestion
from mmgen.models.schedule import Schedule

Prediction = Literal["shift", "neighbors", "self"]
PREDICTIONS = ("shift", "neighbors", "self")
STARTS = ("learned", "hybrid", "given")

#: Values of `reads` that are no row: the head is silent; the prefix's last row.
NONE = -1
PREFIX = -2


class Input(IntEnum):
    """What a row is made of."""

    SLOT = 0  # the decided token of slot `source`
    START = 1  # learned token number `source` (its place in the block)
    MASK = 2  # a mask token that asks for slot `source`
    NOISE = 3  # the noisy latent of slot `source`


@dataclass(frozen=True, eq=False)
class Plan:
    """The rows of a schedule, in feeding order, and which row predicts which slot.

    Args:
        schedule: what is decided when.
        prediction: `shift`, `neighbors` or `self`.
        input: (R,) int64, an `Input`.
        source: (R,) int64, the slot (or the learned token) of each row.
        coords: (R, 3) float32, place `(t, y, x)`.
        block: (R,) int64.
        lane: (R,) int64, 0 context, 1 query.
        keep: (R,) bool, stays in the cache.
        heads: names of the heads that speak.
        reads: (heads, N) int64, row that predicts each slot, or `PREFIX` or `NONE`.
        sizes: slots that each step decides, in slot order (the blocks of the schedule, except that
            the hybrid start decides the first block one by one).
    """

    schedule: Schedule
    prediction: str
    input: Tensor
    source: Tensor
    coords: Tensor
    block: Tensor
    lane: Tensor
    keep: Tensor
    heads: tuple[str, ...]
    reads: Tensor
    sizes: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Number of steps that decide something."""
        return len(self.sizes)

    @property
    def rows(self) -> int:
        """Number of rows, R."""
        return len(self.block)

    def slots_of_step(self, step: int) -> Tensor:
        """Slots that are decided in a step, (n,) int64."""
        start = sum(self.sizes[:step])
        return torch.arange(start, start + self.sizes[step])

    def rows_for_step(self, step: int, since: int | None = None) -> Tensor:
        """Rows to feed before a step is decided, (n,) int64: the block before, then the queries.

        Args:
            step: from 0.
            since: the first step whose rows were not fed yet (default: this one).

        Raises:
            ValueError: a plan with noisy context, which is for training only.
        """
        if self.prediction == "self" and not self.lane.any():
            raise ValueError("a plan with noisy context cannot be decoded: compile a clean one")
        first = step if since is None else since
        context = (self.lane == 0) & (self.block >= first) & (self.block <= step)
        query = (self.lane == 1) & (self.block == step + 1)
        return torch.nonzero(context | query)[:, 0]

    @cached_property
    def final_rows(self) -> Tensor:
        """Rows that no step fed, (n,) int64: the last block, for what comes after the picture."""
        return torch.nonzero((self.lane == 0) & (self.block == self.steps))[:, 0]


def compile_plan(
    schedule: Schedule,
    prediction: str,
    *,
    start: str = "learned",
    noisy_context: bool = False,
    continuous: bool = False,
    directions: str = "",
) -> Plan:
    """Compile a schedule to rows.

    Args:
        schedule: what is decided when.
        prediction: `shift`, `neighbors` or `self`.
        start: how `shift` decides a first block of several slots: from `learned` start tokens;
            `hybrid` (NBP: token by token, then `[last token, k - 1 middle tokens]`); or not at all,
            since it is always `given` (NBP frame prediction: the first block has no reads).
        noisy_context: `self` only, training only (xAR): one noisy lane 0 instead of two lanes.
        continuous: `self` only: queries are noise, not mask tokens. `scale` orders always are.
        directions: `neighbors` only: axes with a head, such as "yx" (default: those along which the
            grid has more than one site). A head without neighbours still speaks of the first site.

    Raises:
        ConfigError: a prediction that the order does not take, or unequal blocks for `shift`.
    """
    if prediction not in PREDICTIONS:
        raise ConfigError(f"Unknown prediction '{prediction}'{suggestion(prediction, PREDICTIONS)}")
    if start not in STARTS:
        raise ConfigError(f"Unknown start '{start}'{suggestion(start, STARTS)}")
    if start != "learned" and prediction != "shift":
        raise ConfigError(f"Start '{start}' goes with prediction 'shift', not '{prediction}'.")
    if (noisy_context or continuous) and prediction != "self":
        raise ConfigError(f"Noise rows go with prediction 'self', not '{prediction}'.")
    if prediction == "neighbors":
        return _neighbors(schedule, directions)
    if prediction == "self":
        noise = continuous or noisy_context or schedule.order.startswith("scale:")
        query = Input.NOISE if noise else Input.MASK
        return _noisy_self(schedule) if noisy_context else _self(schedule, query)
    _check_equal(schedule)
    return _hybrid(schedule) if start == "hybrid" else _shift(schedule, given=start == "given")


def visible(block_q: Tensor, lane_q: Tensor, block_k: Tensor, lane_k: Tensor) -> Tensor:
    """Say which key rows each query row sees.

    Args:
        block_q: (Q,) int64, and `lane_q` likewise.
        block_k: (K,) int64, and `lane_k` likewise.

    Returns:
        (Q, K) bool.
    """
    before = (lane_k == 0)[None] & (block_k[None] < block_q[:, None])
    beside = (block_k[None] == block_q[:, None]) & (lane_k[None] == lane_q[:, None])
    return before | beside


# ---- one function a prediction ---------------------------------------------------------------


def _shift(schedule: Schedule, given: bool) -> Plan:
    n, k = schedule.slots, schedule.sizes[0]
    starts = k if k > 1 and not given else 0  # a single first slot is predicted by the prefix
    slot = torch.arange(n)
    reads = slot - k + starts  # slot s is predicted by slot s - k, the first block by the starts
    if not starts:
        reads[:k] = NONE if given else PREFIX
    return _plan(
        schedule,
        "shift",
        kind=[Input.START] * starts + [Input.SLOT] * n,
        source=torch.cat([torch.arange(starts), slot]),
        block=torch.cat([slot.new_zeros(starts), schedule.block_of_slot + 1]),
        heads=(_shift_head(schedule),),
        reads=reads[None],
    )


def _hybrid(schedule: Schedule) -> Plan:
    """NBP (specs/nbp.md 3.3): rows `z_0 .. z_{k-2} | z_{k-1}, middle 1 .. k-1 | z_k .. | ..`."""
    n, k = schedule.slots, schedule.sizes[0]
    middles = k - 1 if n > k else 0
    slot = torch.arange(n)
    # Each token of the first block is a step of its own; the middle tokens join the last of them.
    block = [slot[:k] + 1, slot.new_full((middles,), k), schedule.block_of_slot[k:] + k]
    # Slot s of the first block is predicted by row s - 1; later on its block before lies `middles`
    # rows behind its slots, and for the second block that is [last token, middle tokens].
    reads = torch.cat([slot[:k] - 1, slot[k:] - k + middles])
    reads[0] = PREFIX
    return _plan(
        schedule,
        "shift",
        kind=[Input.SLOT] * k + [Input.START] * middles + [Input.SLOT] * (n - k),
        source=torch.cat([slot[:k], torch.arange(1, middles + 1), slot[k:]]),
        block=torch.cat(block),
        heads=(_shift_head(schedule),),
        reads=reads[None],
        sizes=(1,) * k + schedule.sizes[1:],
    )


def _neighbors(schedule: Schedule, directions: str) -> Plan:
    if schedule.order != "neighbor":
        raise ConfigError(
            f"Prediction 'neighbors' goes with order 'neighbor', not '{schedule.order}'."
        )
    _, h, w = schedule.grid
    n = schedule.slots
    row_of_site = torch.argsort(schedule.site)
    axes = [axis for axis in range(3) if schedule.grid[axis] > 1] or [2]
    if directions:
        axes = sorted({*axes, *map("tyx".index, directions)})
    reads = torch.full((len(axes), n), NONE)
    for head, axis in enumerate(axes):
        has = schedule.coords[:, axis] > 0
        reads[head, has] = row_of_site[schedule.site[has] - (h * w, w, 1)[axis]]
    reads[:, 0] = PREFIX
    return _plan(
        schedule,
        "neighbors",
        kind=[Input.SLOT] * n,
        source=torch.arange(n),
        block=schedule.block_of_slot + 1,
        heads=tuple("tyx"[axis] for axis in axes),
        reads=reads,
    )


def _self(schedule: Schedule, query: Input) -> Plan:
    """For each block its queries (lane 1), then its decided tokens (lane 0)."""
    kind: list[Input] = []
    source, lane, reads = [], [], []
    for start, size in zip(schedule.starts, schedule.sizes):
        slots = torch.arange(start, start + size)
        kind += [query] * size + [Input.SLOT] * size
        source += [slots, slots]
        lane += [slots.new_ones(size), slots.new_zeros(size)]
        reads.append(slots + start)  # the blocks before have two rows a slot
    rows = torch.cat(source)
    return _plan(
        schedule,
        "self",
        kind=kind,
        source=rows,
        block=schedule.block_of_slot[rows] + 1,
        lane=torch.cat(lane),
        heads=("self",),
        reads=torch.cat(reads)[None],
    )


def _noisy_self(schedule: Schedule) -> Plan:
    slot = torch.arange(schedule.slots)
    return _plan(
        schedule,
        "self",
        kind=[Input.NOISE] * len(slot),
        source=slot,
        block=schedule.block_of_slot + 1,
        heads=("self",),
        reads=slot[None],
    )


def _plan(
    schedule: Schedule,
    prediction: str,
    *,
    kind: list[Input],
    source: Tensor,
    block: Tensor,
    heads: tuple[str, ...],
    reads: Tensor,
    lane: Tensor | None = None,
    sizes: tuple[int, ...] | None = None,
) -> Plan:
    lane = torch.zeros_like(block) if lane is None else lane
    return Plan(
        schedule=schedule,
        prediction=prediction,
        input=torch.tensor(kind),
        source=source,
        # A learned token stands at its place in the first block: `source` gives every row's place.
        coords=schedule.coords[source],
        block=block,
        lane=lane,
        keep=lane == 0,
        heads=heads,
        reads=reads,
        sizes=sizes or schedule.sizes,
    )


def _shift_head(schedule: Schedule) -> str:
    """Name the axis along which blocks follow: x if they cut rows, y if frames, else t."""
    if schedule.slots == 1:
        return "x"  # a picture of one token is one of tokens
    t, y, _ = schedule.coords.long().unbind(1)
    frames, height, _ = schedule.grid
    frame_parts = torch.unique(schedule.block_of_slot * frames + t)
    row_parts = torch.unique((schedule.block_of_slot * frames + t) * height + y)
    if len(row_parts) > frames * height:
        return "x"
    return "y" if len(frame_parts) > frames else "t"


def _check_equal(schedule: Schedule) -> None:
    if len(set(schedule.sizes)) > 1:
        low, high = min(schedule.sizes), max(schedule.sizes)
        raise ConfigError(
            f"Prediction 'shift' needs blocks of equal size, and those of order "
            f"'{schedule.order}' have {low} to {high} slots; use prediction 'self' with it."
        )
