"""A transformer that predicts velocities: continuous latents, a block of the picture at a time.

The rows of a picture carry noisy or decided latents. In training one noisy sequence is target and
context at once (`compile_plan(..., noisy_context=True)`); in decoding finished blocks are context
at time 0, and the block in question is visited once a solver step (`mmgen/sample/flow.py`). Class
label and time reach the rows through adaLN alone. Stacks stand in series, each with its own learned
places, one for each slot; rotary positions are the true row and column. xAR: arXiv 2502.20388.

Shapes: B batch, R rows fed, N slots, E blocks, C channels of a latent, W width, U labels, T times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.models.backbone import Backbone, BackboneConfig, Modulation, make_norm
from mmgen.models.cache import KVCache
from mmgen.models.conditions import ClassConfig
from mmgen.models.decodable import Prefix
from mmgen.models.flow import NO_LOGITS, FlowDraws, Noised, add_noise, time_level
from mmgen.models.moments import Conditions, Moment, TimeEmbedding
from mmgen.models.plan import Plan, compile_plan
from mmgen.models.rope import Rope, rope_table
from mmgen.models.rows import Cursor, Rows, row_mask
from mmgen.models.schedule import Schedule, make_schedule
from mmgen.models.units import Unit, find_unit
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

    @property
    def condition(self) -> ClassConfig:
        """What a picture is conditioned on."""
        return ClassConfig(classes=self.classes)

    @property
    def units(self) -> tuple[Unit, ...]:
        """The one schedule; its name is the first word of the order."""
        name = self.order.split(":")[0]
        return (Unit(name, self.order, "self", continuous=True),)

    def unit(self, name: str) -> Unit:
        """The unit of that name.

        Raises:
            ConfigError: the weights were not trained on it.
        """
        return find_unit(self.units, name)


@dataclass(kw_only=True)
class LatentRows(Rows):
    """Rows of latents; `x` (B, R, C) are the latents themselves.

    Args:
        slot: (R,) long, the slot of each row.
        modulations: what adaLN does to the rows, one a stack.
    """

    slot: Tensor
    modulations: tuple[Modulation, ...]


class VelocityModel(nn.Module, Saved):
    """Latents and a class to velocities, block by block."""

    config_class: ClassVar[type] = VelocityConfig
    config: VelocityConfig

    def __init__(self, config: VelocityConfig) -> None:
        super().__init__()
        self.config = config
        with torch.device("cpu"):  # whatever device the weights are made on, meta too
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
        label = torch.arange(len(labels), device=labels.device)
        time = torch.arange(self.schedule.blocks, device=labels.device)
        moment = Moment(self.conditions(labels, noised.time), label, time)
        latents = noised.latents
        chosen, cursor = torch.arange(plan.rows), self.prefix(labels).cursor
        return self.run(self.image_rows(plan, chosen, latents, "", cursor, moment))

    # -- rows ----------------------------------------------------------------------------------

    def prefix(self, labels: Tensor, guided: bool = False) -> Prefix:
        """Nothing stands before the picture: the labels (B,) speak through adaLN alone."""
        labels = torch.cat([labels, torch.full_like(labels, self.no_label)]) if guided else labels
        batch = len(labels)
        none = torch.zeros(0, dtype=torch.long, device=labels.device)
        rows = Rows(
            x=self.out.weight.new_zeros(batch, 0, self.config.channels),
            coords=torch.zeros(1, 0, 3, device=labels.device),
            block=none,
            lane=none,
            valid=torch.zeros(batch, 0, dtype=torch.bool, device=labels.device),
        )
        cursor = Cursor(torch.zeros(batch, device=labels.device), condition=labels)
        return Prefix(rows, cursor, guided)

    def image_rows(
        self,
        plan: Plan,
        chosen: Tensor,
        codes: Tensor,
        unit: str,
        cursor: Cursor,
        tables: Moment | None,
    ) -> LatentRows:
        """Some rows of a plan; see `Decodable`. `tables` tells their labels and times."""
        if tables is None:
            raise ConfigError(NO_LOGITS)
        device = codes.device
        slot, block = plan.source[chosen], plan.block[chosen]
        row = tables.rows(plan, chosen)
        return LatentRows(
            x=codes[:, slot.to(device)],
            coords=plan.coords[chosen][None].to(device),
            block=(cursor.block + block).to(device),
            lane=plan.lane[chosen].to(device),
            valid=torch.ones(len(codes), len(chosen), dtype=torch.bool, device=device),
            slot=slot.to(device),
            modulations=tuple(Modulation(blocks, row) for blocks in tables.conditions.stacks),
        )

    def conditions(self, labels: Tensor, times: Tensor) -> Conditions:
        """Compute adaLN for labels (U,) at times (U, T), or (T,) for all of them alike."""
        level = time_level(times, self.config.time_levels, self.config.whole_times)
        told = self.labels(labels)[:, None] + self.time(level)  # (U, T, W)
        stacks = tuple(stack.backbone.modulations(told.flatten(0, 1)) for stack in self._series)
        return Conditions(stacks, times.shape[-1])

    def tables(self) -> None:
        """Nothing is the same for all visits of a generation but what `conditions` computes."""

    # -- network -------------------------------------------------------------------------------

    def run(self, rows: Rows, cache: tuple[KVCache, ...] | None = None) -> Tensor:
        """Velocities (B, R, C) of the rows of `image_rows`; see `Decodable`."""
        assert isinstance(rows, LatentRows)
        each = cache or (None,) * len(self.stacks)
        mask = row_mask(rows, each[0])
        x = rows.x.to(self.out.weight.dtype)
        for stack, modulation, kept in zip(self._series, rows.modulations, each):
            pairs = stack.backbone.config.head_dim // 4
            rope = rope_table(rows.coords, (0, pairs, pairs), self.config.rope_base)
            x = stack(x, rows.slot, rope, mask, kept, modulation)
        context = int((rows.lane == 0).sum())
        for kept in cache or ():
            kept.keep(rows.block[:context], rows.valid[:, :context])
        out: Tensor = self.out(x)
        return out

    def queries(self, hidden: Tensor, heads: tuple[str, ...], reads: Tensor) -> Tensor:
        """Velocities (B, n, C) of slots, given those of rows; see `Decodable`."""
        return hidden[:, reads[0]]

    def logits(self, queries: Tensor, tables: None) -> Tensor:
        """Refuse: latents have no logits.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(NO_LOGITS)

    def new_cache(self, batch: int, capacity: int) -> tuple[KVCache, ...]:
        """An empty cache of `capacity` rows for each stack."""
        return tuple(stack.backbone.new_cache(batch, capacity) for stack in self._series)

    @property
    def _series(self) -> list[Stack]:
        return cast("list[Stack]", list(self.stacks))


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

    def forward(
        self,
        x: Tensor,
        slot: Tensor,
        rope: Rope,
        mask: Tensor | None,
        cache: KVCache | None,
        modulation: Modulation,
    ) -> Tensor:
        """(B, R, source) of rows at slots (R,) to (B, R, W); the rest as in `Backbone`."""
        x = self.entry_norm(self.enter(x) + self.places[slot])
        out: Tensor = self.norm(self.backbone(x, rope, mask, cache, modulation))
        return out
