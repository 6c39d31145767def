"""Gates and rotary pairs of published blocks in our layout."""

from __future__ import annotations

import pytest
import torch

from mmgen.errors import CheckpointError
from mmgen.published.layouts import fuse, halves


def test_both_inner_layers_become_one_with_the_gate_first() -> None:
    gate, value, other = torch.zeros(2, 3), torch.ones(2, 3), torch.ones(1)
    tensors = {"0.x.weight": value, "0.g.weight": gate, "0.out": other, "1.g.bias": other}
    fused = fuse(tensors, ".g.", ".x.", ".inner.", "file")
    assert list(fused) == ["0.inner.weight", "0.out", "1.g.bias"]  # one alone stays what it is
    assert torch.equal(fused["0.inner.weight"], torch.cat([gate, value]))
    with pytest.raises(CheckpointError, match=r"file holds '0.g.weight' and '0.x.weight' of uneq"):
        fuse(tensors | {"0.x.weight": other}, ".g.", ".x.", ".inner.", "file")


def test_pairs_of_neighbours_become_halves_of_each_head() -> None:
    rows = torch.arange(8)  # two heads of 4 channels
    assert halves(rows, 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(halves(rows[:, None].expand(-1, 3), 4)[:, 2], halves(rows, 4))
