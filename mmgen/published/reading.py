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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from mmgen.errors import CheckpointError
from mmgen.files import sha256_of
from mmgen.published.keymap import shown

# Plain containers, in which training scripts keep their settings. PyTorch's own list is added.
ALLOWED: list[Any] = [argparse.Namespace, types.SimpleNamespace]
# Where the weights lie, averaged ones first.
AVERAGED = ("model_ema", "ema", "ema_state_dict", "state_dict_ema", "ema_model", "shadow")
WRAPPERS = ("model", "module", "state_dict", "model_state_dict", "sd", "net", "weights")
DEEPEST = 3
# How deep settings may be nested; what lies deeper is left out.
DEEPEST_EXTRA = 10
# Bytes. A pickle of key names and settings is far smaller; PyTorch would unpack any in memory.
LARGEST_PICKLE = 64 * 2**20
# A file before PyTorch 1.6 is a row of pickles, the fourth of which holds the content.
PICKLES = 4
# What parallel and compiled training puts before every key.
TRAINING_PREFIXES = ("module.", "_orig_mod.")
# What stands in a file's place where its download went wrong, by how it begins.
BEGINNING = 256  # bytes
LFS_POINTER = b"version https://git-lfs"
WEB_PAGE = (b"<!doctype html", b"<html", b"<head")

_ASKS_FOR_MORE = re.compile(r"GLOBAL \S+ (was not|whose module)|Unsupported operand|allowlisted")


@dataclass(frozen=True)
class Checkpoint:
    """One official file.

    Args:
        path: where it lies.
        sha256: of the whole file.
        tensors: the weights by official key; a `module.` before all of them is cut off.
        extras: what lies beside the weights under names, tensors left out, namespaces as dicts.
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
            weights, or tensors without values.
    """
    path = Path(path)
    _refuse_what_is_no_file(path)
    if path.suffix == ".safetensors":
        return Checkpoint(path, sha256_of(path), _bare(_read_safetensors(path)))
    data = _unpickle(path)
    found = _chosen(data)
    if found is None:
        raise CheckpointError(f"{path} holds no weights{_what_it_holds(data)}.")
    keys, tensors, note = found
    for key, tensor in tensors.items():
        if not _has_values(tensor):
            raise CheckpointError(
                f"{path} does not hold all values of {shown(key)}; save its tensors whole, as "
                "safetensors."
            )
    return Checkpoint(path, sha256_of(path), tensors, _extras(data, keys), note)


def _refuse_what_is_no_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder; give the checkpoint file that lies in it.")
        if not path.exists():
            raise CheckpointError(f"There is no file {path}; check the path.")
        if path.stat().st_size == 0:
            raise CheckpointError(f"{path} is empty; download it again.")
        with path.open("rb") as file:
            start = file.read(BEGINNING)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    if start.startswith(LFS_POINTER):
        raise CheckpointError(f"{path} is a Git LFS pointer; fetch it with `git lfs pull`.")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(WEB_PAGE):
        raise CheckpointError(
            f"{path} is a web page, not a checkpoint; download the file itself, for which a site "
            "may want a login or a confirmation."
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged ({shown(str(error))}); download it again."
        ) from None


def _unpickle(path: Path) -> Any:
    whole = zipfile.is_zipfile(path)
    try:
        if whole:
            _refuse_large_pickle(path)
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=whole)
    except (MemoryError, CheckpointError):
        raise
    except Exception as error:  # damaged files raise nearly anything, down to KeyError
        raise _refusal(path, error) from None


def _refuse_large_pickle(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".pkl") and entry.file_size > LARGEST_PICKLE:
                raise CheckpointError(
                    f"{path} holds a pickle of {entry.file_size} bytes, more than "
                    f"{LARGEST_PICKLE}; save its tensors alone, as safetensors."
                )


def _refusal(path: Path, error: Exception) -> CheckpointError:
    """One sentence for what PyTorch says in many."""
    said = str(error)
    if _ASKS_FOR_MORE.search(said) and (names := _asked_for(path)):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return CheckpointError(
            f"{path} asks for code that is not run ({', '.join(map(shown, names[:3]))}{more}); "
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
                small = inner and archive.getinfo(inner).file_size <= LARGEST_PICKLE
                names = _names(io.BytesIO(archive.read(inner))) if inner and small else []
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


def _places(
    data: Any, deepest: int = DEEPEST
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Keys that lead to weights, and the weights, averaged ones first on every level."""
    if _is_weights(data):
        yield (), _bare(dict(data))
    elif isinstance(data, Mapping) and deepest:
        for key in AVERAGED + WRAPPERS:
            for keys, tensors in _places(data.get(key), deepest - 1):
                yield (key, *keys), tensors


def _chosen(data: Any) -> tuple[tuple[str, ...], dict[str, Tensor], str] | None:
    """The keys that lead to the best weights, the weights, and what to tell of them.

    Averages are completed by the buffers that only the live weights have. What has no key of the
    live weights is no average of them, such as its bookkeeping.
    """
    places = list(_places(data))
    live = next((tensors for keys, tensors in places if not _average(keys)), {})
    for keys, tensors in places:
        name = _average(keys)
        if not name:
            unread = _unread(data, keys)
            return keys, tensors, f"live weights; the average ({unread}) not read" if unread else ""
        if not live or live.keys() & tensors.keys():
            whole = {**live, **tensors} if tensors.keys() <= live.keys() else tensors
            return keys, whole, f"EMA weights ({name})"
    return None


def _average(keys: tuple[str, ...]) -> str:
    """The key that says that what it leads to is averaged, or ""."""
    return next((key for key in keys if key in AVERAGED), "")


def _unread(data: Any, keys: tuple[str, ...]) -> str:
    """The name of an average that lies beside the weights, or ""."""
    for key in keys:
        for name in AVERAGED:
            if _holds_tensors(data.get(name)):
                return name
        data = data[key]
    return ""


def _holds_tensors(data: Any, deepest: int = DEEPEST) -> bool:
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, (list, tuple)) and deepest:
        return any(_holds_tensors(item, deepest - 1) for item in data)
    return isinstance(data, Tensor)


def _has_values(tensor: Tensor) -> bool:
    """Whether every value lies in memory: not on the meta device, sparse, or one for many rows."""
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_quantized:
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


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
        left_out = (key, "optimizer")
        found |= _plain({k: v for k, v in data.items() if k not in left_out and not _is_weights(v)})
        data = data[key]
    return found


def _plain(value: Any, deepest: int = DEEPEST_EXTRA) -> Any:
    if isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
        value = vars(value)
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if not deepest:
        return None
    if isinstance(value, Mapping):
        named = {k: v for k, v in value.items() if isinstance(k, str) and not isinstance(v, Tensor)}
        return {k: _plain(v, deepest - 1) for k, v in named.items()}
    return [_plain(item, deepest - 1) for item in value if not isinstance(item, Tensor)]


def _what_it_holds(data: Any) -> str:
    if not isinstance(data, Mapping):
        return f" but a {type(data).__name__}"
    names = [shown(key) for key in data if isinstance(key, str)]
    return f", only {', '.join(names[:3])}" if names else ""
