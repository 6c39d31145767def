"""Checkpoint folders: whole or ignored, the last ones kept, nothing pickled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmgen.errors import CheckpointError, UserError
from mmgen.train.checkpoint import Checkpoint, load, newest, replacing_folder, save


def sample(step: int) -> Checkpoint:
    shared = torch.arange(6.0)
    tensors: dict[str, dict[str, Tensor]] = {
        "network-model": {"a": shared, "tied": shared, "view": shared.view(2, 3).t()},
        "optimizer-model": {"a/step": torch.tensor(float(step)), "half": torch.ones(2).bfloat16()},
        "task": {},
    }
    return Checkpoint(tensors, {"step": step, "note": "ü", "sum": 0.1})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save(tmp_path, sample(3), keep_last=1)
    assert path == tmp_path / "step-3"
    found, warnings = newest(tmp_path)
    assert (found, warnings) == (path, [])
    back, want = load(path), sample(3)
    assert back.state == want.state
    assert back.tensors.keys() == want.tensors.keys()
    for part, tensors in want.tensors.items():
        assert back.tensors[part].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(back.tensors[part][name], tensor)
            assert back.tensors[part][name].dtype == tensor.dtype
            assert back.tensors[part][name].data_ptr() % 64 == 0
    with pytest.raises(CheckpointError, match="has no 'network-critic'"):
        back.part("network-critic")


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 8, 10):
        save(tmp_path, sample(step), keep_last=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-10", "step-8"]
    # A run that went back (later checkpoints were damaged) must not remove what it just wrote.
    save(tmp_path, sample(5), keep_last=1)
    assert (tmp_path / "step-5").is_dir()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda p: (p / "manifest.json").unlink(),
    "half a manifest": lambda p: (p / "manifest.json").write_text('{"format": 1, "fil'),
    "manifest of another shape": lambda p: (p / "manifest.json").write_text("[1, 2]"),
    "manifest of another version": lambda p: (p / "manifest.json").write_text(
        (p / "manifest.json").read_text().replace('"format": 1', '"format": 2')
    ),
    "one bit": lambda p: flip(p / "network-model.safetensors"),
    "one bit of the state": lambda p: flip(p / "state.json"),
    "cut short": lambda p: (p / "optimizer-model.safetensors").write_bytes(b"12"),
    "a missing file": lambda p: (p / "task.safetensors").unlink(),
    "no state listed": lambda p: (p / "manifest.json").write_text(
        json.dumps({"format": 1, "files": []})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_named_and_ignored(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        save(tmp_path, sample(step), keep_last=2)
    DAMAGES[damage](tmp_path / "step-2")
    found, warnings = newest(tmp_path)
    assert found == tmp_path / "step-1"
    assert len(warnings) == 1
    assert str(tmp_path / "step-2") in warnings[0]
    save(tmp_path, sample(2), keep_last=2)  # the run comes to step 2 again
    assert newest(tmp_path) == (tmp_path / "step-2", [])


def test_other_things_in_the_folder_do_not_count(tmp_path: Path) -> None:
    (tmp_path / ".partial-step-9-1").mkdir()
    (tmp_path / "step-x").mkdir()
    (tmp_path / "step-07").mkdir()
    assert newest(tmp_path) == (None, [])
    assert newest(tmp_path / "nowhere") == (None, [])


def test_failed_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "final"
    with replacing_folder(target) as place:
        (place / "a").write_text("old")
    with pytest.raises(KeyError), replacing_folder(target) as place:
        (place / "a").write_text("new")
        raise KeyError
    with pytest.raises(UserError, match="No space left"), replacing_folder(target) as place:
        raise OSError(28, "No space left on device")
    assert (target / "a").read_text() == "old"
    with replacing_folder(target) as place:
        (place / "sub").mkdir()
        (place / "sub" / "b").write_text("new")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["b", "final", "sub"]
