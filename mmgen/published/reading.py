"""Official checkpoint files, opened without running what they hold.

Pickles are read with `weights_only=True` and a short list of plain containers; whatever else a file
asks for is named and refused. The weights may lie bare or under a key, averaged ones are preferred.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pickletools
import re
import types
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from mmgen.errors import CheckpointError
from mmgen.files import sha256_of

# Plain containers, in which training scripts keep their settings. PyTorch's own list is added.
ALLOWED: list[Any] = [argparse.Namespace, types.SimpleNamespace]
# Where the weights lie, averaged ones first.
AVERAGED = ("model_ema", "ema", "ema_state_dict", "state_dict_ema", "ema_model")
WRAPPERS = ("model", "module", "state_dict", "model_state_dict", "sd", "net", "weights")
DEEPEST = 3
# A file before PyTorch 1.6 is a row of pickles, the fourth of which holds the content.
PICKLES = 4
# What parallel and compiled training puts before every key.
TRAINING_PREFIXES = ("module.", "_orig_mod.")

_ASKS_FOR_MORE = re.compile(r"GLOBAL \S+ (was not|whose module)|Unsupported operand|allowlisted")


@dataclass(frozen=True)
class Checkpoint:
    """One official file.

    Args:
        path: where it lies.
        sha256: of the whole file.
        tensors: the weights by official key; a `module.` before all of them is cut off.
        extras: what lies beside the weights, tensors left out, namespaces as dicts.
        note: what is worth telling, such as "EMA weights (model_ema)"; "" if nothing.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    extras: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Open an official file (.pt, .pth, .ckpt, .bin or .safetensors).

    Raises:
        CheckpointError: it is missing, a folder, empty or damaged, asks for code, or holds no
            weights.
    """
    path = Path(path)
    _refuse_what_is_no_file(path)
    if path.suffix == ".safetensors":
        return Checkpoint(path, sha256_of(path), _bare(_read_safetensors(path)))
    data = _unpickle(path)
    found = _find(data, AVERAGED + WRAPPERS)
    if found is None:
        raise CheckpointError(f"{path} holds no weights{_what_it_holds(data)}.")
    keys, tensors = found
    note = ""
    averaged = next((key for key in keys if key in AVERAGED), None)
    if averaged:
        note = f"EMA weights ({averaged})"
        tensors = _completed(tensors, data)
    return Checkpoint(path, sha256_of(path), _bare(tensors), _extras(data, keys), note)


def _refuse_what_is_no_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder; give the checkpoint file that lies in it.")
        if not path.exists():
            raise CheckpointError(f"There is no file {path}; check the path.")
        if path.stat().st_size == 0:
            raise CheckpointError(f"{path} is empty; download it again.")
        with path.open("rb"):
            pass
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); download it again.") from None


def _unpickle(path: Path) -> Any:
    whole = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=whole)
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise nearly anything, down to KeyError
        raise _refusal(path, error) from None


def _refusal(path: Path, error: Exception) -> CheckpointError:
    """One sentence for what PyTorch says in many."""
    said = str(error)
    if _ASKS_FOR_MORE.search(said) and (names := _asked_for(path)):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return CheckpointError(
            f"{path} asks for code that is not run ({', '.join(names[:3])}{more}); "
            "save its tensors alone, as safetensors."
        )
    if "legacy .tar format" in said:
        return CheckpointError(
            f"{path} has PyTorch's tar format, which cannot be read safely; save it again as "
            "safetensors."
        )
    if "TorchScript" in said:
        return CheckpointError(f"{path} is a TorchScript program; give the file of its weights.")
    return CheckpointError(f"{path} is damaged or no checkpoint; download it again.")


def _asked_for(path: Path) -> list[str]:
    """What the pickle in a file asks for beyond PyTorch's and our plain containers."""
    allowed = {f"{kind.__module__}.{kind.__qualname__}" for kind in ALLOWED}
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            names = _names(file)
        else:
            with zipfile.ZipFile(file) as archive:
                inner = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
                names = _names(io.BytesIO(archive.read(inner))) if inner else []
    plain = ("torch.", "collections.", "_codecs.")
    return [
        name for name in dict.fromkeys(names) if not name.startswith(plain) and name not in allowed
    ]


def _names(file: IO[bytes]) -> list[str]:
    """Dotted names in the pickles of a file, taken from their instructions: none is carried out."""
    names: list[str] = []
    file.seek(0)
    with contextlib.suppress(Exception):  # a pickle's end, or what is no pickle
        for _ in range(PICKLES):
            words: list[str] = []
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    names.append(str(argument).replace(" ", "."))
                elif operation.name == "STACK_GLOBAL":
                    names.append(".".join(words[-2:]))
                elif isinstance(argument, str):
                    words.append(argument)
    return names


# -- where the weights lie -----------------------------------------------------------------------


def _is_weights(data: Any) -> bool:
    return (
        isinstance(data, Mapping)
        and bool(data)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in data.items())
    )


def _find(
    data: Any, wrappers: tuple[str, ...], deepest: int = DEEPEST
) -> tuple[tuple[str, ...], dict[str, Tensor]] | None:
    """The keys that lead to the weights, and the weights."""
    if _is_weights(data):
        return (), dict(data)
    if not isinstance(data, Mapping) or deepest == 0:
        return None
    for key in wrappers:
        found = _find(data.get(key), wrappers, deepest - 1)
        if found:
            return (key, *found[0]), found[1]
    return None


def _completed(averaged: dict[str, Tensor], data: Any) -> dict[str, Tensor]:
    """Averaged weights with the buffers that only the live ones have."""
    live = _find(data, WRAPPERS)
    if live is None:
        return averaged
    averaged, raw = _bare(averaged), _bare(live[1])
    return {**raw, **averaged} if set(averaged) <= set(raw) else averaged


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys without what training puts before every one of them."""
    for prefix in TRAINING_PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return tensors


# -- what lies beside them -----------------------------------------------------------------------


def _extras(data: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """What lies beside the weights, on every level that leads to them."""
    found: dict[str, Any] = {}
    for key in keys:
        beside = {str(k): v for k, v in data.items() if k != key and not _is_weights(v)}
        found |= {name: _plain(value) for name, value in beside.items() if name != "optimizer"}
        data = data[key]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if not isinstance(v, Tensor)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value if not isinstance(item, Tensor)]
    return value


def _what_it_holds(data: Any) -> str:
    if not isinstance(data, Mapping):
        return f" but a {type(data).__name__}"
    names = [f"'{key}'" for key in data]
    return f", only {', '.join(names[:3])}" if names else ""
