"""Which of our computations answers for which output of a reference case.

A module `compare_<system>.py` beside this file has

    COMPARE: dict[tuple[str, str], Comparisons | Callable[[Case], Comparisons]]

by (system, task) of the case: output name -> function that computes it with our code, or a function
that makes this mapping for a case. Task "*" answers for every task of the system.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from case import Case
from torch import Tensor

Comparisons = Mapping[str, Callable[[Case], Tensor]]


def compare(case: Case) -> Comparisons:
    """The computations for a case; none if nothing answers for it."""
    known = comparisons()
    found = known.get((case.system, case.task)) or known.get((case.system, "*"), {})
    return case.once(found) if callable(found) else found


@cache
def comparisons() -> dict[tuple[str, str], Any]:
    """`COMPARE` of all modules beside this one."""
    found: dict[tuple[str, str], Any] = {}
    for path in sorted(Path(__file__).parent.glob("compare_*.py")):
        for key, value in importlib.import_module(path.stem).COMPARE.items():
            assert key not in found, f"{key} is answered for twice"
            found[key] = value
    return found


def must_fail(case: Case) -> str:
    """Why a case cannot pass by decision; "" for all others."""
    if case.system == "ett":
        return "the joint loss of ETT is not built yet"
    if case.system == "seed" and case.task.startswith("train"):
        return "the training of SEED's tokenizer is not built yet"
    return ""
