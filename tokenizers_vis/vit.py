"""A plain vision transformer: pre-norm blocks of full attention and MLP over any set of rows.

Shapes: B batch, R rows, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

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
        norm_eps: added to the variance in the norms.
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
    """A stack of blocks whose queries, keys and values have no bias; no final norm."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.blocks = transformer_blocks(
            config.depth, config.width, config.heads, config.norm_eps, config.mlp_ratio, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, R, W) to (B, R, W)."""
        out: Tensor = self.blocks(x)
        return out


def transformer_blocks(
    depth: int, width: int, heads: int, eps: float, mlp_ratio: float = 4.0, *, bias: bool = True
) -> nn.Sequential:
    """timm's pre-norm blocks: attention and a GELU MLP, each behind its norm.

    Args:
        depth: how many.
        width: W.
        heads: of the attention.
        eps: of the norms; timm's default has changed over time, so it is written out.
        mlp_ratio: hidden channels of the MLP by width.
        bias: of queries, keys and values.
    """
    from timm.models.vision_transformer import Block

    norm: Any = partial(nn.LayerNorm, eps=eps)
    return nn.Sequential(
        *(Block(width, heads, mlp_ratio, qkv_bias=bias, norm_layer=norm) for _ in range(depth))
    )
