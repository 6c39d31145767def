"""Codebook use over a window, against a naive recount."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.errors import CheckpointError
from mmgen.tokenizers_vis.usage import CodebookUsage

BATCHES = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(batches=BATCHES, window=st.integers(1, 5), cut=st.integers(0, 9))
def test_window_is_exact_and_resumes(batches: list[list[int]], window: int, cut: int) -> None:
    usage = CodebookUsage(10, window)
    for i, batch in enumerate(batches):
        if i == cut:
            state = usage.state_dict()
            usage = CodebookUsage(10, window)
            usage.load_state_dict(state)
        usage.update(torch.tensor(batch).view(1, -1))
    seen = [code for batch in batches[-window:] for code in batch]
    counts = torch.bincount(torch.tensor(seen), minlength=10)
    assert torch.equal(usage.counts, counts)
    assert usage.full == (len(batches) >= window)
    assert usage.used == len(set(seen)) / 10
    assert usage.dead.tolist() == sorted(set(range(10)) - set(seen))
    p = counts.double() / counts.sum()
    assert usage.perplexity == pytest.approx(float(torch.special.entr(p).sum().exp()))


def test_warning_needs_a_full_window_and_low_use() -> None:
    usage = CodebookUsage(100, window=2, threshold=0.25)
    collapsed = torch.arange(5).repeat(40)
    usage.update(collapsed)
    assert usage.warning() is None
    usage.update(collapsed)
    text = usage.warning()
    assert text is not None
    assert "5 of 100" in text
    usage.update(torch.arange(100))
    assert usage.warning() is None
    usage.update(collapsed)
    usage.update(collapsed)
    assert usage.warning() is not None  # the healthy batch has left


def test_few_tokens_are_not_taken_for_a_collapse() -> None:
    usage = CodebookUsage(2**16, window=1)
    usage.update(torch.arange(64))
    assert usage.warning() is None


def test_empty_use() -> None:
    usage = CodebookUsage(4, window=3)
    assert (usage.used, usage.perplexity, usage.full) == (0.0, 0.0, False)
    assert usage.dead.tolist() == [0, 1, 2, 3]


def test_state_of_another_codebook_is_refused() -> None:
    with pytest.raises(CheckpointError, match="4 codes"):
        CodebookUsage(5, 1).load_state_dict(CodebookUsage(4, 1).state_dict())
