"""Saving and loading of networks: bit for bit, strict both ways, never a pickle."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmgen.errors import CheckpointError, ConfigError
from mmgen.saving import Saved, load_strictly, read_tensors


@dataclass(frozen=True)
class NetConfig:
    width: int = 4
    groups: tuple[int, ...] = (1, 2)


class Net(nn.Module, Saved):
    config_class: ClassVar[type] = NetConfig
    steps: Tensor

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Conv2d(3, config.width, 3)
        self.decoder = nn.Linear(config.width, 2)
        self.register_buffer("steps", torch.arange(3))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


class Other(Net):
    pass


def same(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )


@pytest.fixture
def net() -> Net:
    return Net(NetConfig(groups=(3,)))


@pytest.fixture
def folder(net: Net, tmp_path: Path) -> Path:
    net.save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def test_what_is_saved_is_loaded_bit_for_bit(net: Net, folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    described = json.loads((folder / "config.json").read_text())
    assert described == {"class": "Net", "width": 4, "groups": [3]}
    loaded = Net.from_pretrained(folder)
    assert loaded.config == net.config and same(loaded, net) and not loaded.training
    assert loaded.fingerprint == net.fingerprint
    net.save_pretrained(folder)  # over an old one
    assert same(Net.from_pretrained(str(folder)), net)


def test_memory_layout_is_no_part_of_the_weights(net: Net, folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes(), net.fingerprint
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert not net.encoder.weight.is_contiguous()
    net.save_pretrained(folder)
    assert ((folder / "model.safetensors").read_bytes(), net.fingerprint) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_load_as_float32(net: Net, folder: Path, dtype: torch.dtype) -> None:
    net.save_pretrained(folder, dtype)
    stored = load_file(folder / "model.safetensors")
    assert stored["encoder.weight"].dtype == dtype and stored["steps"].dtype == torch.int64
    assert read_tensors(folder / "model.safetensors")["encoder.weight"].dtype == torch.float32
    loaded = Net.from_pretrained(folder)
    assert loaded.encoder.weight.dtype == torch.float32
    assert torch.equal(loaded.encoder.weight, net.encoder.weight.to(dtype).float())
    assert torch.equal(loaded.steps, net.steps)
    assert net.encoder.weight.dtype == torch.float32  # the saved network itself is untouched


def test_the_hash_sees_every_weight_and_the_configuration(net: Net) -> None:
    first = net.fingerprint
    assert len(first) == 16 and net.fingerprint == first
    assert Net(NetConfig(groups=(4,))).hash_of_weights(("none",)) != net.hash_of_weights(("none",))
    for name, tensor in net.state_dict().items():
        kept = tensor.clone()
        tensor.view(-1)[-1] += 1
        assert net.fingerprint != first, name
        tensor.copy_(kept)
    assert net.fingerprint == first


def test_the_hash_of_a_part_ignores_the_rest(net: Net) -> None:
    part = net.hash_of_weights(("encoder.", "steps"))
    with torch.no_grad():
        net.decoder.weight += 1
    assert net.hash_of_weights(("encoder.", "steps")) == part
    net.steps += 1
    assert net.hash_of_weights(("encoder.", "steps")) != part


def _drop(tensors: dict[str, Tensor]) -> None:
    del tensors["decoder.bias"]


def _add(tensors: dict[str, Tensor]) -> None:
    tensors["decoder.extra"] = torch.zeros(1)


def _reshape(tensors: dict[str, Tensor]) -> None:
    tensors["decoder.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, "lacks the tensor decoder.bias for this network"),
        (_add, "has the tensor decoder.extra for this network"),
        (_reshape, r"holds other sizes \(decoder.bias \(3,\), not \(2,\)\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"model.safetensors {message}"):
        Net.from_pretrained(folder)


def test_a_misfit_changes_nothing(net: Net) -> None:
    kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    wrong = {name: tensor + 1 for name, tensor in kept.items()} | {"more": torch.zeros(1)}
    with pytest.raises(CheckpointError):
        load_strictly(net, wrong, "here")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('{"class": "Net", "widht": 4}', ConfigError, "has no key 'widht'; did you mean 'width'?"),
        ('{"class": "Net", "width": "4"}', ConfigError, "width must be of type int"),
        ('{"class": "Other"}', CheckpointError, "holds a Other, not a Net"),
        ('["Net"]', CheckpointError, "config.json"),
        ("null", CheckpointError, "config.json"),
    ],
)
def test_configurations_that_do_not_fit(
    folder: Path, text: str, error: type[Exception], message: str
) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(error, match=message.replace("?", r"\?")):
        Net.from_pretrained(folder)


def test_missing_and_damaged_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no folder"):
        Net.from_pretrained(tmp_path / "nothing")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for content in (b"", whole[:20], whole[:-1], b"\xff" * 8 + whole[8:]):
        weights.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
            Net.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"There is no file .*model\.safetensors"):
        Net.from_pretrained(folder)


class Trap:
    """Unpickling it is seen."""

    sprung = False

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return _spring, ()


def _spring() -> None:
    Trap.sprung = True


def test_nothing_is_unpickled(folder: Path) -> None:
    bait = pickle.dumps(Trap())
    pickle.loads(bait)
    assert Trap.sprung
    Trap.sprung = False
    (folder / "model.safetensors").write_bytes(bait)
    with pytest.raises(CheckpointError):
        read_tensors(folder / "model.safetensors")
    assert not Trap.sprung


def test_another_class_is_refused(net: Net, tmp_path: Path) -> None:
    Other(net.config).save_pretrained(tmp_path / "net")
    with pytest.raises(CheckpointError, match="holds a Other, not a Net"):
        Net.from_pretrained(tmp_path / "net")


def test_options_that_came_later_leave_old_fingerprints_alone() -> None:
    from mmgen.config import to_dict, without_later
    from mmgen.models.units import Unit

    unit = Unit("token", "raster", "shift")
    assert without_later(unit).keys() == {"name", "order", "prediction", "weight"}
    assert to_dict(unit)["start"] == "learned"
    assert without_later(Unit("token", "raster", "shift", start="hybrid"))["start"] == "hybrid"
