"""Codes in sub-tokens: a large codebook as a few small ones, drawn one after the other.

A code of, say, 18 bits is the sub-token of its low 6 bits and that of its high 12. A code enters as
the sum of its sub-tokens' embeddings. The backbone's hidden state of a slot begins a second, small
causal sequence: hidden state, first sub-token, and so on, each of which predicts the next sub-token
through a small transformer. Open-MAGVIT2: arXiv 2409.04410. Spec: ett.md D2, C3.

Shapes: B batch, N slots, S sub-tokens, W width, K_i values of sub-token i.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.models.backbone import Backbone, BackboneConfig, make_norm
from mmgen.models.cache import KVCache
from mmgen.models.conditional import ConditionalConfig, ConditionalModel, States
from mmgen.models.conditions import Given
from mmgen.models.heads import resolve_prefix
from mmgen.models.plan import Plan
from mmgen.models.rope import Rope

SubTokens = tuple[Tensor, ...]  # sub-tokens (...) long or logits (..., K_i) float32, one each


@dataclass(frozen=True)
class FactorizedConfig(ConditionalConfig):
    """Sizes of a `FactorizedModel`.

    Args:
        bits: of each sub-token, the lowest bits of a code first.
        inner_depth: blocks of the transformer over sub-tokens; the rest of it is as `backbone`.
    """

    bits: tuple[int, ...] = (6, 12)
    inner_depth: int = 2

    def __post_init__(self) -> None:
        """Refuse bits that do not make up the codes, and more than one direction."""
        super().__post_init__()
        if min(self.bits, default=0) < 1 or 2 ** sum(self.bits) != self.codebook_size:
            raise ConfigError(
                f"bits must be 1 or more each and make up the {self.codebook_size} codes together, "
                f"not {self.bits}."
            )
        if len(self.taps) != 1 or self.backbone.adaln or self.condition.extra_ids:
            raise ConfigError(
                "Sub-tokens need one tap, no adaLN, and a condition without ids among the codes."
            )

    @property
    def inner(self) -> BackboneConfig:
        """The transformer over sub-tokens."""
        return replace(self.backbone, depth=self.inner_depth)


class FactorizedModel(ConditionalModel):
    """A `ConditionalModel` whose codes are sub-tokens.

    Everywhere outside, a code is one number; `mmgen/sample/factorized.py` draws its sub-tokens.
    """

    config_class: ClassVar[type] = FactorizedConfig
    config: FactorizedConfig
    code_embedding: SubTokenEmbedding
    head: FactorizedHead

    def make_code_embedding(self) -> SubTokenEmbedding:
        """A table for each sub-token."""
        return SubTokenEmbedding(self.config.bits, self.config.backbone.width)

    def make_head(self) -> FactorizedHead:
        """The transformer over sub-tokens, with its outputs."""
        return FactorizedHead(self.config.inner, self.config.bits)

    def forward(self, condition: Given, codes: Tensor, plan: Plan) -> SubTokens:  # type: ignore[override]
        """Logits (B, N, K_i) float32 of every sub-token, which sees those before it in its code.

        Args:
            condition, codes, plan: as in `ConditionalModel.forward`.
        """
        hidden = self.run(self.sequence(condition, codes, plan))
        reads = resolve_prefix(plan.reads, self.config.condition.rows).to(codes.device)
        context = self.queries(hidden, plan.heads, reads)  # (B, N, W)
        known = self.code_embedding.each(codes)[:-1]
        said: SubTokens = self.head(torch.stack([context, *known], dim=2))
        return said

    def loss(
        self, condition: Given, codes: Tensor, plan: Plan, weight: Tensor | None = None
    ) -> Tensor:
        """Sum of the sub-tokens' mean cross-entropies; `weight` (B,): what each picture counts."""
        count = torch.ones(len(codes), device=codes.device) if weight is None else weight
        total = (count.sum() * codes.shape[1]).clamp(min=1)
        losses = [
            F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")  # (B, N)
            for logits, targets in zip(self(condition, codes, plan), split(codes, self.config.bits))
        ]
        return (torch.stack(losses).sum(0) * count[:, None]).sum() / total

    def queries(self, hidden: States, heads: tuple[str, ...], reads: Tensor) -> Tensor:
        """Hidden states (B, n, W) of the rows that predict slots; see `Decodable`."""
        (state,) = hidden.values()
        return state[:, reads[0]]

    def logits(self, queries: Tensor, tables: Any = None) -> Tensor:
        """Refuse: a code's logits would be as many as there are codes.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("These weights predict sub-tokens; decode with a FactorizedDecider.")

    def sub_logits(self, level: int, x: Tensor, cache: KVCache) -> Tensor:
        """Feed one row of the inner sequences.

        Args:
            level: which sub-token is to be predicted, from 0 in a new cache.
            x: (G, n, W), the context, then the embedding of each drawn sub-token.
            cache: of `new_sub_cache(G * n)`.

        Returns:
            (G, n, K_level) float32.
        """
        said = self.head.next_logits(level, x.flatten(0, 1)[:, None], cache)  # (G n, K)
        return said.view(*x.shape[:2], -1)

    def new_sub_cache(self, sequences: int) -> KVCache:
        """An empty cache of inner sequences."""
        return self.head.backbone.new_cache(sequences, len(self.config.bits))


class FactorizedHead(nn.Module):
    """A small causal transformer over the sub-tokens of one code, and a matrix for each.

    Args:
        config: of the transformer.
        bits: of each sub-token.
    """

    def __init__(self, config: BackboneConfig, bits: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.norm = make_norm(config)
        self.outs = nn.ModuleList(nn.Linear(config.width, 2**b, bias=False) for b in bits)
        for out in self.outs:
            nn.init.zeros_(out.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> SubTokens:
        """Whole inner sequences (B, N, S, W) to logits (B, N, K_i)."""
        count = x.shape[2]
        causal = torch.ones(1, count, count, dtype=torch.bool, device=x.device).tril()
        hidden = self.backbone(x.flatten(0, 1), _rope(0, count, self.backbone, x.device), causal)
        said = self.norm(hidden).view(x.shape)
        return tuple(out(said[:, :, i]).float() for i, out in enumerate(self.outs))

    def next_logits(self, level: int, x: Tensor, cache: KVCache) -> Tensor:
        """Row `level` (M, 1, W) of inner sequences, behind the cached ones, to (M, K) float32."""
        hidden = self.backbone(x, _rope(level, 1, self.backbone, x.device), None, cache)
        kept = torch.full((1,), level, device=x.device)
        cache.keep(kept, torch.ones(len(x), 1, dtype=torch.bool, device=x.device))
        logits: Tensor = self.outs[level](self.norm(hidden[:, 0]))
        return logits.float()


class SubTokenEmbedding(nn.Module):
    """A table for each sub-token; a code is the sum."""

    def __init__(self, bits: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.bits = bits
        self.tables = nn.ModuleList(nn.Embedding(2**b, width) for b in bits)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.02)  # type: ignore[arg-type]

    def forward(self, codes: Tensor) -> Tensor:
        """(...) long to (..., W)."""
        return torch.stack(self.each(codes)).sum(0)

    def each(self, codes: Tensor) -> list[Tensor]:
        """The embedding (..., W) of every sub-token."""
        return [self.one(i, part) for i, part in enumerate(split(codes, self.bits))]

    def one(self, level: int, sub_tokens: Tensor) -> Tensor:
        """Embeddings (..., W) of sub-tokens (...) long."""
        embedded: Tensor = self.tables[level](sub_tokens)
        return embedded


def split(codes: Tensor, bits: tuple[int, ...]) -> SubTokens:
    """Codes (...) long to their sub-tokens, the lowest bits first."""
    parts = []
    for count in bits:
        parts.append(codes & (2**count - 1))
        codes = codes >> count
    return tuple(parts)


def join(parts: SubTokens, bits: tuple[int, ...]) -> Tensor:
    """Sub-tokens to codes (...) long."""
    code = torch.zeros_like(parts[0])
    shift = 0
    for part, count in zip(parts, bits):
        code = code | (part << shift)
        shift += count
    return code


def _rope(first: int, count: int, backbone: Backbone, device: torch.device) -> Rope:
    """Row 0, the context, is silent: only its value speaks; no other row is turned."""
    row = torch.arange(first, first + count, device=device)
    cos = (row > 0).float()[None, :, None].expand(1, count, backbone.config.head_dim // 2)
    return cos, torch.zeros_like(cos)
