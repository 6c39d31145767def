"""What the comparisons of LlamaGen and NAR read in a case."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import compare_gpt
import pytest
import torch

from mmgen.models.conditions import ClassConfig


@pytest.mark.parametrize(("task", "expected"), [("c2v", [0, 5, 4]), ("c2i", [0, -1, 4])])
def test_negative_labels_of_clips_are_the_null_class(task: str, expected: list[int]) -> None:
    inputs = {"labels_gen": torch.tensor([0, -1, 4])}
    network = SimpleNamespace(config=SimpleNamespace(condition=ClassConfig(classes=5)))
    case: Any = SimpleNamespace(task=task, inputs=inputs, network=network)
    assert compare_gpt.condition(case, "gen").tolist() == expected
