"""Official files: where weights lie, and what is refused instead of run."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import sys
import tarfile
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_systems import Evil, save, save_pickle
from safetensors.torch import save_file

from mmgen.errors import CheckpointError
from mmgen.files import sha256_of
from mmgen.published.reading import LARGEST_PICKLE, read_checkpoint

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(7)}
AVERAGED = {"a.weight": torch.full((2, 3), 9.0)}
DECAY = torch.tensor(0.9)


def same(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return tensors.keys() == expected.keys() and all(
        torch.equal(tensors[k], expected[k]) for k in expected
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: collections.OrderedDict(w),
        lambda w: {"model": w, "optimizer": {"state": {0: {"m": w["a.weight"]}}}, "steps": 3},
        lambda w: {"state_dict": w, "epoch": 1},
        lambda w: {"model_state_dict": w},
        lambda w: {"module": w},
        lambda w: {"model": {"name": "x", "args": {}, "sd": w}},
        lambda w: {"model": w, "ema": {}},
        lambda w: {"model": w, "ema": None},
        lambda w: {"model": {f"module.{k}": v for k, v in w.items()}},
        lambda w: {f"module._orig_mod.{k}": v for k, v in w.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found(wrap: Any, zipped: bool, tmp_path: Path) -> None:
    path = save(tmp_path / "x.pt", wrap(WEIGHTS), _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(path)
    assert same(read.tensors, WEIGHTS)
    assert (read.path, read.sha256, read.note) == (path, sha256_of(path), "")


def test_safetensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({f"module.{k}": v for k, v in WEIGHTS.items()}, path)
    read = read_checkpoint(path)
    assert same(read.tensors, WEIGHTS) and read.sha256 == sha256_of(path)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"model": WEIGHTS, "ema": AVERAGED}, "ema"),
        ({"model": WEIGHTS, "model_ema": AVERAGED, "args": argparse.Namespace(lr=1)}, "model_ema"),
        ({"model": {f"module.{k}": v for k, v in WEIGHTS.items()}, "ema": AVERAGED}, "ema"),
        ({"ema": {"decay": 0.9, "module": AVERAGED}, "state_dict": WEIGHTS}, "ema"),
        ({"model": WEIGHTS, "ema": {"decay": 0.9, "shadow": AVERAGED}}, "ema"),
        ({"model": WEIGHTS, "ema": {"decay": DECAY}, "ema_model": AVERAGED}, "ema_model"),
    ],
)
def test_averages_are_preferred_and_buffers_kept(content: Any, where: str, tmp_path: Path) -> None:
    read = read_checkpoint(save(tmp_path / "x.pth", content))
    assert read.note == f"EMA weights ({where})"
    assert same(read.tensors, {**WEIGHTS, **AVERAGED})


@pytest.mark.parametrize(
    "average",
    [
        {"decay": DECAY},
        {"decay": 0.9, "shadow_params": [AVERAGED["a.weight"]]},
        {"decay": DECAY, "aweight": AVERAGED["a.weight"]},
    ],
)
def test_an_average_that_is_not_read_is_said(average: Any, tmp_path: Path) -> None:
    read = read_checkpoint(save(tmp_path / "x.pt", {"ema": average, "state_dict": WEIGHTS}))
    assert same(read.tensors, WEIGHTS)
    assert read.note == "live weights; the average (ema) not read"


def test_buffers_of_lightning_stay_where_they_are(tmp_path: Path) -> None:
    weights = {**WEIGHTS, "model_ema.aweight": torch.zeros(2, 3), "model_ema.decay": torch.ones(())}
    read = read_checkpoint(save(tmp_path / "x.ckpt", {"state_dict": weights}))
    assert same(read.tensors, weights) and read.note == ""


def test_what_lies_beside_the_weights_is_plain(tmp_path: Path) -> None:
    args = argparse.Namespace(n_head=4, deep=types.SimpleNamespace(k=16), mask=torch.ones(2))
    content = {
        "hyper_parameters": {"args": args, "keys": ("video", torch.ones(1))},
        "model": {"name": "transformer", "sd": WEIGHTS},
        "optimizer": {"lr": 1.0},
        "ema": {"step": 3},
    }
    assert read_checkpoint(save(tmp_path / "x.ckpt", content)).extras == {
        "hyper_parameters": {"args": {"n_head": 4, "deep": {"k": 16}}, "keys": ["video"]},
        "name": "transformer",
        "ema": {"step": 3},
    }


def test_settings_may_be_nested_without_end(tmp_path: Path) -> None:
    endless: dict[str, Any] = {"k": 4}
    endless["again"] = endless
    read = read_checkpoint(save(tmp_path / "x.pt", {"model": WEIGHTS, "args": endless}))
    assert read.extras["args"]["again"]["k"] == 4
    path = save(tmp_path / "y.pt", {"model": WEIGHTS, "args": "DEEP"})
    word = b"X\x04\0\0\0DEEP"
    _replace(path, lambda pickled: pickled.replace(word, b"]" * 5000 + b"a" * 4999))
    assert isinstance(read_checkpoint(path).extras["args"], list)


def _replace(path: Path, change: Callable[[bytes], bytes], **options: Any) -> None:
    """Change the pickle in an archive."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in content.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


# -- refused -----------------------------------------------------------------------------------


def refused(path: Path, *said: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(str(path)) or str(path) in text
    assert text.isprintable() and text.endswith(".") and len(text) < 400
    for part in said:
        assert part in text


def test_code_is_named_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"model": WEIGHTS, "x": Evil()}
    refused(save(tmp_path / "zip.pt", content), "asks for code that is not run", "posix.system")
    old = save(tmp_path / "old.pt", content, _use_new_zipfile_serialization=False)
    refused(old, "posix.system", "save its tensors alone, as safetensors")
    refused(save_pickle(tmp_path / "bare.pkl", Evil()), "posix.system")
    for protocol in (0, 2, 4, 5):
        path = tmp_path / f"{protocol}.bin"
        path.write_bytes(pickle.dumps({"w": Evil()}, protocol))
        refused(path, "posix.system")
    assert not (tmp_path / "was-here").exists()


def test_configuration_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type("DictConfig", (), {"__module__": "omegaconf.dictconfig"})
    for name in ("omegaconf", "omegaconf.dictconfig"):
        module = types.ModuleType(name)
        module.DictConfig = kind  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    path = save(tmp_path / "x.ckpt", {"state_dict": WEIGHTS, "config": kind()})
    refused(path, "omegaconf.dictconfig.DictConfig")


def test_many_names_are_counted(tmp_path: Path) -> None:
    blocked = [pickle.Pickler, io.StringIO, tarfile.TarFile, Path, Evil]
    refused(save(tmp_path / "x.pt", {"model": WEIGHTS, "x": blocked}), " and 2 more)")


def test_a_pickle_that_unpacks_to_much_is_not_unpacked(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pt", {"model": WEIGHTS, "x": Evil()})
    padding = bytes(LARGEST_PICKLE)
    _replace(path, lambda pickled: pickled + padding, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    refused(path, "holds a pickle of 671", "more than 67108864; save its tensors alone")


def _quantized() -> torch.Tensor:
    with warnings.catch_warnings(action="ignore"):
        return torch.quantize_per_tensor(torch.zeros(2, 3), 1.0, 0, torch.qint8)


@pytest.mark.parametrize(
    "strange",
    [
        torch.empty(2, 3, device="meta"),
        torch.zeros(1).expand(10**13, 3),
        torch.zeros(2, 3).to_sparse(),
        _quantized(),
    ],
    ids=["meta", "stride 0", "sparse", "quantized"],
)
def test_tensors_without_values_are_refused(strange: torch.Tensor, tmp_path: Path) -> None:
    for content in ({"a": strange}, {"model": WEIGHTS, "ema": {"a.weight": strange}}):
        refused(save(tmp_path / "x.pt", content), "does not hold all values of 'a")


def test_views_that_hold_their_values_are_read(tmp_path: Path) -> None:
    weights = {"t": torch.arange(6.0).reshape(2, 3).T, "none": torch.zeros(0, 3)}
    assert same(read_checkpoint(save(tmp_path / "x.pt", weights)).tensors, weights)


def test_strange_names_are_said_on_one_plain_line(tmp_path: Path) -> None:
    strange = "a\n\x1b[31mred" + "x" * 200
    refused(save(tmp_path / "x.pt", {strange: 3}), "only 'a\\n\\x1b[31mred")
    content = {strange: torch.empty(1, device="meta")}
    refused(save(tmp_path / "x.pt", content), "values of 'a\\n\\x1b[31mred")
    kind = b"\x80\x04\x8c\x05a\n\x1b[3\x8c\x01b\x93."
    path = tmp_path / "y.bin"
    path.write_bytes(kind)
    refused(path)


def test_a_tar_of_old_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with tarfile.open(path, "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    refused(path, "PyTorch's tar format")


def test_a_program_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    refused(path, "TorchScript program")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_damaged(zipped: bool, share: float, tmp_path: Path) -> None:
    content = {"model": {"w": torch.randn(50, 50)}}
    path = save(tmp_path / "x.pt", content, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, "damaged or no checkpoint; download it again")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_cut_safetensors_are_damaged(share: float, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"w": torch.randn(50, 50)}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, "is damaged (", "download it again")


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_other_places_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(CheckpointError, match="There is no file"):
        read_checkpoint(path)
    path.touch()
    refused(path, "is empty; download it again")
    for page in ("<!DOCTYPE html> Not found, please log in", "\ufeff\n <HTML><body>", "<head>"):
        path.write_text(page, encoding="utf-8")
        refused(path, "is a web page, not a checkpoint; download the file itself")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n")
    refused(path, "is a Git LFS pointer; fetch it with `git lfs pull`")
    refused(tmp_path, "is a folder; give the checkpoint file that lies in it")
    refused(tmp_path / ("x" * 300), "cannot be read: File name too long")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "holds no weights."),
        ({"epoch": 3, "args": {}}, "holds no weights, only 'epoch', 'args'."),
        ([torch.ones(2)], "holds no weights but a list."),
        (torch.ones(2), "holds no weights but a Tensor."),
        ({"model": {"w": torch.ones(2), "x": 3}}, "holds no weights, only 'model'."),
        ({"model": {"model": {"model": {"model": WEIGHTS}}}}, "holds no weights, only 'model'."),
    ],
)
def test_a_file_without_weights_is_refused(content: Any, said: str, tmp_path: Path) -> None:
    refused(save(tmp_path / "x.pt", content), said)
