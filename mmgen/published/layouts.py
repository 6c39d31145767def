"""Layouts of transformer blocks that published systems share, turned into ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmgen.errors import CheckpointError
from mmgen.published.keymap import shown


def fuse(
    tensors: Mapping[str, Tensor], gate: str, value: str, both: str, where: str
) -> dict[str, Tensor]:
    """The two inner layers of each gated MLP in one, the gate first.

    Args:
        tensors: by official key.
        gate: the part of a key that names the gate.
        value: the part in its place that names the other layer.
        both: the part in their place that names the two in one.
        where: what to call the file in messages.

    Raises:
        CheckpointError: they have unequal shapes.
    """
    fused: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        first, second = key.replace(value, gate), key.replace(gate, value)
        if first == second or first not in tensors or second not in tensors:
            fused[key] = tensor
        elif tensors[first].shape != tensors[second].shape:
            raise CheckpointError(
                f"{where} holds {shown(first)} and {shown(second)} of unequal shapes; "
                "get the file again."
            )
        elif key == first:
            fused[key.replace(gate, both)] = torch.cat([tensor, tensors[second]])
    return fused


def halves(rows: Tensor, head_dim: int) -> Tensor:
    """Rotary pairs that are neighbours (2i, 2i + 1) to ours, (i, i + D/2): (heads * D, ...)."""
    pairs = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])  # (heads, D/2, 2, ...)
    return pairs.transpose(1, 2).flatten(0, 2)
