"""The decode engine: one loop for every schedule, a generator of pictures in progress.

Prefill the prefix; then, for each step of the plan, feed its rows, let the heads speak about the
slots of the step, guide, draw, write. Whether a step decides one token, a row, a diagonal or a
random set is the plan's affair. Guidance runs both branches in one batch and mixes them before the
codebook product, which is affine, so half the logits are never computed.

Shapes: B pictures, G = B or 2B sequences (conditional first, then unconditional), N slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmgen.models.plan import NONE, PREFIX, Plan
from mmgen.models.rows import Cursor, Rows, concatenate
from mmgen.models.schedule import to_grid
from mmgen.models.unified import CodeTables, UnifiedModel
from mmgen.noise import Purpose
from mmgen.sample.draw import DrawSettings, draw
from mmgen.sample.guidance import Guidance, guide

Noise = Callable[[int, Tensor, int], Tensor]  # (step, slots (n,), K) -> Gumbel noise (B, n, K)


@dataclass(frozen=True)
class DecodeSettings:
    """How tokens are drawn and how strongly the prompt pulls."""

    draw: DrawSettings = field(default_factory=DrawSettings)
    guidance: Guidance = field(default_factory=Guidance)


@dataclass
class Prefix:
    """What stands before the picture.

    Args:
        rows: G sequences, the marker of the picture last.
        cursor: where the picture begins.
        guided: the second half of the batch is the unconditional branch of the first.
    """

    rows: Rows
    cursor: Cursor
    guided: bool


@dataclass
class Step:
    """A picture in progress.

    Args:
        index: steps done so far, from 1 to `total`.
        total: steps of the whole picture.
        codes: (B, t, h, w) long; 0 where nothing is decided yet.
        done: (t, h, w) bool, which sites are decided.
        entropy: (B, n) nats, of the guided predictions of this step's n tokens, before temperature
            and filters.
    """

    index: int
    total: int
    codes: Tensor
    done: Tensor
    entropy: Tensor


def text_prefix(
    model: UnifiedModel,
    unit: str,
    ids: Tensor,
    valid: Tensor,
    negative: tuple[Tensor, Tensor] | None = None,
) -> Prefix:
    """A prompt before a picture.

    Args:
        model: whose rows these are.
        unit: what the marker says.
        ids: (B, T) prompts, `valid` (B, T) likewise.
        negative: ids and valid of the unconditional branch, of the same shapes; None: no guidance.
    """
    if negative is not None:
        ids, valid = torch.cat([ids, negative[0]]), torch.cat([valid, negative[1]])
    cursor = model.begin(len(ids))
    text = model.text_rows(ids, valid, cursor)
    marker = model.marker_rows(unit, cursor)
    return Prefix(concatenate([text, marker]), cursor, negative is not None)


@torch.inference_mode()
def decode(
    model: UnifiedModel,
    prefix: Prefix,
    plan: Plan,
    unit: str,
    seeds: Tensor,
    settings: DecodeSettings | None = None,
    *,
    noise: Noise | None = None,
    segment: int = 0,
) -> Iterator[Step]:
    """Draw the pictures of a batch, step by step (design section 6).

    Args:
        model: in evaluation mode.
        prefix: of `text_prefix`; G = 2B if it is guided.
        plan: the schedule, compiled.
        unit: what the prefix's marker says.
        seeds: (B,) int64, the seed of each picture.
        settings: temperature, filters, guidance.
        noise: Gumbel noise to use instead of the counter-based one, for reference runs.
        segment: which picture of the sequence this is; part of the noise counter.

    Yields:
        A `Step` after every block.
    """
    settings = settings or DecodeSettings()
    batch, slots = len(seeds), plan.schedule.slots
    codes = torch.zeros(batch, slots, dtype=torch.long, device=prefix.rows.x.device)
    known = torch.zeros(slots, dtype=torch.bool)
    session = _Session(model, prefix, plan, unit)
    for step in range(plan.steps):
        now = plan.slots_of_step(step)
        queries = session.feed(step, codes)
        queries = _guided(queries, prefix.guided, settings.guidance, step, plan, int(known.sum()))
        table = session.tables.logit
        logits = model.head.logits(queries.to(table.dtype), table)  # (B, n, K)
        codes[:, now] = draw(
            logits,
            seeds,
            now,
            settings.draw,
            noise=noise(step, now, logits.shape[-1]) if noise else None,
            purpose=Purpose.TOKEN,
            segment=segment,
        )
        known[now] = True
        yield Step(
            index=step + 1,
            total=plan.steps,
            codes=to_grid(plan.schedule, codes.where(known.to(codes.device), 0)),
            done=to_grid(plan.schedule, known[None])[0],
            entropy=_entropy(logits),
        )


def last_step(steps: Iterator[Step]) -> Step:
    """Run a decoding to its end."""
    step = None
    for step in steps:  # noqa: B007 - only the last one matters
        pass
    assert step is not None
    return step


class _Session:
    """The cache and the tables of one decoding."""

    def __init__(self, model: UnifiedModel, prefix: Prefix, plan: Plan, unit: str) -> None:
        self.model, self.prefix, self.plan, self.unit = model, prefix, plan, unit
        self.tables: CodeTables = model.tables()
        queries = int(torch.bincount(plan.block[plan.lane == 1]).max()) if plan.lane.any() else 0
        capacity = len(prefix.rows) + int(plan.keep.sum()) + queries
        self.cache = model.backbone.new_cache(len(prefix.rows.x), capacity)

    def feed(self, step: int, codes: Tensor) -> Tensor:
        """Feed the rows of a step; returns what the heads say about its slots, (G, n, E)."""
        chosen = self.plan.rows_for_step(step)
        parts = [self.prefix.rows] if step == 0 else []
        if len(chosen):
            if self.prefix.guided:
                codes = torch.cat([codes, codes])
            cursor = self.prefix.cursor
            parts.append(
                self.model.image_rows(self.plan, chosen, codes, self.unit, cursor, self.tables)
            )
        hidden = self.model.run(concatenate(parts), self.cache)
        reads = self._fed_reads(step, chosen, hidden.shape[1] - len(chosen))
        return self.model.head.queries(hidden, self.plan.heads, reads.to(hidden.device))

    def _fed_reads(self, step: int, chosen: Tensor, offset: int) -> Tensor:
        """Reads of the step's slots as places among the rows just fed, (heads, n)."""
        place = torch.full((self.plan.rows,), NONE)
        place[chosen] = offset + torch.arange(len(chosen))
        reads = self.plan.reads[:, self.plan.slots_of_step(step)]
        fed = torch.where(reads >= 0, place[reads.clamp(min=0)], reads)
        return torch.where(reads == PREFIX, offset - 1, fed)


def _guided(
    queries: Tensor, guided: bool, guidance: Guidance, step: int, plan: Plan, done: int
) -> Tensor:
    if not guided:
        return queries
    conditional, unconditional = queries.chunk(2)
    scale = guidance.scale_at(step, plan.steps, done, plan.schedule.slots)
    return guide(conditional, unconditional, scale)


def _entropy(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
