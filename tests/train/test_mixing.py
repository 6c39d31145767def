"""Stills and clips in one stream."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from mmgen.train.mixing import Mixing


def _stills(epoch: int, first: int) -> Iterator[tuple[str, int, int]]:
    return (("still", epoch, i) for i in range(first, 7))


def _clips(epoch: int, first: int) -> Iterator[tuple[str, int, int]]:
    return (("clip", epoch, i) for i in range(first, 3))


def _stream(mixing: Mixing, epochs: int = 3) -> list[tuple[str, int, int]]:
    return [batch for epoch in range(epochs) for batch in mixing.epoch(epoch, 0, _stills, _clips)]


shares, together = st.floats(0.05, 0.9), st.integers(1, 4)


@given(share=shares, together=together, start=st.integers(0, 6))
def test_an_epoch_goes_on_anywhere(share: float, together: int, start: int) -> None:
    mixing = Mixing(7, 3, share, together)
    for epoch in (0, 1, 5):
        whole = list(mixing.epoch(epoch, 0, _stills, _clips))
        assert list(mixing.epoch(epoch, start, _stills, _clips)) == whole[start:]


@given(share=shares, together=together)
def test_both_go_round_in_order(share: float, together: int) -> None:
    seen = _stream(Mixing(7, 3, share, together))
    for kind, count in (("still", 7), ("clip", 3)):
        own = [batch[1:] for batch in seen if batch[0] == kind]
        assert own == [divmod(i, count) for i in range(len(own))]


@given(share=shares, together=together)
def test_all_batches_of_a_step_are_of_one_kind(share: float, together: int) -> None:
    mixing = Mixing(7, 3, share, together)
    seen = _stream(mixing, 5)
    steps = [seen[i : i + together] for i in range(0, len(seen), together)]  # across epochs
    for number, batches in enumerate(steps):
        kinds = {batch[0] for batch in batches}
        assert kinds == {"clip" if mixing.is_clip(number) else "still"}


@given(share=shares, steps=st.integers(1, 500))
def test_the_share_is_exact_at_every_step(share: float, steps: int) -> None:
    mixing = Mixing(7, 3, share)
    clips = sum(mixing.is_clip(step) for step in range(steps))
    assert share * steps - 1 < clips <= share * steps and not mixing.is_clip(0)


def test_an_epoch_shows_all_stills() -> None:
    assert [batch[0] for batch in _stream(Mixing(7, 3, 0.3), 1)].count("still") == 7


def test_stills_alone() -> None:
    mixing = Mixing(stills=7, clips=3, share=0.0)
    assert list(mixing.epoch(2, 5, _stills, _clips)) == [("still", 2, 5), ("still", 2, 6)]


def test_clips_alone() -> None:
    mixing = Mixing(stills=0, clips=3, share=1.0)
    assert list(mixing.epoch(2, 1, _stills, _clips)) == [("clip", 2, 1), ("clip", 2, 2)]
