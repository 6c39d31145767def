"""The Q-Former: learned queries that read an image through cross-attention (BLIP-2, 2301.12597).

BERT layers: each residual branch is followed by its LayerNorm. Every `cross_every`-th layer, the
first included, also attends to the memory. With `causal`, query k sees the queries 0..k only (and
always the whole memory): this is what gives SEED's codes their order (arXiv 2307.08041).

Shapes: B batch, Q queries, M rows of memory, W width, H heads, D = W / H.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError


@dataclass(frozen=True)
class QFormerConfig:
    """Sizes of a `QFormer`; the defaults are BLIP-2's.

    Args:
        width: W, channels of a query.
        depth: number of layers.
        heads: attention heads.
        mlp_width: hidden channels of the feed-forward network.
        memory_width: channels of the memory.
        cross_every: layers 0, n, 2n, ... attend to the memory.
        causal: a query sees itself and the queries before it, instead of all.
        norm_eps: of every LayerNorm.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    memory_width: int = 1408
    cross_every: int = 2
    causal: bool = False
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        """Refuse sizes that make no network."""
        sizes = (self.width, self.depth, self.heads, self.mlp_width, self.memory_width)
        if min(*sizes, self.cross_every) < 1:
            raise ConfigError("Every size of a Q-Former must be at least 1.")
        if self.width % self.heads:
            raise ConfigError(
                f"The Q-Former's heads {self.heads} do not divide its width {self.width}."
            )


class QFormer(nn.Module):
    """Queries (B, Q, W) and a memory (B, M, memory_width) to what the queries found (B, Q, W)."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.causal = config.causal
        self.norm_in = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.layers = nn.ModuleList(
            QFormerLayer(config, crosses=i % config.cross_every == 0) for i in range(config.depth)
        )

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Run all layers; queries have no positions, and no norm follows the last layer."""
        x: Tensor = self.norm_in(queries)
        for layer in self.layers:
            x = layer(x, memory, self.causal)
        return x


class QFormerLayer(nn.Module):
    """Self-attention, cross-attention where the layer has it, feed-forward; each then normed."""

    def __init__(self, config: QFormerConfig, crosses: bool) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.attention = Attention(width, config.heads, width)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.cross = Attention(width, config.heads, config.memory_width) if crosses else None
        self.cross_norm = nn.LayerNorm(width, eps=eps) if crosses else None
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp_width), nn.GELU(), nn.Linear(config.mlp_width, width)
        )
        self.mlp_norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, memory: Tensor, causal: bool) -> Tensor:
        """(B, Q, W) to (B, Q, W)."""
        x = self.attention_norm(x + self.attention(x, x, causal))
        if self.cross is not None and self.cross_norm is not None:
            x = self.cross_norm(x + self.cross(x, memory))
        out: Tensor = self.mlp_norm(x + self.mlp(x))
        return out


class Attention(nn.Module):
    """Multi-head attention of rows over a memory, which may be the rows themselves."""

    def __init__(self, width: int, heads: int, memory_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(memory_width, width)
        self.v = nn.Linear(memory_width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, causal: bool = False) -> Tensor:
        """(B, Q, W) and (B, M, memory_width) to (B, Q, W)."""
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, Q or M, D)
            for t in (self.q(x), self.k(memory), self.v(memory))
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out
