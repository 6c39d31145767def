"""LlamaGen, NAR, IBQ's and Open-MAGVIT2's transformers as their descriptions have them, slowly.

No cache, no plan and nothing of `mmgen`: one pass over all rows for every question, with the mask
written out. `shared/specs`: nar.md 2, 3, 6.2 and ett.md A4, D2.

Shapes: B batch, T condition rows, N tokens in raster order, L = T + N, W width, V codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]
Table = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the blocks."""

    width: int
    heads: int
    kv: int
    hidden: int
    eps: float = 1e-5
    base: float = 10000.0

    @property
    def head(self) -> int:
        return self.width // self.heads


def block_shapes(name: str, depth: int, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    width, hidden, kv = sizes.width, sizes.hidden, sizes.kv * sizes.head
    one: dict[str, tuple[int, ...]] = {
        "attention.wqkv": (width + 2 * kv, width),
        "attention.wo": (width, width),
        "feed_forward.w1": (hidden, width),
        "feed_forward.w3": (hidden, width),
        "feed_forward.w2": (width, hidden),
        "attention_norm": (width,),
        "ffn_norm": (width,),
    }
    return {f"{name}.{i}.{k}.weight": shape for i in range(depth) for k, shape in one.items()}


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Random weights that keep the size of what they are fed; norms near 1, small biases."""
    return {key: _one(key, shape) for key, shape in shapes.items()}


def _one(key: str, shape: tuple[int, ...]) -> Tensor:
    if len(shape) > 1:
        return torch.randn(shape) * shape[-1] ** -0.5
    return torch.randn(shape) * 0.2 + (0 if key.endswith("bias") else 1)


# -- blocks --------------------------------------------------------------------------------------


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def square_table(silent: int, side: int, sizes: Sizes) -> Table:
    """(L, D/2): nothing for the first rows, then rows and columns of a square."""
    half = sizes.head // 2
    pace = sizes.base ** (-torch.arange(0, half, 2)[: half // 2].float() / half)
    place = torch.arange(side * side)
    row, column = place // side, place % side
    angle = torch.cat([row[:, None] * pace, column[:, None] * pace], 1)
    nothing = torch.zeros(silent, half)
    return torch.cat([nothing, angle.cos()]), torch.cat([nothing, angle.sin()])


def turn(x: Tensor, table: Table) -> Tensor:
    """(B, H, L, D) with neighbouring channels as pairs."""
    cos, sin = table
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


def attention(
    weights: Weights, name: str, x: Tensor, sizes: Sizes, table: Table | None, mask: Tensor
) -> Tensor:
    """`mask` (B or 1, L, L) bool."""
    kv = sizes.kv * sizes.head
    parts = (x @ weights[f"{name}.wqkv.weight"].T).split([sizes.width, kv, kv], -1)
    q, k, v = (part.unflatten(-1, (-1, sizes.head)).transpose(1, 2) for part in parts)
    if table is not None:
        q, k = turn(q, table), turn(k, table)
    k, v = (each.repeat_interleave(sizes.heads // sizes.kv, 1) for each in (k, v))
    scores = (q @ k.transpose(2, 3)) * sizes.head**-0.5
    seen = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
    return (seen @ v).transpose(1, 2).flatten(2) @ weights[f"{name}.wo.weight"].T


def block(
    weights: Weights,
    name: str,
    x: Tensor,
    sizes: Sizes,
    table: Table | None,
    mask: Tensor,
    speaker: Tensor | None = None,
) -> Tensor:
    """One block; `speaker` (B, 1, W) is what IBQ's adaLN listens to."""
    six: Sequence[Tensor | float] = (1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    if speaker is not None:
        told = _affine(weights, f"{name}.ada_lin.1", F.silu(speaker))
        six = told.chunk(6, -1)
    gate1, gate2, scale1, scale2, shift1, shift2 = six
    y = norm(x, weights[f"{name}.attention_norm.weight"], sizes.eps) * (1 + scale1) + shift1
    x = x + gate1 * attention(weights, f"{name}.attention", y, sizes, table, mask)
    y = norm(x, weights[f"{name}.ffn_norm.weight"], sizes.eps) * (1 + scale2) + shift2
    w1, w2, w3 = (weights[f"{name}.feed_forward.w{i}.weight"] for i in (1, 2, 3))
    return x + gate2 * ((F.silu(y @ w1.T) * (y @ w3.T)) @ w2.T)


def _affine(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


# -- masks and targets ---------------------------------------------------------------------------


def sequence_mask(rank: Tensor, valid: Tensor, diagonal: bool) -> Tensor:
    """(B, L, L): tokens of rank (N,) see lower ones, and equal ones if `diagonal`; padded columns
    of the condition, `valid` (B, T), are seen by their own row alone."""
    silent, count = valid.shape[1], len(rank)
    mask = torch.zeros(silent + count, silent + count, dtype=torch.bool)
    mask[:silent, :silent] = torch.ones(silent, silent).tril() > 0
    mask[silent:, :silent] = True
    mask[silent:, silent:] = rank[None] <= rank[:, None]
    if not diagonal:
        assert len(set(rank.tolist())) == count
    seen = torch.cat([valid, torch.ones(len(valid), count, dtype=torch.bool)], 1)
    return (mask & seen[:, None]) | torch.eye(silent + count, dtype=torch.bool)


def plane(grid: tuple[int, int, int]) -> Tensor:
    """(N,): t + y + x."""
    return sum(torch.meshgrid(*map(torch.arange, grid), indexing="ij")).flatten()  # type: ignore[return-value]


def mixed(heads: Mapping[str, Tensor], grid: tuple[int, int, int], silent: int) -> Tensor:
    """What all heads (B, L, V) by axis say of each token, (B, N, V) (nar.md 3.5 and 6.2)."""
    stride = dict(zip("tyx", (grid[1] * grid[2], grid[2], 1)))
    predicted = []
    for site in range(prod(grid)):
        place = dict(zip("tyx", torch.unravel_index(torch.tensor(site), grid)))
        spoken = [h[:, silent + site - stride[a]] for a, h in heads.items() if place[a] > 0]
        spoken = spoken or [h[:, silent - 1] for h in heads.values()]
        predicted.append(torch.stack(spoken).mean(0))
    return torch.stack(predicted, 1)


# -- networks: logits (B, N, V) of every token, given those before it ------------------------------


def captions(weights: Weights, features: Tensor) -> Tensor:
    """Features (B, T, C) as rows."""
    fc1, fc2 = (weights[f"cls_embedding.cap_proj.fc{i}.weight"] for i in (1, 2))
    return F.gelu(features @ fc1.T, approximate="tanh") @ fc2.T


def llamagen(
    weights: Weights, sizes: Sizes, depth: int, rows: Tensor, valid: Tensor, tokens: Tensor
) -> Tensor:
    side = round(tokens.shape[1] ** 0.5)
    mask = sequence_mask(torch.arange(tokens.shape[1]), valid, diagonal=False)
    table = square_table(rows.shape[1], side, sizes)
    x = torch.cat([rows, weights["tok_embeddings.weight"][tokens]], 1)
    for i in range(depth):
        x = block(weights, f"layers.{i}", x, sizes, table, mask)
    x = x[:, rows.shape[1] - 1 : -1]
    return norm(x, weights["norm.weight"], sizes.eps) @ weights["output.weight"].T


def nar(
    weights: Weights,
    sizes: Sizes,
    depths: Mapping[str, int],
    names: Mapping[str, tuple[str, str]],
    grid: tuple[int, int, int],
    rows: Tensor,
    valid: Tensor,
    tokens: Tensor,
) -> Tensor:
    """Pictures and clips: heads by axis, their depths and the names of their norm and matrix."""
    silent = rows.shape[1]
    mask = sequence_mask(plane(grid), valid, diagonal=True)
    x = torch.cat([rows, weights["tok_embeddings.weight"][tokens]], 1)
    table = None
    if "abs_pe" in weights:
        x = x + weights["abs_pe"]
    else:
        table = square_table(silent, grid[2], sizes)
    states = [x]
    for i in range(max(depths.values())):
        states.append(block(weights, f"layers.{i}", states[-1], sizes, table, mask))
    heads = {}
    for axis, (scale, matrix) in names.items():
        x = norm(states[depths[axis]], weights[f"{scale}.weight"], sizes.eps)
        heads[axis] = x @ weights[f"{matrix}.weight"].T
    return mixed(heads, grid, silent)


def ibq(weights: Weights, sizes: Sizes, depth: int, labels: Tensor, tokens: Tensor) -> Tensor:
    speaker = weights["class_emb.embedding_table.weight"][labels][:, None]
    embedded = weights["tok_emb.weight"][tokens]
    if "embedding_projection.fc1.weight" in weights:
        inner = F.gelu(_affine(weights, "embedding_projection.fc1", embedded), approximate="tanh")
        embedded = _affine(weights, "embedding_projection.fc2", inner)
    x = torch.cat([speaker, embedded], 1)
    x = _raster(weights, "blocks", x, sizes, depth, speaker)
    scale, shift = _affine(weights, "head_nm.ada_lin.1", F.silu(speaker)).chunk(2, -1)
    x = norm(x, weights["head_nm.rmsnorm.weight"], sizes.eps) * (1 + scale) + shift
    return x @ weights["head.weight"].T


def magvit2(
    weights: Weights,
    sizes: Sizes,
    depths: tuple[int, int],
    labels: Tensor,
    pre: Tensor,
    post: Tensor,
) -> tuple[Tensor, Tensor]:
    """Logits of both sub-tokens."""
    tables = weights["pre_emb.weight"], weights["post_emb.weight"]
    first = weights["class_emb.embedding_table.weight"][labels][:, None]
    x = torch.cat([first, tables[0][pre] + tables[1][post]], 1)
    x = _raster(weights, "spatial_blocks", x, sizes, depths[0])
    inner = torch.stack([x, tables[0][pre]], 2).flatten(0, 1)  # (B N, 2, W)
    half = sizes.head // 2
    table = torch.tensor([[0.0], [1.0]]).expand(2, half), torch.zeros(2, half)
    causal = torch.ones(1, 2, 2).tril() > 0
    for i in range(depths[1]):
        inner = block(weights, f"factorized_blocks.{i}", inner, sizes, table, causal)
    inner = norm(inner, weights["norm.weight"], sizes.eps).unflatten(0, pre.shape)
    return tuple(inner[:, :, i] @ weights[f"head.{i}.weight"].T for i in (0, 1))  # type: ignore[return-value]


def _raster(
    weights: Weights, name: str, x: Tensor, sizes: Sizes, depth: int, speaker: Tensor | None = None
) -> Tensor:
    """One condition row, then tokens in raster order, the last of which is not fed."""
    count = x.shape[1] - 1
    one = torch.ones(len(x), 1, dtype=torch.bool)
    mask = sequence_mask(torch.arange(count), one, diagonal=False)
    table = square_table(1, round(count**0.5), sizes)
    for i in range(depth):
        x = block(weights, f"{name}.{i}", x, sizes, table, mask, speaker)
    return x[:, :-1]
