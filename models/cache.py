"""The static KV cache: keys and values of kept rows in feeding order.

Allocated once for a generation, so that decoding never copies what it has. A row's place in the
cache is its order of generation, not its place in the grid; every mask of inference is then a
matter of the rows' block numbers, which the cache keeps beside the keys.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from mmgen.errors import ConfigError


class KVCache:
    """Keys and values (layers, 2, B, H_kv, L, D), and what the mask needs to know of each row.

    The rows of a head lie side by side, since attention reads them head by head.

    Args:
        layers: number of attention layers.
        batch: B.
        capacity: L, the most rows that will be written at a time (kept or not).
        kv_heads: H_kv.
        head_dim: D.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        capacity: int,
        kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (layers, 2, batch, kv_heads, capacity, head_dim)
        self.data = torch.zeros(shape, dtype=dtype, device=device)
        # Views, one pair (B, H_kv, L, D) a layer: indexing takes longer than writing a row.
        self.pairs = [(layer[0], layer[1]) for layer in self.data]
        self.block = torch.zeros(capacity, dtype=torch.long, device=device)  # (L,)
        self.valid = torch.zeros(batch, capacity, dtype=torch.bool, device=device)  # (B, L)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return self.data.shape[4]

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put the keys and values of the rows being fed behind the kept ones.

        Args:
            layer: which layer writes.
            k: (B, H_kv, R, D); v likewise.

        Returns:
            All keys and values so far, the fed rows last: (B, H_kv, length + R, D) each.
        """
        end = self.length + k.shape[2]
        if end > self.capacity:
            raise ConfigError(f"The KV cache holds {self.capacity} rows; {end} were fed.")
        keys, values = self.pairs[layer]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def first(self, batch: int) -> KVCache:
        """The first sequences alone; their rows stay where they are."""
        part = copy.copy(self)
        part.data, part.valid = self.data[:, :, :batch], self.valid[:batch]
        part.pairs = [(keys[:batch], values[:batch]) for keys, values in self.pairs]
        return part

    def keep(self, block: Tensor, valid: Tensor) -> None:
        """Keep the first rows of those just fed; the next feed overwrites the others.

        Args:
            block: (kept,) their block numbers (kept rows are in lane 0).
            valid: (B, kept) False where a row is padding.
        """
        end = self.length + len(block)
        self.block[self.length : end] = block
        self.valid[:, self.length : end] = valid
        self.length = end
