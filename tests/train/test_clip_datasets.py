"""The `clips` part of a recipe: what it opens, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny_clips import write_strips

from mmgen.data.clip_dataset import Vary
from mmgen.data.films import Limits
from mmgen.errors import ConfigError, DataError
from mmgen.train.clip_datasets import ClipDataConfig, open_held_out_clips, open_train_clips


def test_training_varies_and_evaluation_does_not(tmp_path: Path) -> None:
    shard = str(write_strips(tmp_path / "a.tar", 3, 9))
    config = ClipDataConfig(
        shard, shard, frames=4, span=0.5, crop=0.9, drop_caption=0.0, most_frames=9, most_seconds=1
    )
    train, held = open_train_clips(config, 8), open_held_out_clips(config, 8)
    assert held is not None
    assert (train.reader.vary, held.reader.vary) == (Vary(True, 0.5, 0.9), None)
    assert train.reader.limits == Limits(9, 1)
    assert next(train.epoch(0, 2, seed=0)).pixels.shape == (2, 3, 4, 8, 8)
    assert held[1].pixels.shape == (3, 4, 8, 8) and held[1].captions[0].text == "clip 1"
    assert open_train_clips(config, 8, captioned=False)[0].captions == ()
    assert open_held_out_clips(ClipDataConfig(shard), 8) is None
    with pytest.raises(DataError, match="There is no"):
        open_train_clips(ClipDataConfig(str(tmp_path / "none")), 8)


def test_a_share_of_the_clips_can_be_held_out(tmp_path: Path) -> None:
    shard = str(write_strips(tmp_path / "a.tar", 5, 4))
    config = ClipDataConfig(shard, frames=4, held_out=0.4)
    train, held = open_train_clips(config, 8), open_held_out_clips(config, 8)
    assert held is not None and held.reader.vary is None
    names = [{data[i].key for i in range(len(data))} for data in (train, held)]
    assert [len(keys) for keys in names] == [3, 2] and not names[0] & names[1]
    with pytest.raises(ConfigError, match="leave one out"):
        ClipDataConfig(shard, shard, held_out=0.4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 1.5},
        {"share": 0.0},
        {"held_out": 1.0},
        {"drop_caption": -0.1},
        {"limit_bad": 2.0},
        {"span": 0.0},
        {"crop": 1.1},
        {"frames": 0},
        {"batch_size": 0},
        {"most_frames": 0},
        {"fps": 0.0},
        {"most_seconds": 0.0},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"clips\.{name} must be"):
        ClipDataConfig("a", **wrong)
