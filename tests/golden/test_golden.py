"""Every output of every reference case, computed by our code from the imported official file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from case import OWN, Case, all_cases
from registry import compare, comparisons, must_fail
from torch import Tensor

from mmgen.published.reading import read_checkpoint
from mmgen.published.systems import parts, shapes_of

pytestmark = pytest.mark.golden
CASES = all_cases()


def _marks(case: Case) -> list[Any]:
    reason = must_fail(case)
    return [pytest.mark.xfail(strict=True, reason=reason)] if reason else []


ONE_EACH = [pytest.param(case, id=case.name, marks=_marks(case)) for case in CASES]
KNOWN = [
    pytest.param(case, id=case.name)
    for case in CASES
    if case.described["weights"] and not must_fail(case)
]
OUTPUTS = [
    pytest.param(case, name, id=f"{case.name}/{name}", marks=_marks(case))
    for case in CASES
    for name in case.outputs
]


@pytest.mark.parametrize("case", ONE_EACH)
def test_every_output_is_compared(case: Case) -> None:
    unknown = [name for name in case.outputs if name not in compare(case)]
    assert not unknown


@pytest.mark.parametrize("case", KNOWN)
def test_a_file_is_recognised_as_one_thing(case: Case) -> None:
    shapes = shapes_of(read_checkpoint(case.official_file).tensors)
    found = [part for part in parts() if part.recognise(shapes) and not part.embedded]
    assert [part.system for part in found] == [case.system], [part.name for part in found]


@pytest.mark.parametrize(("case", "name"), OUTPUTS)
def test_output(case: Case, name: str) -> None:
    assert name in compare(case), "nothing computes this output"
    assert_close(compare(case)[name](case), case.expected(name), case.outputs[name])


def test_every_system_has_a_case_in_the_repository() -> None:
    here = {Case(path.parent).system for path in OWN.glob("*/case.json")}
    assert here == {system for system, _ in comparisons()}


def assert_close(ours: Tensor, expected: Tensor, tolerance: dict[str, Any]) -> None:
    """Compare as the case says; scalars are stored with shape (1,)."""
    ours = torch.as_tensor(ours).detach()
    if expected.numel() == 1 and ours.numel() == 1:
        ours = ours.reshape(expected.shape)
    assert ours.shape == expected.shape, f"{tuple(ours.shape)}, not {tuple(expected.shape)}"
    ours, expected = ours.double(), expected.double()
    if tolerance["exact"]:
        assert torch.equal(ours, expected), f"{int((ours != expected).sum())} values differ"
    else:
        torch.testing.assert_close(
            ours, expected, atol=tolerance["atol"], rtol=tolerance["rtol"], equal_nan=True
        )
