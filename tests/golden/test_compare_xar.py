"""What the comparisons of xAR read in a case."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import compare_xar
import pytest

from mmgen.sample.guidance import Guidance


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Guidance(3.0, 0.0, 1.0, ramp="linear")),
        (
            {"guidance_schedule": "linear over entities", "guidance_interval": [0.0, 1.0]},
            Guidance(3.0, 0.0, 1.0, ramp="linear"),
        ),
        (
            {"guidance_schedule": "constant", "guidance_interval": [0.25, 0.75]},
            Guidance(3.0, 0.25, 0.75, ramp="constant"),
        ),
    ],
)
def test_the_guidance_of_a_case(settings: dict[str, Any], expected: Guidance) -> None:
    case: Any = SimpleNamespace(settings=settings)
    assert compare_xar._guidance(case, 3.0) == expected
