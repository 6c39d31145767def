"""Stills and clips in one epoch."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from mmgen.train.mixing import Mixing


def _stills(epoch: int, first: int) -> Iterator[tuple[str, int, int]]:
    return (("still", epoch, i) for i in range(first, 7))


def _clips(epoch: int, first: int) -> Iterator[tuple[str, int, int]]:
    return (("clip", epoch, i) for i in range(first, 3))


@given(share=st.floats(0.05, 0.9), seed=st.integers(0, 99), start=st.integers(0, 6))
def test_an_epoch_goes_on_anywhere(share: float, seed: int, start: int) -> None:
    mixing = Mixing(stills=7, clips=3, share=share, seed=seed)
    for epoch in (0, 1, 5):
        whole = list(mixing.epoch(epoch, 0, _stills, _clips))
        assert list(mixing.epoch(epoch, start, _stills, _clips)) == whole[start:]


@given(share=st.floats(0.05, 0.9), seed=st.integers(0, 99))
def test_all_stills_are_seen_once_and_clips_go_round(share: float, seed: int) -> None:
    mixing = Mixing(stills=7, clips=3, share=share, seed=seed)
    seen = [batch for epoch in range(3) for batch in mixing.epoch(epoch, 0, _stills, _clips)]
    stills = [batch[1:] for batch in seen if batch[0] == "still"]
    assert stills == [(epoch, i) for epoch in range(3) for i in range(7)]
    clips = [batch[1:] for batch in seen if batch[0] == "clip"]
    assert clips == [divmod(i, 3) for i in range(len(clips))]
    assert abs(len(clips) / len(seen) - share) < 0.1


def test_stills_alone() -> None:
    mixing = Mixing(stills=7, clips=3, share=0.0, seed=0)
    assert list(mixing.epoch(2, 5, _stills, _clips)) == [("still", 2, 5), ("still", 2, 6)]


def test_clips_alone() -> None:
    mixing = Mixing(stills=7, clips=3, share=1.0, seed=0)
    assert list(mixing.epoch(2, 1, _stills, _clips)) == [("clip", 2, 1), ("clip", 2, 2)]
