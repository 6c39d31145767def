"""A transformer that predicts velocities: continuous latents, a block of the picture at a time.

The rows of a picture carry noisy or decided latents. In training one noisy sequence is target and
context at once (`compile_plan(..., noisy_context=True)`); in decoding finished blocks are context
at time 0, and the block in question is visited once a solver step (`mmgen/sample/flow.py`). Class
label and time reach the rows through adaLN alone. Stacks stand in series, each with its own learned
places, one for each slot; rotary positions are the true row and column. xAR: arXiv 2502.20388.

Shapes: B batch, R rows fed, N slots, E blocks, C channels of a latent, W width, U labels, T times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.models.backbone import Backbone, BackboneConfig, Modulation, make_norm
from mmgen.models.cache import KVCache
from mmgen.models.flow import FlowDraws, Noised, add_noise, time_level
from mmgen.models.plan import Plan, compile_plan
from mmgen.models.rope import rope_table
from mmgen.models.rows import Rows, row_mask
from mmgen.models.schedule import Schedule, make_schedule
from mmgen.saving import Saved


@dataclass(frozen=True)
class VelocityConfig:
    """Sizes of a `VelocityModel`.

    Args:
        stacks: the transformers in series, of one width.
        channels: C.
        grid: (t, h, w) of the latents.
        order: which slots make a block, such as "cell:8" (`models/schedule.py`).
        classes: labels; one more stands for "no label".
        label_drop: share of labels that training drops.
        rope_base: see `models/rope.py`.
        time_channels: channels of the cosines and sines of a time.
        time_levels: what t = 1 is for the network.
        whole_times: tell the network the whole part of its time only (xAR, trained that way).
    """

    stacks: tuple[BackboneConfig, ...]
    channels: int
    grid: tuple[int, int, int]
    order: str
    classes: int
    label_drop: float = 0.1
    rope_base: float = 10000.0
    time_channels: int = 256
    time_levels: int = 1000
    whole_times: bool = False

    def __post_init__(self) -> None:
        """Refuse stacks that cannot stand in series or take no condition."""
        if len({stack.width for stack in self.stacks}) != 1:
            widths = [stack.width for stack in self.stacks]
            raise ConfigError(f"stacks needs one entry or more, all of one width, not {widths}.")
        for i, stack in enumerate(self.stacks):
            if not stack.adaln:
                raise ConfigError(f"stacks[{i}].adaln must be true: times come through it.")
            if stack.head_dim % 4:
                raise ConfigError(
                    f"stacks[{i}] has heads of {stack.head_dim} channels; rows and columns need "
                    "a multiple of 4."
                )

    @property
    def width(self) -> int:
        """W."""
        return self.stacks[0].width


@dataclass
class LatentRows(Rows):
    """Rows of latents; `x` (B, R, C) are the latents themselves.

    Args:
        slot: (R,) long, the slot of each row.
    """

    slot: Tensor


class Conditions(NamedTuple):
    """What adaLN makes of every label at every time: one entry a stack, M = U * T."""

    stacks: tuple[tuple[Tensor, ...], ...]
    times: int

    def at(self, label: Tensor, time: Tensor) -> tuple[Modulation, ...]:
        """Modulations of rows, one a stack.

        Args:
            label: (B,) long, which of the U labels a sequence has.
            time: (R,) or (1,) long, which of the T times a row has; one for all rows.
        """
        row = label[:, None] * self.times + time
        return tuple(Modulation(blocks, row) for blocks in self.stacks)


class VelocityModel(nn.Module, Saved):
    """Latents and a class to velocities, block by block."""

    config_class: ClassVar[type] = VelocityConfig

    def __init__(self, config: VelocityConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule: Schedule = make_schedule(config.order, config.grid)
        width = config.width
        self.labels = nn.Embedding(config.classes + 1, width)
        self.time = TimeEmbedding(config.time_channels, width)
        sources = (config.channels, *(width for _ in config.stacks[1:]))
        self.stacks = nn.ModuleList(
            Stack(stack, source, self.schedule.slots, norm_entry=i == 0)
            for i, (stack, source) in enumerate(zip(config.stacks, sources))
        )
        self.out = nn.Linear(width, config.channels)
        nn.init.normal_(self.labels.weight, std=0.02)

    @property
    def no_label(self) -> int:
        """The label of unconditional pictures."""
        return self.config.classes

    # -- training ------------------------------------------------------------------------------

    def loss(self, latents: Tensor, labels: Tensor, draws: FlowDraws) -> Tensor:
        """Mean squared error of the velocities, all blocks in one pass.

        Args:
            latents: (B, N, C), in slot order.
            labels: (B,) long.
            draws: the random numbers.
        """
        noised = self.add_noise(latents, draws)
        labels = labels.where(draws.drop >= self.config.label_drop, self.no_label)
        return F.mse_loss(self(noised, labels), noised.velocity)

    def add_noise(self, latents: Tensor, draws: FlowDraws) -> Noised:
        """Move latents (B, N, C) in slot order towards noise, each block to its own time."""
        return add_noise(latents, draws, self.schedule.block_of_slot.to(latents.device))

    def forward(self, noised: Noised, labels: Tensor) -> Tensor:
        """Velocities (B, N, C) of noised pictures; earlier noisy blocks are the context.

        Args:
            noised: of `add_noise`.
            labels: (B,) long, `no_label` where there is none.
        """
        plan = compile_plan(self.schedule, "self", noisy_context=True)
        rows = self.rows(plan, torch.arange(plan.rows), noised.latents)
        conditions = self.conditions(labels, noised.time)
        label = torch.arange(len(labels), device=labels.device)
        time = self.schedule.block_of_slot.to(labels.device)
        return self.run(rows, conditions.at(label, time))

    # -- network -------------------------------------------------------------------------------

    def conditions(self, labels: Tensor, times: Tensor) -> Conditions:
        """Compute adaLN for labels (U,) at times (U, T), or (T,) for all of them alike."""
        level = time_level(times, self.config.time_levels, self.config.whole_times)
        told = self.labels(labels)[:, None] + self.time(level)  # (U, T, W)
        stacks = tuple(stack.backbone.modulations(told.flatten(0, 1)) for stack in self.stacks)
        return Conditions(stacks, times.shape[-1])

    def rows(self, plan: Plan, chosen: Tensor, latents: Tensor) -> LatentRows:
        """Some rows of a plan.

        Args:
            plan: of this model's schedule.
            chosen: (R,) long, which rows.
            latents: (B, R, C), what they carry.
        """
        device = latents.device
        return LatentRows(
            x=latents,
            coords=plan.coords[chosen][None].to(device),
            block=plan.block[chosen].to(device),
            lane=plan.lane[chosen].to(device),
            valid=torch.ones(latents.shape[:2], dtype=torch.bool, device=device),
            slot=plan.source[chosen].to(device),
        )

    def run(
        self,
        rows: LatentRows,
        modulations: tuple[Modulation, ...],
        caches: tuple[KVCache, ...] | None = None,
    ) -> Tensor:
        """Velocities (B, R, C) of the rows; with caches, lane-0 rows are kept in them.

        Kept rows must come first among the rows that are fed.
        """
        each = caches or (None,) * len(self.stacks)
        mask = row_mask(rows, each[0])
        x = rows.x
        for stack, modulation, cache in zip(self.stacks, modulations, each):
            pairs = stack.backbone.config.head_dim // 4
            rope = rope_table(rows.coords, (0, pairs, pairs), self.config.rope_base)
            x = stack(x, rows.slot)
            x = stack.norm(stack.backbone(x, rope, mask, cache, modulation))
        kept = int((rows.lane == 0).sum())
        for cache in caches or ():
            cache.keep(rows.block[:kept], rows.valid[:, :kept])
        out: Tensor = self.out(x)
        return out

    def new_caches(self, batch: int, capacity: int) -> tuple[KVCache, ...]:
        """Empty caches of `capacity` rows, one a stack."""
        return tuple(stack.backbone.new_cache(batch, capacity) for stack in self.stacks)


class Stack(nn.Module):
    """A backbone with its entry and its last norm."""

    def __init__(
        self, config: BackboneConfig, source: int, slots: int, *, norm_entry: bool
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(source, config.width)
        self.places = nn.Parameter(0.02 * torch.randn(slots, config.width))
        self.entry_norm = make_norm(config) if norm_entry else nn.Identity()
        self.backbone = Backbone(config)
        self.norm = make_norm(config)

    def forward(self, x: Tensor, slot: Tensor) -> Tensor:
        """(B, R, source) at slots (R,) to the rows (B, R, W) that the backbone is fed."""
        out: Tensor = self.entry_norm(self.enter(x) + self.places[slot])
        return out


class TimeEmbedding(nn.Module):
    """A time as cosines and sines of falling frequency, through an MLP."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        """(...) float32 to (..., W)."""
        half = self.channels // 2
        step = torch.arange(half, dtype=torch.float32, device=level.device) / half
        angle = level[..., None] * torch.exp(-math.log(10000) * step)
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1)
        out: Tensor = self.mlp(waves.to(self.mlp[0].weight.dtype))
        return out
