"""One transformer over text and pictures: segments become rows, hidden states become tokens.

A sequence is any number of texts and pictures. A text is `<bos> tokens`; a picture is a marker that
names its unit (the schedule by which it is predicted), the rows of that schedule's plan, and, where
something follows, an end marker. Text tokens and markers stand at (p, p, p) and move p on by one, a
picture stands at p + (t, y, x) and moves p on by the longest side of the grid.

A picture is made of codes, with a categorical head, or of latents, with a velocity
(`models/latent_side.py`).

Training is one pass over whole sequences, a loss for each kind of target. Decoding
(`sample/engine.py`) feeds the same rows, made by the same methods, block by block.

Shapes: B batch, R rows, N slots of a picture, W width, K codes, C channels of a code's vector or of
a latent.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.models.backbone import Backbone, make_norm
from mmgen.models.cache import KVCache
from mmgen.models.flow import NO_LOGITS, Noised
from mmgen.models.heads import CategoricalHead, CodeTable, resolve_prefix
from mmgen.models.latent_side import LatentSide
from mmgen.models.moments import Conditions, Moment
from mmgen.models.plan import Input, Plan
from mmgen.models.rope import axis_pairs, rope_table
from mmgen.models.rows import Cursor, Rows, concatenate, row_mask
from mmgen.models.unified_config import END, UnifiedConfig
from mmgen.models.units import Unit, plan_for
from mmgen.saving import Saved

__all__ = ["END", "CodeTables", "UnifiedConfig", "UnifiedModel", "Unit", "plan_for"]


class CodeTables(NamedTuple):
    """What every code looks like: `embedding` (K, W) on entry, `logit` (K, E) at the head."""

    embedding: Tensor
    logit: Tensor


class UnifiedModel(nn.Module, Saved):
    """Text and visual tokens in one sequence and one backbone.

    `latents` is the visual side where the tokenizer has latents; where it has codes, their tables
    and their head lie beside it.
    """

    config_class: ClassVar[type] = UnifiedConfig
    code_vectors: Tensor

    def __init__(self, config: UnifiedConfig) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.width
        self.backbone = Backbone(config.backbone)
        self.text_embedding = nn.Embedding(config.text_vocab, width)
        self.text_norm = make_norm(config.backbone)
        self.text_bias = nn.Parameter(torch.zeros(config.text_vocab))
        self.latents: LatentSide | None = None
        if config.continuous:
            self.latents = LatentSide(config)
        else:
            codes = config.codebook_size, config.code_channels
            self.register_buffer("code_vectors", torch.zeros(codes))  # set_code_vectors fills it
            self.code_embedding = CodeTable(codes[0], codes[1], width, scale=0.5)
        self.marker_names = config.markers
        self.markers = nn.Embedding(len(self.marker_names), width)
        if not config.continuous:
            self.starts = nn.Embedding(config.learned_starts(), width)
            self.mask_token = nn.Parameter(torch.randn(width) * 0.5)
        self.places = nn.ModuleList(nn.Embedding(size, width) for size in config.grid)
        if not config.continuous:
            self.head = CategoricalHead(
                config.backbone, config.directions(), codes[0], codes[1], config.logit_width
            )
        starts = () if config.continuous else (self.starts,)
        for table in (self.text_embedding, self.markers, *starts, *self.places):
            nn.init.normal_(table.weight, std=0.5)

    @torch.no_grad()
    def set_code_vectors(self, vectors: Tensor) -> None:
        """Take the visual tokenizer's embedding of every code, (K, C), scaled to unit variance."""
        self.code_vectors.copy_(vectors / vectors.std().clamp(min=1e-6))

    # -- training ------------------------------------------------------------------------------

    def text_to_image_loss(
        self,
        ids: Tensor,
        valid: Tensor,
        codes: Tensor,
        plan: Plan,
        unit: str,
        shown: Tensor | None = None,
        given: int = 0,
    ) -> Tensor:
        """Mean cross-entropy of the codes of a picture behind its caption; see `image_logits`.

        `shown`, (B, N) long, stands on the rows instead of the right codes. The first `given` slots
        are seen and not asked for, as in `decode`.
        """
        seen = codes if shown is None else shown
        logits = self.image_logits(ids, valid, seen, plan, unit)
        return F.cross_entropy(logits[:, given:].flatten(0, 1), codes[:, given:].flatten())

    def image_logits(
        self, ids: Tensor, valid: Tensor, codes: Tensor, plan: Plan, unit: str
    ) -> Tensor:
        """What is said about the codes of a picture behind its caption, (B, N, K) in slot order.

        Args:
            ids: (B, T) caption, `valid` (B, T) likewise bool.
            codes: (B, N) long, in slot order: what stands on the rows.
            plan: the schedule, compiled.
            unit: name of the unit that the marker says.
        """
        if self.latents:
            raise ConfigError(NO_LOGITS)
        cursor, tables = self.begin(len(ids)), self.tables()
        text = self.text_rows(ids, valid, cursor)
        marker = self.marker_rows(unit, cursor)
        image = self.image_rows(plan, torch.arange(plan.rows), codes, unit, cursor, tables)
        hidden = self.run(concatenate([text, marker, image]))
        reads = resolve_prefix(plan.reads, len(text) + 1).to(hidden.device)
        return self.head.logits(self.head.queries(hidden, plan.heads, reads), tables.logit)

    def image_velocities(
        self, ids: Tensor, valid: Tensor, latents: Tensor, noised: Noised, plan: Plan, unit: str
    ) -> Tensor:
        """Velocities (B, N, C) of a noised picture behind its caption, in slot order.

        Args:
            ids: (B, T) caption, `valid` (B, T) likewise bool.
            latents: (B, N, C), in slot order: the context, where the plan has clean rows.
            noised: the same with noise.
            plan: the schedule, compiled, with noisy context (one pass trains all blocks on the
                noisy ones before) or with clean context beside the noisy rows (teacher forcing).
            unit: name of the unit that the marker says.
        """
        assert self.latents is not None
        cursor = self.begin(len(ids))
        before = [self.text_rows(ids, valid, cursor), self.marker_rows(unit, cursor)]
        assert cursor.condition is not None  # which the text has set
        moment = self.latents.moment(self.backbone, cursor.condition, noised.time)
        clean = (plan.input == Input.SLOT) & (plan.block < plan.steps)  # nobody sees the last block
        for chosen, values in ((clean, latents), (plan.input == Input.NOISE, noised.latents)):
            rows = chosen.nonzero().squeeze(1)
            if not len(rows):  # noisy context, or a single block
                continue
            before.append(self.image_rows(plan, rows, values, unit, cursor, moment))
        hidden = self.run(concatenate(before))
        return self.latents.velocities(hidden[:, -latents.shape[1] :])  # noisy rows, by slot

    def image_to_text_loss(
        self, codes: Tensor, plan: Plan, unit: str, ids: Tensor, valid: Tensor
    ) -> Tensor:
        """Mean cross-entropy of a caption behind its picture; see `caption_logits`."""
        logits = self.caption_logits(codes, plan, unit, ids, valid)
        return F.cross_entropy(logits[valid[:, 1:]], ids[:, 1:][valid[:, 1:]])

    def caption_logits(
        self, codes: Tensor, plan: Plan, unit: str, ids: Tensor, valid: Tensor
    ) -> Tensor:
        """What is said about every id of a caption but the first, (B, T - 1, V).

        Args:
            codes: (B, N) long, or latents (B, N, C), in slot order, with its `plan` and `unit`.
            ids: (B, T) `<bos> tokens <eos>`, `valid` (B, T) likewise bool.
        """
        cursor = self.begin(len(ids))
        image = self.seen_image_rows(plan, codes, unit, cursor, self.tables())
        text = self.text_rows(ids[:, :-1], valid[:, :-1], cursor)
        hidden = self.run(concatenate([image, text]))
        return self.text_logits(hidden[:, len(image) :])

    # -- rows ----------------------------------------------------------------------------------

    def begin(self, batch: int) -> Cursor:
        """A cursor at the beginning of `batch` sequences."""
        position = torch.zeros(batch, device=self.text_bias.device)
        if self.latents is None:
            return Cursor(position)
        told = self.latents.text_told(self.backbone)
        return Cursor(
            position,
            told=told,
            condition=self.text_bias.new_zeros(batch, self.config.backbone.width),
        )

    def text_rows(self, ids: Tensor, valid: Tensor, cursor: Cursor) -> Rows:
        """Rows of a text, each a block of its own (causal); moves the cursor behind it.

        Args:
            ids: (B, T), `valid` (B, T): padding takes no position.
            cursor: where the text begins.
        """
        x = self.text_embedding(ids)
        if self.latents:
            cursor.condition = self.latents.summary(ids, valid, x)
        return self._causal_rows(x, valid, cursor)

    def marker_rows(self, name: str, cursor: Cursor) -> Rows:
        """The row that opens a picture of unit `name`, or ends one (`END`)."""
        ids = torch.full((len(cursor.position), 1), self.marker_names.index(name))
        ids = ids.to(cursor.position.device)
        return self._causal_rows(self.markers(ids), torch.ones_like(ids).bool(), cursor)

    def _causal_rows(self, x: Tensor, valid: Tensor, cursor: Cursor) -> Rows:
        steps = valid.long().cumsum(1) - 1
        position = cursor.position[:, None] + steps.clamp(min=0)
        block = cursor.block + torch.arange(x.shape[1], device=x.device)
        cursor.position = cursor.position + valid.sum(1)
        cursor.block += x.shape[1]
        return Rows(
            x=x,
            coords=position[..., None].expand(-1, -1, 3),
            block=block,
            lane=torch.zeros_like(block),
            valid=valid,
            told=cursor.told,
        )

    def image_rows(
        self,
        plan: Plan,
        chosen: Tensor,
        codes: Tensor,
        unit: str,
        cursor: Cursor,
        tables: CodeTables | Moment,
    ) -> Rows:
        """Some rows of a plan.

        Args:
            plan: the schedule, compiled.
            chosen: (r,) long, which rows.
            codes: (B, N) long in slot order, or latents (B, N, C); only the slots that `chosen`
                rows hold are looked at.
            unit: the unit that the picture's marker says.
            cursor: where the picture begins; it is not moved (see `close_image`).
            tables: of `tables()`; for noisy latents, the moment that they are at.
        """
        device, batch = codes.device, len(codes)
        chosen, told = chosen.cpu(), None
        if self.latents and isinstance(tables, Moment):
            x = self.latents.rows(plan, chosen, codes, tables)
            told = self.latents.told(plan, chosen, tables)
        else:
            assert isinstance(tables, CodeTables)
            x = self._code_rows(plan, chosen, codes, tables)
        coords = plan.coords[chosen].to(device)
        x = x + self._place(coords) + self.markers.weight[self.marker_names.index(unit)]
        return Rows(
            x=x,
            coords=cursor.position[:, None, None] + coords,
            block=(cursor.block + plan.block[chosen]).to(device),
            lane=plan.lane[chosen].to(device),
            valid=torch.ones(batch, len(chosen), dtype=torch.bool, device=device),
            told=told,
        )

    def _code_rows(self, plan: Plan, chosen: Tensor, codes: Tensor, tables: CodeTables) -> Tensor:
        """Rows (B, r, W) without their places."""
        device, batch = codes.device, len(codes)
        kind, source = plan.input[chosen], plan.source[chosen]
        x = tables.embedding.new_empty(batch, len(chosen), self.config.backbone.width)
        slots, starts, masks = ((kind == k).nonzero().squeeze(1) for k in _DISCRETE)
        if len(slots):
            x[:, slots] = F.embedding(codes[:, source[slots].to(device)], tables.embedding)
        if len(starts):
            x[:, starts] = self.starts(source[starts].to(device))
        if len(masks):
            x[:, masks] = self.mask_token
        return x

    def seen_image_rows(
        self, plan: Plan, codes: Tensor, unit: str, cursor: Cursor, tables: CodeTables | Moment
    ) -> Rows:
        """A finished picture as context: marker, its lane-0 rows, end marker; moves the cursor."""
        marker = self.marker_rows(unit, cursor)
        context = (plan.lane == 0).nonzero().squeeze(1)
        image = self.image_rows(plan, context, codes, unit, cursor, tables)
        self.close_image(plan, cursor)
        return concatenate([marker, image, self.marker_rows(END, cursor)])

    def close_image(self, plan: Plan, cursor: Cursor) -> None:
        """Move the cursor behind a picture."""
        cursor.position = cursor.position + max(plan.schedule.grid)
        cursor.block += int(plan.block.max()) + 1

    def tables(self) -> Any:
        """Vectors of all codes, computed once for a pass or a generation.

        Where there are none: the moment of decided latents that no text stands before.
        """
        if self.latents:
            nothing = self.text_bias.new_zeros(1, self.config.backbone.width)
            return self.latents.moment(self.backbone, nothing, nothing[:, :0].float())
        vectors = self.code_vectors
        return CodeTables(self.code_embedding(vectors), self.head.table(vectors))

    def _place(self, coords: Tensor) -> Tensor:
        # Beyond the trained grid the last learned place serves; rotary positions go on.
        places = coords.long()
        tables = (
            table(places[:, axis].clamp(max=self.config.grid[axis] - 1))
            for axis, table in enumerate(self.places)
        )
        return torch.stack(list(tables)).sum(0)  # (r, W)

    # -- network -------------------------------------------------------------------------------

    def run(self, rows: Rows, cache: KVCache | None = None) -> Tensor:
        """Hidden states (B, R, W) of the rows; with a cache, lane-0 rows are kept in it.

        Kept rows must come first among the rows that are fed.
        """
        pairs = axis_pairs(self.config.backbone.head_dim)
        rope = rope_table(rows.coords, pairs, self.config.rope_base)
        told = rows.told.blocks if rows.told else None
        hidden: Tensor = self.backbone(rows.x, rope, row_mask(rows, cache), cache, told)
        if cache is not None:
            kept = int((rows.lane == 0).sum())
            cache.keep(rows.block[:kept], rows.valid[:, :kept])
        return hidden

    def queries(self, hidden: Tensor, heads: tuple[str, ...], reads: Tensor) -> Tensor:
        """What the heads say about each slot, (B, S, E); see `CategoricalHead.queries`.

        Of latents it is their velocity, (B, S, C).
        """
        if self.latents:
            return self.latents.velocities(hidden[:, reads[0]])
        return self.head.queries(hidden, heads, reads)

    def logits(self, queries: Tensor, tables: CodeTables) -> Tensor:
        """(B, S, E) of any float type to (B, S, K) float32.

        Raises:
            ConfigError: latents have no logits.
        """
        if self.latents:
            raise ConfigError(NO_LOGITS)
        return self.head.logits(queries.to(tables.logit.dtype), tables.logit)

    def conditions(self, summaries: Tensor, times: Tensor) -> Conditions:
        """Compute adaLN for texts (U, W) at times (U, T), or (T,) for all of them alike."""
        assert self.latents is not None
        return self.latents.conditions(self.backbone, summaries, times)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache of `capacity` rows."""
        return self.backbone.new_cache(batch, capacity)

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (B, R, W) to logits (B, R, V) float32; the embedding is tied."""
        return F.linear(
            self.text_norm(hidden) * self.config.backbone.width**-0.5,
            self.text_embedding.weight,
            self.text_bias,
        ).float()


_DISCRETE = (Input.SLOT, Input.START, Input.MASK)
