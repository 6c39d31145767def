"""Every official option of every system, with every kind of wrong value: taken or one sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest
from small_cases import NAMES, SmallCase, small_case

from mmgen.errors import UserError
from mmgen.published.importing import convert_all
from mmgen.published.matching import Match
from mmgen.published.options import UnknownOptions

VALUES = (-3, 0, 10**30, 1.5, math.nan, [], [1, "a"], None, {"a": 1})


def known_options(case: SmallCase) -> list[str]:
    """All names that the case's parts know."""
    with pytest.raises(UnknownOptions) as caught:
        convert_all(case.matches(), {**case.config, "no such option": 1})
    return list(dict.fromkeys(caught.value.known))


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_value_is_one_sentence(name: str) -> None:
    case = small_case(name)
    matches, names = case.matches(), known_options(case)
    assert set(case.config) <= set(names)
    for option in names:
        if _refused(matches, {**case.config, option: "x"}):  # else it is not read at all
            for value in VALUES:
                _refused(matches, {**case.config, option: value})


def _refused(matches: list[Match], options: dict[str, Any]) -> bool:
    """Whether options are refused, in one sentence."""
    try:
        convert_all(matches, options)
    except UserError as error:
        said = str(error)
        assert said.isprintable() and said[-1] in ".?" and len(said) < 500, said
        return True
    return False
