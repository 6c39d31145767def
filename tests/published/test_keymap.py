"""Key maps: strict both ways."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmgen.errors import CheckpointError
from mmgen.published.keymap import count, load, meta, rename, shape, shown

TENSORS = {"h.0.w": torch.ones(2), "h.1.w": torch.ones(2), "mask": torch.ones(1)}
RULES = [(r"h\.(\d+)\.w", r"blocks.\1.weight"), ("mask", None)]


def test_the_first_rule_that_matches_a_whole_key_decides() -> None:
    assert list(rename(TENSORS, RULES, "x")) == ["blocks.0.weight", "blocks.1.weight"]
    turned = rename(TENSORS, [(r"h\.(\d+)\.w", lambda m: f"b{1 - int(m[1])}"), (".*", None)], "x")
    assert list(turned) == ["b1", "b0"]


def test_a_key_without_a_rule_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"x has the keys 'h.0.w', 'h.1.w' that this system"):
        rename(TENSORS, RULES[1:], "x")
    many = {f"k{i}": torch.ones(1) for i in range(5)}
    with pytest.raises(CheckpointError, match="'k2' and 2 more that"):
        rename(many, [], "x")


def test_two_keys_that_become_one_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"holds 'h.1.w' twice"):
        rename(TENSORS, [(r"h\.\d\.w", "w"), ("mask", None)], "x")


def test_loading_is_strict_both_ways() -> None:
    network = nn.Linear(2, 1)
    fits = {"weight": torch.full((1, 2), 3.0), "bias": torch.ones(1).half()}
    load(network, fits, "x")
    assert network.weight.tolist() == [[3, 3]] and network.bias.dtype == torch.float32
    load(meta(lambda: nn.Linear(2, 1)), fits, "x")  # names and shapes alone
    for wrong, said in (
        ({"weight": fits["weight"]}, "x lacks the tensor 'bias' for this network."),
        ({**fits, "extra": torch.ones(1)}, "x has the tensor 'extra' for this network."),
        ({**fits, "bias": torch.ones(2)}, r"'bias' \(2,\), not \(1,\)\); check the configuration."),
    ):
        with pytest.raises(CheckpointError, match=said):
            load(network, wrong, "x")


def test_keys_tell_a_count() -> None:
    assert count(TENSORS, r"h\.(\d+)\..*") == 2


def test_a_shape_has_the_axes_that_it_needs() -> None:
    tensors = {"w": torch.ones(2, 3), "b": torch.ones(2), "none": torch.ones(0, 3)}
    assert shape(tensors, "w", 2, "x") == shape(tensors, "w", (2, 4), "x") == (2, 3)
    for key, said in (
        ("b", r"x holds 'b' of shape \(2,\), not with 2 or 4 axes; get the file again."),
        ("none", r"x holds 'none' of shape \(0, 3\)"),
        ("c", "x lacks the tensor 'c'; get the whole file."),
    ):
        with pytest.raises(CheckpointError, match=said):
            shape(tensors, key, (2, 4), "x")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bool])
def test_what_no_network_computes_with_is_refused(dtype: torch.dtype) -> None:
    network = nn.Linear(2, 2, bias=False)
    before = network.weight.clone()
    with pytest.raises(CheckpointError, match=rf"stores 'weight' as {dtype}; get the weights in"):
        load(network, {"weight": torch.ones(2, 2).to(dtype)}, "x")
    assert torch.equal(network.weight, before)
    load(network, {"weight": torch.ones(2, 2, dtype=torch.float64)}, "x")


STRANGE = "a\n\x1b[31mred" + "x" * 200


def test_a_strange_key_is_shown_on_one_short_plain_line() -> None:
    assert shown("layers.0") == "'layers.0'"
    assert len(shown(STRANGE)) == 80
    network = nn.Module()
    network.register_buffer(STRANGE, torch.ones(1))
    strange = {STRANGE: torch.ones(2)}
    for fail in (
        lambda: rename(strange, [], "x"),
        lambda: rename({**strange, "b": torch.ones(1)}, [("(?s).*", "w")], "x"),
        lambda: rename({"b": torch.ones(1), **strange}, [("(?s).*", "w")], "x"),
        lambda: load(nn.Module(), strange, "x"),
        lambda: load(network, strange, "x"),
        lambda: shape({}, STRANGE, 1, "x"),
        lambda: shape(strange, STRANGE, 2, "x"),
    ):
        with pytest.raises(CheckpointError) as caught:
            fail()
        assert str(caught.value).isprintable() and len(str(caught.value)) < 200
