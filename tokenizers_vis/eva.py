"""The image tower EVA-CLIP-g/14 as SEED uses it: patches to tokens, no final norm, no pooling.

timm has the network (class `Eva`); the names of its tensors are the official ones. What differs
from timm's own models of that name: 39 of the 40 blocks, and nothing after the last of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from mmgen.errors import ConfigError


@dataclass(frozen=True)
class EvaConfig:
    """Sizes of the tower; the defaults are the published ViT-g.

    Args:
        image_size: pixels a side.
        patch_size: pixels a side of a patch.
        width: channels of a token.
        depth: number of blocks.
        heads: attention heads.
        mlp_width: hidden channels of the feed-forward network.
    """

    image_size: int = 224
    patch_size: int = 14
    width: int = 1408
    depth: int = 39
    heads: int = 16
    mlp_width: int = 6144

    def __post_init__(self) -> None:
        """Refuse sizes that make no network."""
        sizes = (self.patch_size, self.width, self.depth, self.heads, self.mlp_width)
        if min(self.image_size, *sizes) < 1:
            raise ConfigError("Every size of an EVA tower must be at least 1.")
        if self.image_size % self.patch_size or self.width % self.heads:
            raise ConfigError(
                f"An EVA tower needs patches of {self.patch_size} that divide the image size "
                f"{self.image_size}, and {self.heads} heads that divide the width {self.width}."
            )


def build_eva(config: EvaConfig) -> nn.Module:
    """The tower: normalised pixels (B, 3, S, S) to tokens (B, 1 + patches, W), class first."""
    from timm.models.eva import Eva

    tower: nn.Module = Eva(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        # timm takes the ratio and rounds the product down; half a channel keeps it from one less.
        mlp_ratio=(config.mlp_width + 0.5) / config.width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_classes=0,
        global_pool="",
    )
    tower.norm = nn.Identity()
    return tower
