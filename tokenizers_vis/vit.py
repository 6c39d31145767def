"""A plain vision transformer: pre-norm blocks of full attention and MLP over any set of rows.

Shapes: B batch, R rows, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a `ViT`.

    Args:
        width: W.
        depth: number of blocks.
        heads: of the attention.
        mlp_ratio: hidden channels of the MLP by width.
        norm_eps: added to the variance; timm's default has changed over time, so it is written out.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse heads that do not divide."""
        if min(self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            raise ConfigError(
                f"A ViT needs width, depth and heads of at least 1, and heads that divide the "
                f"width, not {self.heads} for {self.width}."
            )


class ViT(nn.Module):
    """A stack of blocks; no final norm."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ViTBlock(config) for _ in range(config.depth))

    def forward(self, x: Tensor) -> Tensor:
        """(B, R, W) to (B, R, W)."""
        for block in self.blocks:
            x = block(x)
        return x


class ViTBlock(nn.Module):
    """Attention and a GELU MLP, each behind its norm; queries, keys and values have no bias."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, R, W) to (B, R, W)."""
        x = x + self._attend(self.norm1(x))
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, R, 3, H, D)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.proj(y)
        return out
