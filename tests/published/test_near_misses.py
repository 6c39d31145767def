"""A file that is nearly right: what is wrong with it is named as the file names it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_cases import NAMES, SmallCase, small_case
from torch import Tensor

from mmgen.errors import UserError
from mmgen.published.importing import convert_all
from mmgen.published.matching import match
from mmgen.published.systems import Part, Shapes, parts

NOT_NEEDED = ("rope", "position_ids")  # computed anew: xAR's tables, the counting of SEED's towers
WANTED = 12  # tensors of each file that are taken away


def said_of(case: SmallCase, tensors: dict[str, Tensor]) -> str:
    """What importing a file of these tensors says; "" if it is taken."""
    changed = replace(case, checkpoint=replace(case.checkpoint, tensors=tensors))
    try:
        convert_all(changed.matches(), case.config)
    except UserError as error:
        assert str(error).isprintable() and not str(error)[:-1].endswith(".")
        return str(error)
    return ""


def is_named(key: str, said: str) -> bool:
    """Whether a key of the file occurs, perhaps without the part's own prefix."""
    return f"'{key}'" in said or f"'{key.partition('.')[2]}'" in said


@pytest.mark.parametrize("name", NAMES)
def test_one_tensor_too_few_is_named(name: str) -> None:
    case = small_case(name)
    tensors = case.checkpoint.tensors
    needed = sorted({key for found in case.matches() for key in found.part.needed})
    some = list(tensors)[:: max(1, len(tensors) // WANTED)]
    for key in dict.fromkeys((*needed, *some)):
        said = said_of(case, {other: t for other, t in tensors.items() if other != key})
        # Some are not needed, and the size that one alone tells contradicts what was said of it.
        if not said:
            assert any(word in key for word in NOT_NEEDED), f"{key} is not missed"
        elif len(tensors) > 2:  # half of a file says nothing of the other half
            assert is_named(key, said) or "leave that option out" in said, f"{key}: {said}"


# The files of the others hold more than is needed, by design.
@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith(("nbp-", "seed-v"))])
def test_one_tensor_too_many_is_named(name: str) -> None:
    case = small_case(name)
    said = said_of(case, {**case.checkpoint.tensors, "another.weight": torch.ones(1)})
    assert "'another.weight'" in said and "none of" not in said


def test_a_file_of_many_keys_is_soon_refused() -> None:
    calls = 0

    def counting(part: Part) -> Part:
        def recognise(shapes: Shapes) -> bool:
            nonlocal calls
            calls += 1
            return part.recognise(shapes)

        return replace(part, recognise=recognise)

    tensors = {f"block.{i}.weight": torch.ones(1) for i in range(20_000)}
    file = replace(small_case("llamagen-c2i-tiny").checkpoint, tensors=tensors)
    with pytest.raises(UserError, match="is none of llamagen's files"):
        match("llamagen", [file], [counting(part) for part in parts()])
    assert calls < 50 * len(parts())


def test_many_are_counted() -> None:
    case = small_case("llamagen-c2i-tiny")
    strays = {f"extra.{i}": torch.ones(1) for i in range(5)}
    assert "'extra.0', 'extra.1', 'extra.2' and 2 more" in said_of(
        case, {**case.checkpoint.tensors, **strays}
    )
    gaps = {key: t for key, t in case.checkpoint.tensors.items() if "ffn_norm" not in key}
    assert "'layers.0.ffn_norm.weight', 'layers.1.ffn_norm.weight', 'layers.2." in said_of(
        case, gaps
    )


def test_a_file_far_from_all_kinds_is_not_said_to_be_near_one() -> None:
    case = small_case("xar-tiny")
    far = {f"strange.{i}": torch.ones(1) for i in range(9)}
    for tensors in (far, {**far, "z_proj_ln.weight": torch.ones(1)}):
        assert "is none of xar's files" in said_of(case, tensors)
