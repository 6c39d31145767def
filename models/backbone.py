"""The transformer that everything runs through: embeddings in, hidden states out.

Pre-norm blocks of attention and MLP. It knows rows, a mask or a cache, and rotary tables; it does
not know text, pictures or schedules. What is unusual: positions come as tables (`models/rope.py`),
and the cache is static (`models/cache.py`), so a step of decoding is the same call as training.

Shapes: B batch, R rows fed, K rows seen, W width, H heads, D = W / H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.config import later
from mmgen.errors import ConfigError
from mmgen.kernels.linear import Linear
from mmgen.models.cache import KVCache
from mmgen.models.rope import Rope, rotate


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes and kinds of a `Backbone`.

    Args:
        width: W, channels of a row.
        depth: number of blocks.
        heads: query heads.
        kv_heads: key and value heads (None: as many as query heads).
        mlp_width: hidden channels of the MLP (None: 8/3 of the width, a multiple of 32).
        mlp: gated ("swiglu", "geglu") or plain ("gelu").
        norm: "rms" or "layer".
        norm_eps: added to the variance.
        bias: biases in linear layers.
        qk_norm: RMS norm of queries and keys in each head.
        dropout: on the output of attention and MLP, in training.
        adaln: a condition gates, scales and shifts the two branches of every block (adaLN, DiT,
            arXiv 2212.09748); their norms then have no weights of their own.
        adaln_norm_weights: they have them all the same (IBQ's generators were trained so).
    """

    width: int = 256
    depth: int = 8
    heads: int = 8
    kv_heads: int | None = None
    mlp_width: int | None = None
    mlp: Literal["swiglu", "geglu", "gelu"] = "swiglu"
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    bias: bool = False
    qk_norm: bool = True
    dropout: float = 0.0
    adaln: bool = later(False)
    adaln_norm_weights: bool = later(False)

    def __post_init__(self) -> None:
        """Refuse heads that do not divide."""
        if min(self.width, self.depth, self.heads) < 1:
            raise ConfigError("backbone needs width, depth and heads of at least 1.")
        if self.width % self.heads:
            raise ConfigError(f"backbone.heads {self.heads} does not divide width {self.width}.")
        if self.heads % self.kv_head_count:
            raise ConfigError(
                f"backbone.kv_heads {self.kv_heads} does not divide heads {self.heads}."
            )

    @property
    def head_dim(self) -> int:
        """D."""
        return self.width // self.heads

    @property
    def kv_head_count(self) -> int:
        """Key and value heads."""
        return self.kv_heads or self.heads

    @property
    def hidden(self) -> int:
        """Hidden channels of the MLP."""
        return self.mlp_width or (self.width * 8 // 3 + 31) // 32 * 32


class Modulation(NamedTuple):
    """What adaLN does to the rows that are fed.

    Args:
        blocks: one (M, 6, W) a block, for each of M conditions: gate, scale and shift, each of
            attention and of the MLP.
        row: (B, R) long, the condition of each row; (B, 1) where all rows of a sequence share it.
    """

    blocks: tuple[Tensor, ...]
    row: Tensor


class Backbone(nn.Module):
    """A stack of `Block`s; the heads that read it bring the final norm."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.depth))
        self.apply(_initialise)
        # Residual branches start small, so that depth does not scale the first activations.
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and name.endswith(".out"):
                std = (2 * config.depth * module.in_features) ** -0.5
                nn.init.normal_(module.weight, std=std)
            elif isinstance(module, nn.Linear) and name.endswith(".modulation"):
                nn.init.zeros_(module.weight)  # every block begins as the identity (adaLN-zero)

    def modulations(self, condition: Tensor) -> tuple[Tensor, ...]:
        """What adaLN makes of M conditions (M, W): one (M, 6, W) a block."""
        condition = F.silu(condition)
        blocks = cast("list[Block]", list(self.blocks))
        return tuple(block.modulation(condition).unflatten(1, (6, -1)) for block in blocks)

    def forward(
        self,
        x: Tensor,
        rope: Rope | None,
        mask: Tensor | None,
        cache: KVCache | None = None,
        modulation: Modulation | None = None,
    ) -> Tensor:
        """Run the rows x (B, R, W).

        Args:
            x: embedded rows.
            rope: rotary tables of the rows, (B or 1, R, D / 2) each; None: no rotation.
            mask: (B or 1, R, K) bool, True where row r sees row k; None: sees all.
            cache: where keys and values of earlier rows are; K = cache.length + R with it.
            modulation: what adaLN does to the rows, for a backbone that has it.

        Returns:
            Hidden states (B, R, W), before any final norm.
        """
        return self.states(x, rope, mask, cache, (self.config.depth,), modulation)[0]

    def states(
        self,
        x: Tensor,
        rope: Rope | None,
        mask: Tensor | None,
        cache: KVCache | None,
        depths: tuple[int, ...],
        modulation: Modulation | None = None,
    ) -> tuple[Tensor, ...]:
        """Hidden states (B, R, W) at several depths, for heads that are nested in depth.

        Args:
            x, rope, mask, cache, modulation: as in `forward`.
            depths: numbers of blocks, each at most the depth.
        """
        bias = None if mask is None else mask.unsqueeze(1)  # (B, 1, R, K)
        states = {0: x}
        for depth, block in enumerate(self.blocks, start=1):
            six = None if modulation is None else modulation.blocks[depth - 1][modulation.row]
            x = block(x, rope, bias, cache, six)
            if depth in depths:
                states[depth] = x
        return tuple(states[depth] for depth in depths)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache of `capacity` rows on the device and in the type of the weights."""
        weight = next(self.parameters())
        config = self.config
        return KVCache(
            config.depth,
            batch,
            capacity,
            config.kv_head_count,
            config.head_dim,
            dtype=weight.dtype,
            device=weight.device,
        )


class Block(nn.Module):
    """Attention and MLP, each behind its norm and added to the stream."""

    def __init__(self, config: BackboneConfig, index: int) -> None:
        super().__init__()
        weighted = config.adaln_norm_weights or not config.adaln
        self.attention_norm = make_norm(config, weighted)
        self.attention = Attention(config, index)
        self.mlp_norm = make_norm(config, weighted)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)
        if config.adaln:
            self.modulation = nn.Linear(config.width, 6 * config.width)

    def forward(
        self,
        x: Tensor,
        rope: Rope | None,
        mask: Tensor | None,
        cache: KVCache | None,
        six: Tensor | None = None,
    ) -> Tensor:
        """(B, R, W) to (B, R, W); `six` (B, R or 1, 6, W) as in `Modulation`."""
        if six is None:
            x = x + self.dropout(self.attention(self.attention_norm(x), rope, mask, cache))
            plain: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
            return plain
        gate_a, gate_m, scale_a, scale_m, shift_a, shift_m = six.unbind(2)
        y = self.attention_norm(x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.dropout(self.attention(y, rope, mask, cache))
        y = self.mlp_norm(x) * (1 + scale_m) + shift_m
        out: Tensor = x + gate_m * self.dropout(self.mlp(y))
        return out


class Attention(nn.Module):
    """Multi-head attention with rotary positions, grouped keys and an optional query-key norm."""

    def __init__(self, config: BackboneConfig, index: int) -> None:
        super().__init__()
        self.index, self.head_dim = index, config.head_dim
        self.heads, self.kv_heads = config.heads, config.kv_head_count
        rows = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv = Linear(config.width, rows, bias=config.bias)
        self.out = Linear(config.width, config.width, bias=config.bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps)
            self.k_norm = nn.RMSNorm(self.head_dim, eps=config.norm_eps)

    def forward(
        self, x: Tensor, rope: Rope | None, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """(B, R, W) to (B, R, W); mask (B or 1, 1, R, K)."""
        batch, rows, width = x.shape
        qkv = self.qkv(x).view(batch, rows, -1, self.head_dim).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)  # (B, H, R, D)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            turned = rotate(torch.cat((q, k), dim=1), rope)
            q, k = turned[:, : self.heads], turned[:, self.heads :]
        if cache is not None:
            k, v = cache.write(self.index, k, v)
        grouped = self.heads != self.kv_heads
        y = attend(q, k, v, mask, grouped)
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, rows, width))
        return out


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, grouped: bool) -> Tensor:
    """Attention (B, H, R, D); under automatic mixed precision on a CPU in float32.

    There the backward pass of bfloat16 attention takes eight times that of float32.
    """
    if q.is_cpu and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            q, k, v = q.float(), k.float(), v.float()
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)


class MLP(nn.Module):
    """Gated (`act(a) * b`) or plain feed-forward network."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.kind = config.mlp
        self.gated = config.mlp != "gelu"
        hidden = config.hidden
        self.inner = Linear(config.width, hidden * (2 if self.gated else 1), bias=config.bias)
        self.out = Linear(hidden, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, R, W) to (B, R, W)."""
        x = self.inner(x)
        if self.gated:
            a, b = x.chunk(2, dim=-1)
            x = (F.silu(a) if self.kind == "swiglu" else F.gelu(a)) * b
        else:
            x = F.gelu(x)
        out: Tensor = self.out(x)
        return out


def make_norm(config: BackboneConfig, weighted: bool = True) -> nn.Module:
    """The norm named by the configuration, over the width; `weighted` False: no weights in it."""
    norm = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    return norm(config.width, eps=config.norm_eps, elementwise_affine=weighted)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def parameter_count(module: nn.Module) -> int:
    """Number of trainable numbers in a network."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
