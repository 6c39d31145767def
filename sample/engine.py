"""The decode engine: one loop for every schedule, a generator of pictures in progress.

Prefill the prefix; then, for each step of the plan, feed its rows, let the heads speak about the
slots of the step, decide, write. Whether a step decides one token, a row, a diagonal or a random
set is the plan's affair; how it decides is the decider's (`sample/deciding.py`).

Shapes: B pictures, G = B or 2B sequences (conditional first, then unconditional), N slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.decodable import Decodable, Prefix
from mmgen.models.plan import NONE, PREFIX, Plan
from mmgen.models.rows import concatenate
from mmgen.models.schedule import grid_so_far, to_grid
from mmgen.models.unified import UnifiedModel
from mmgen.sample.deciding import CategoricalDecider, Decider, Noise, Turn
from mmgen.sample.draw import DrawSettings
from mmgen.sample.guidance import Guidance

__all__ = ["DecodeSettings", "Prefix", "Step", "decode", "last_step", "text_prefix"]


@dataclass(frozen=True)
class DecodeSettings:
    """How tokens are drawn and how strongly the prompt pulls."""

    draw: DrawSettings = field(default_factory=DrawSettings)
    guidance: Guidance = field(default_factory=Guidance)


@dataclass
class Step:
    """A picture in progress.

    Args:
        index: steps done so far, from 1 to `total`; of latents, every step of the solver counts.
        total: steps of the whole picture.
        codes: (B, t, h, w) long, or latents (B, t, h, w, C); 0 where nothing has begun. A coarse
            level of `scale` is spread over the grid.
        done: (t, h, w) bool, which sites are decided.
        begun: (t, h, w) bool, those and the ones that a solver is at.
        logits: (B, n, K) guided, before temperature and filters, of this step's n tokens; None
            where the head has none.
    """

    index: int
    total: int
    codes: Tensor
    done: Tensor
    begun: Tensor
    logits: Tensor | None = None

    @cached_property
    def frames(self) -> int:
        """Latent frames at the beginning that are wholly decided."""
        return int(self.done.flatten(1).all(1).long().cumprod(0).sum())

    @cached_property
    def entropy(self) -> Tensor:
        """(B, n) nats, of the predictions of this step's n tokens."""
        assert self.logits is not None
        log_p = self.logits.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


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
    model: Decodable,
    prefix: Prefix,
    plan: Plan,
    unit: str,
    seeds: Tensor,
    settings: DecodeSettings | None = None,
    *,
    noise: Noise | None = None,
    segment: int = 0,
    decider: Decider | None = None,
    given: Tensor | None = None,
) -> Iterator[Step]:
    """Draw the pictures of a batch, step by step (design section 6).

    Args:
        model: in evaluation mode.
        prefix: of `text_prefix` or the model's own `prefix`; G = 2B if it is guided.
        plan: the schedule, compiled.
        unit: what the prefix's marker says.
        seeds: (B,) int64, the seed of each picture.
        settings: temperature, filters, guidance.
        noise: Gumbel noise to use instead of the counter-based one, for reference runs.
        segment: which picture of the sequence this is; part of the noise counter.
        decider: how slots get their values (default: one draw from the model's logits).
        given: values (B, g) of the first g slots, such as the first frames of a clip; they are
            decided already.

    Yields:
        A `Step` after every block, and after every step of a solver inside a block.
    """
    settings = settings or DecodeSettings()
    own_guidance = decider is not None
    decider = decider or CategoricalDecider(model, seeds, settings.draw, noise, segment)
    values = decider.blank(len(seeds), plan.schedule.slots, prefix.rows.x.device)
    done = 0 if given is None else given.shape[1]
    first = _first_step(plan, done)
    if given is not None:
        values[:, :done] = given
    session = _Session(model, prefix, plan, unit, first)
    moves = [decider.moves(step, plan.steps) for step in range(plan.steps)]
    index, total = 0, sum(moves[first:])
    for step in range(first, plan.steps):
        slots = plan.slots_of_step(step)
        place = (step, plan.steps, done, plan.schedule.slots)
        if not own_guidance and settings.guidance.is_over(*place):
            session.end_guidance()
        scale = settings.guidance.scale_at(*place) if session.guided else None
        turn = Turn(step, slots, values, scale, place, session.tables, session.feed)
        begun = done + len(slots)
        for move, decided in enumerate(decider.decide(turn), start=1):
            values[:, slots] = decided.values
            codes, shown = grid_so_far(plan.schedule, values, begun)
            done = begun if move == moves[step] else done
            known = torch.arange(plan.schedule.slots) < done
            index += 1
            yield Step(
                index=index,
                total=total,
                codes=codes,
                done=to_grid(plan.schedule, known[None])[0],
                begun=shown,
                logits=decided.logits,
            )


def _first_step(plan: Plan, given: int) -> int:
    """The step that decides the first slot that is not given.

    Raises:
        ConfigError: a block is given in part, or nothing predicts the slots of that step.
    """
    ends = [0, *accumulate(plan.sizes)]
    if given not in ends[:-1]:
        raise ConfigError(
            f"{given} tokens of {ends[-1]} are given; give whole blocks and leave one to draw."
        )
    first = ends.index(given)
    if (plan.reads[:, plan.slots_of_step(first)] == NONE).all():
        raise ConfigError("These weights go on from what is given; give the first frames.")
    return first


def last_step(steps: Iterator[Step]) -> Step:
    """Run a decoding to its end."""
    step = None
    for step in steps:  # noqa: B007 - only the last one matters
        pass
    assert step is not None
    return step


class _Session:
    """The cache and the tables of one decoding."""

    def __init__(self, model: Decodable, prefix: Prefix, plan: Plan, unit: str, first: int) -> None:
        self.model, self.prefix, self.plan, self.unit = model, prefix, plan, unit
        self.guided, self.cursor = prefix.guided, prefix.cursor
        self.first = first  # the step that also feeds the prefix and what is given
        self.tables = model.tables()
        queries = int(torch.bincount(plan.block[plan.lane == 1]).max()) if plan.lane.any() else 0
        capacity = len(prefix.rows) + int(plan.keep.sum()) + queries
        self.cache = model.new_cache(len(prefix.rows.x), capacity)
        self.visited = -1  # the last step that was fed: its context is in the cache
        self.early: tuple[Tensor, Any] | None = None  # rows that later steps read, their states

    def end_guidance(self) -> None:
        """Feed the conditional branch alone from now on; adaLN speaks to both, so it keeps both."""
        fed = self.visited >= 0  # the prefix is in the cache, and with it both branches
        if self.guided and fed and self.cursor.told is None:
            batch = len(self.prefix.rows.x) // 2
            self.guided, self.cache = False, self.cache.first(batch)
            if self.early is not None:
                self.early = self.early[0], _each(lambda state: state[:batch], self.early[1])
            self.cursor = replace(self.cursor, position=self.cursor.position[:batch])

    def feed(self, step: int, values: Tensor, tables: Any) -> Tensor:
        """Feed the rows of a step; returns what the heads say about its slots, (G, n, ...)."""
        chosen = self.plan.rows_for_step(step, 0 if step == self.first else step)
        again, self.visited = step == self.visited, step
        if again:
            chosen = chosen[self.plan.lane[chosen] == 1]
        begins = step == self.first and not again and len(self.prefix.rows)
        parts = [self.prefix.rows] if begins else []
        if len(chosen):
            if self.guided:
                values = torch.cat([values, values])
            parts.append(
                self.model.image_rows(self.plan, chosen, values, self.unit, self.cursor, tables)
            )
        rows = concatenate(parts)
        hidden = self.model.run(rows, self.cache)
        offset = len(rows) - len(chosen)
        reads = self._fed_reads(step, chosen, offset)
        if self.early is not None:
            hidden = _each(lambda early, new: torch.cat([early, new], 1), self.early[1], hidden)
        elif begins and self._read_later(step, chosen):
            self.early = chosen, _each(lambda state: state[:, offset:], hidden)
        return self.model.queries(hidden, self.plan.heads, reads.to(rows.x.device))

    def _read_later(self, step: int, chosen: Tensor) -> bool:
        """Whether later steps read rows of the first one, as neighbours do of given frames."""
        later = self.plan.reads[:, sum(self.plan.sizes[: step + 1]) :]
        return bool(torch.isin(later, chosen).any())

    def _fed_reads(self, step: int, chosen: Tensor, offset: int) -> Tensor:
        """Reads of the step's slots as places among the rows just fed, (heads, n).

        Rows that were fed early and are still read stand before them.
        """
        place = torch.full((self.plan.rows,), NONE)
        if self.early is not None:
            early = self.early[0]
            place[early] = torch.arange(len(early))
            offset += len(early)
        place[chosen] = offset + torch.arange(len(chosen))
        reads = self.plan.reads[:, self.plan.slots_of_step(step)]
        fed = torch.where(reads >= 0, place[reads.clamp(min=0)], reads)
        return torch.where(reads == PREFIX, offset - 1, fed)


def _each(change: Callable[..., Tensor], *states: Any) -> Any:
    """Change hidden states, or those of every direction (`ConditionalModel`)."""
    if isinstance(states[0], dict):
        return {name: change(*(each[name] for each in states)) for name in states[0]}
    return change(*states)
