"""A picture or a clip behind its condition: transformers as of LlamaGen, NAR, NBP and IBQ.

The sequence is the condition's rows (one for a class, one for each word of a caption; causal),
then the rows of a plan. Each direction of the head has its own norm and matrix and may read its own
depth of the backbone: NAR's vertical head stands one block above the horizontal one. Positions are
rotary, by the row's place in the grid, or a learned table.

`forward` is for training; decoding (`mmgen/sample/engine.py`) feeds the same rows step by step.

Shapes: B batch, T condition rows, R rows, N slots, W width, K codes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.models.adaln import AdaptiveNorm, tell
from mmgen.models.backbone import Backbone
from mmgen.models.cache import KVCache
from mmgen.models.conditional_config import ANY, ConditionalConfig, Tap
from mmgen.models.conditions import Given, make_condition
from mmgen.models.decodable import Prefix
from mmgen.models.heads import MatrixHead, ProjectedCodes, resolve_prefix
from mmgen.models.plan import NONE, Input, Plan
from mmgen.models.rope import Rope, axis_pairs, rope_table
from mmgen.models.rows import Cursor, Embedded, Rows, concatenate, row_mask
from mmgen.models.words import WordCondition
from mmgen.saving import Saved

__all__ = ["ANY", "ConditionalConfig", "ConditionalModel", "States", "Tap"]

NOWHERE = -1.0  # coordinates of a row that has no place: its rotary tables are zero
States = dict[str, Tensor]  # hidden states (B, R, W) that each direction of the head reads


class ConditionalModel(nn.Module, Saved):
    """Condition rows and visual tokens in one backbone."""

    config_class: ClassVar[type] = ConditionalConfig

    def __init__(self, config: ConditionalConfig) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.width
        self.backbone = Backbone(config.backbone)
        self.condition = make_condition(config.condition, width)
        self.code_embedding = self.make_code_embedding()
        self.places: nn.Embedding | None = None
        if config.positions in ("learned", "order"):
            t, h, w = config.grid
            in_grid = config.condition.rows + t * h * w
            self.places = nn.Embedding(config.longest or in_grid, width)
            nn.init.normal_(self.places.weight, std=0.02)
        self.depths = tuple(sorted({tap.depth for tap in config.taps}))
        self.last_norm = AdaptiveNorm(config.backbone) if config.backbone.adaln else None
        self.head = self.make_head()

    def make_code_embedding(self) -> nn.Module:
        """What ids of codes become on their way in."""
        config, width = self.config, self.config.backbone.width
        if config.code_channels:
            return ProjectedCodes(config.codebook_size, config.code_channels, width)
        table = nn.Embedding(self._vocabulary, width)
        nn.init.normal_(table.weight, std=0.02)
        return table

    def make_head(self) -> Any:
        """What turns hidden states into logits."""
        names = tuple(tap.direction for tap in self.config.taps)
        normed = self.last_norm is None
        return MatrixHead(self.config.backbone, names, self._vocabulary, normed=normed)

    @property
    def _vocabulary(self) -> int:
        ids: int = self.config.codebook_size + self.config.condition.extra_ids
        return ids

    # -- training ------------------------------------------------------------------------------

    def forward(self, condition: Given, codes: Tensor, plan: Plan) -> Tensor:
        """Logits (B, N, K) float32 of every slot, given the tokens that each one may see.

        Slots that nothing predicts, since they are always given, have logits of no meaning.

        Args:
            condition: what the weights are conditioned on.
            codes: (B, N) long, in slot order.
            plan: the schedule, compiled.
        """
        hidden = self.run(self.sequence(condition, codes, plan))
        reads = resolve_prefix(plan.reads, self.config.condition.rows).to(codes.device)
        return self.logits(self.queries(hidden, plan.heads, reads))

    def loss(
        self,
        condition: Given,
        codes: Tensor,
        plan: Plan,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy of the codes; `weight` (B,) float tells what each picture counts."""
        predicted = (plan.reads != NONE).any(0)
        logits, codes = self(condition, codes, plan)[:, predicted], codes[:, predicted]
        if weight is None:
            return F.cross_entropy(logits.flatten(0, 1), codes.flatten())
        each = F.cross_entropy(logits.transpose(1, 2), codes, reduction="none")  # (B, N)
        total = (weight.sum() * codes.shape[1]).clamp(min=1)
        return (each * weight[:, None]).sum() / total

    def sequence(self, condition: Given, codes: Tensor, plan: Plan) -> Rows:
        """All rows of a finished picture behind its condition, but those without a place."""
        prefix = self.prefix(condition)
        rows = plan.rows - (len(plan.final_rows) if self.config.positions == "order" else 0)
        chosen = torch.arange(rows)
        image = self.image_rows(plan, chosen, codes, "", prefix.cursor)
        return concatenate([prefix.rows, image])

    # -- rows ----------------------------------------------------------------------------------

    def prefix(self, condition: Given, guided: bool = False) -> Prefix:
        """The condition's rows, and with `guided` those of its null twin behind them.

        Args:
            condition: what the weights are conditioned on.

        Raises:
            ConfigError: a label or a shape that the weights were not trained on.
        """
        rows = self._embedded(condition)
        if guided:
            rows = rows.beside(self._embedded(self.condition.null(condition)))
        batch, count, _ = rows.x.shape
        block = torch.arange(count, device=rows.x.device) if rows.block is None else rows.block
        place = NOWHERE if self.config.silent_condition else 0.0
        x = rows.x if self.places is None else rows.x + self.places.weight[:count]
        last = self.last_norm
        told = tell(rows.x[:, 0], self.backbone, last) if last else None
        return Prefix(
            Rows(
                x=x,
                coords=x.new_full((1, count, 3), place, dtype=torch.float32),
                block=block,
                lane=torch.zeros_like(block),
                valid=rows.valid,
                blind=rows.blind,
                told=told,
            ),
            Cursor(torch.zeros(batch, device=x.device), count, told),
            guided,
        )

    def image_rows(
        self,
        plan: Plan,
        chosen: Tensor,
        codes: Tensor,
        unit: str,
        cursor: Cursor,
        tables: Any = None,
    ) -> Rows:
        """Some rows of a plan; see `Decodable`."""
        device, batch = codes.device, len(codes)
        x = self.code_embedding(self._ids(plan, chosen, codes))  # (B, r, W)
        if self.places is not None:
            x = x + self.places(self._place(plan, chosen).to(device))
        return Rows(
            x=x,
            coords=plan.coords[chosen].unsqueeze(0).to(device),
            block=(cursor.block + plan.block[chosen]).to(device),
            lane=plan.lane[chosen].to(device),
            valid=torch.ones(batch, len(chosen), dtype=torch.bool, device=device),
            told=cursor.told,
        )

    def codes_of(self, ids: Tensor) -> Tensor:
        """Decided ids (...) as codes: one of a start or a word stands for no code and becomes 0."""
        return torch.where(ids < self.config.codebook_size, ids, 0)

    def tables(self) -> Any:
        """None: nothing is computed once for a generation."""
        return None

    def _embedded(self, condition: Given) -> Embedded:
        shared = (self.code_embedding.weight,) if isinstance(self.condition, WordCondition) else ()
        rows: Embedded = self.condition(condition, *shared)
        return rows

    def _ids(self, plan: Plan, chosen: Tensor, codes: Tensor) -> Tensor:
        """Ids (B, r) of rows: decided tokens, or learned ones, whose ids lie behind the codes."""
        kind, source = plan.input[chosen], plan.source[chosen]
        learned = kind == Input.START
        known = self.condition.config.starts if isinstance(self.condition, WordCondition) else 0
        if ((kind != Input.SLOT) & ~(learned & (source < known))).any():
            raise ConfigError("This model lacks the learned start or mask tokens of this plan.")
        source, learned = source.to(codes.device), learned.to(codes.device)
        return torch.where(learned, self.config.codebook_size + source, codes[:, source])

    def _place(self, plan: Plan, chosen: Tensor) -> Tensor:
        """Rows (r,) of the table of learned positions."""
        before: int = self.config.condition.rows
        if self.config.positions == "order":
            places = before + plan.rows - len(plan.final_rows)  # the last block is never fed
            if places > self.config.longest:
                raise ConfigError(
                    f"These weights know {self.config.longest} places, and the sequence has "
                    f"{places}; choose a smaller grid."
                )
            return before + chosen
        if plan.schedule.grid != self.config.grid:
            raise ConfigError(
                f"These weights know places on the grid {self.config.grid} only, "
                f"not on {plan.schedule.grid}."
            )
        return before + plan.schedule.site[plan.source[chosen]]

    # -- network -------------------------------------------------------------------------------

    def run(self, rows: Rows, cache: KVCache | None = None) -> States:
        """Hidden states of the rows at the depth of each direction; see `Decodable`."""
        mask = row_mask(rows, cache)
        rope, blocks = self._rope(rows), rows.told.blocks if rows.told else None
        states = self.backbone.states(rows.x, rope, mask, cache, self.depths, blocks)
        last = rows.told.last if rows.told else None
        if self.last_norm and last is not None:
            states = tuple(self.last_norm(x, last) for x in states)
        if cache is not None:
            kept = int((rows.lane == 0).sum())
            cache.keep(rows.block[:kept], rows.valid[:, :kept])
        at = dict(zip(self.depths, states))
        return {tap.direction: at[tap.depth] for tap in self.config.taps}

    def queries(self, hidden: States, heads: tuple[str, ...], reads: Tensor) -> Tensor:
        """(B, S, directions, W); see `Decodable`."""
        if self.head.directions == (ANY,):
            heads = (ANY,) * len(heads)
        said: Tensor = self.head.queries(hidden, heads, reads)
        return said

    def logits(self, queries: Tensor, tables: Any = None) -> Tensor:
        """(B, S, directions, W) to (B, S, K) float32."""
        logits: Tensor = self.head.logits(queries)
        return logits

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache of `capacity` rows."""
        return self.backbone.new_cache(batch, capacity)

    def _rope(self, rows: Rows) -> Rope | None:
        if self.places is not None:
            return None
        size = self.config.backbone.head_dim
        pairs = axis_pairs(size) if self.config.positions == "tyx" else (0, size // 4, size // 4)
        cos, sin = rope_table(rows.coords, pairs, self.config.rope_base)
        somewhere = rows.coords[..., :1] > NOWHERE
        return cos * somewhere, sin * somewhere
