"""NBP's transformer as its description has it, slowly: `shared/specs/nbp.md` 3, in official ids.

No cache, no plan and nothing of `mmgen`: one pass over all rows, with the mask written out.

Shapes: B batch, Lc condition ids, N video tokens in raster order, S rows that are fed, V ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PAD = 2


@dataclass(frozen=True)
class Mode:
    """Which model this is: `k` tokens a block, and what stands before the video."""

    heads: int
    depth: int
    k: int
    hybrid: bool
    text: bool
    words: int  # of the condition's vocabulary

    @property
    def shift(self) -> int:
        """The first id of a video token."""
        return self.words + self.k * self.hybrid


def fed(mode: Mode, condition: Tensor, video: Tensor) -> Tensor:
    """Official ids (B, S): condition (B, Lc) from 0, video (B, N) in official ids."""
    k, batch = mode.k, len(video)
    if not mode.hybrid:
        return torch.cat([condition, video], 1)[:, :-k]
    begin = torch.zeros(batch, 1, dtype=torch.long)
    middle = torch.arange(1, k).expand(batch, -1)
    whole = [condition + k, begin, video[:, :k], middle, video[:, k:]]
    return torch.cat(whole, 1)[:, :-k]


def mask_of(mode: Mode, ids: Tensor, count: int) -> Tensor:
    """(B, S, S) bool for fed ids, the first `count` of which are the condition."""
    batch, size = ids.shape
    seen = torch.zeros(batch, size, size, dtype=torch.bool)
    if mode.hybrid:
        seen[:] = torch.ones(size, size).tril() > 0
    told = torch.ones(batch, count, dtype=torch.bool)
    if mode.text:
        told = ids[:, :count] != PAD + 1  # compared with ids that are shifted already
    seen[:, :, :count] |= told[:, None]
    first = count + (mode.k if mode.hybrid else 0)
    for start in range(first, size, mode.k):
        seen[:, start : start + mode.k, first : start + mode.k] = True
    return seen


def logits(
    weights: Mapping[str, Tensor],
    mode: Mode,
    condition: Tensor,
    video: Tensor,
    dropped: bool = False,
) -> Tensor:
    """Logits (B, N, V), or (B, N - k, V) where the first block is given; keys without prefix."""
    ids, count = fed(mode, condition, video), condition.shape[1]
    mask = mask_of(mode, ids, count)
    x = weights["tok_emb.weight"][ids]
    if dropped:
        x = torch.cat([weights["uncond_embedding"].expand(len(x), -1, -1), x[:, count:]], 1)
    x = x + weights["pos_emb"][:, : ids.shape[1]]
    for i in range(mode.depth):
        y = _norm(weights, f"blocks.{i}.ln1", x)
        x = x + _attend(weights, f"blocks.{i}.attn", y, mask, mode.heads)
        inner = _affine(weights, f"blocks.{i}.mlp.0", _norm(weights, f"blocks.{i}.ln2", x))
        x = x + _affine(weights, f"blocks.{i}.mlp.2", F.gelu(inner))
    x = _norm(weights, "ln_f", x)[:, count:]
    return x @ weights["head.weight"].T


def _attend(
    weights: Mapping[str, Tensor], name: str, x: Tensor, mask: Tensor, heads: int
) -> Tensor:
    q, k, v = (
        _affine(weights, f"{name}.{part}", x).unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in ("query", "key", "value")
    )
    scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
    seen = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
    return _affine(weights, f"{name}.proj", (seen @ v).transpose(1, 2).flatten(2))


def _affine(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)
