"""Official key names to ours: rules, applied strictly, so that no tensor is left over or missing.

A rule is a regular expression and what its match becomes: our name (with groups as `\\1`), a
function of the match, or None for a tensor that is not needed. The first rule that matches a whole
key decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from mmgen.errors import CheckpointError
from mmgen.published.renamed import Renamed, Target, ruled
from mmgen.saving import listed, refuse_misfits

Rules = Iterable[tuple[str, Target]]
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LONGEST_KEY = 80  # characters of a key in a message


def rename(tensors: Mapping[str, Tensor], rules: Rules, where: str) -> Renamed:
    """Rename official tensors.

    Args:
        tensors: by official key.
        rules: pattern and target pairs.
        where: what to call the file in messages.

    Raises:
        CheckpointError: no rule knows a key, or two keys become one.
    """
    compiled = [(re.compile(pattern), target) for pattern, target in rules]
    renamed = Renamed(tensors, compiled)
    unknown: list[str] = []
    for key, tensor in tensors.items():
        known, name = ruled(key, compiled)
        if not known:
            unknown.append(key)
        if name is None:
            continue
        if name in renamed:
            raise CheckpointError(f"{where} holds {shown(key)} twice under different names.")
        renamed.take(name, key, tensor)
    if unknown:
        raise CheckpointError(
            f"{where} has {listed('key', unknown, shown)} that this system lacks."
        )
    return renamed


def load(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put renamed tensors into a network, strictly both ways.

    Args:
        network: ours, on any device; on the meta device only names and shapes are checked.
        tensors: by our names.
        where: what to call the file in messages.

    Raises:
        CheckpointError: a tensor is missing, left over, of another shape or not finite; names the
            first three, by their official names where `tensors` knows them.
    """
    own = network.state_dict()
    official = tensors.official if isinstance(tensors, Renamed) else str
    refuse_misfits(own, tensors, where, lambda name: shown(official(name)))
    stored = next((name for name in own if not _has_float(own[name], tensors[name])), None)
    if stored is not None:
        raise CheckpointError(
            f"{where} stores {shown(official(stored))} as {tensors[stored].dtype}; get the weights "
            "in float32, bfloat16 or float16."
        )
    broken = next((name for name in own if not _finite(tensors[name])), None)
    if broken is not None:
        raise CheckpointError(
            f"{where} holds {shown(official(broken))} with values that are not finite (NaN or "
            "infinite); get the file again."
        )
    with torch.no_grad():
        for name, tensor in own.items():
            if not tensor.is_meta:
                tensor.copy_(tensors[name])


def meta(build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose tensors have shapes and no values, for checking names at any size."""
    with torch.device("meta"):
        return build()


def shape(
    tensors: Mapping[str, Tensor], key: str, axes: int | Collection[int], where: str
) -> tuple[int, ...]:
    """Shape of a tensor that tells a size.

    Args:
        tensors: by key.
        key: which one.
        axes: how many it has, or how many it may have.
        where: what to call the file in messages.

    Raises:
        CheckpointError: there is none of that name, or it has other axes or an empty one.
    """
    name = shown(tensors.official(key) if isinstance(tensors, Renamed) else key)
    if key not in tensors:
        raise CheckpointError(f"{where} lacks the tensor {name}; get the whole file.")
    found = tuple(tensors[key].shape)
    allowed = (axes,) if isinstance(axes, int) else tuple(axes)
    if len(found) not in allowed or 0 in found:
        raise CheckpointError(
            f"{where} holds {name} of shape {found}, not with "
            f"{' or '.join(map(str, allowed))} axes; get the file again."
        )
    return found


def shown(key: str) -> str:
    """A key of a file as a message may hold it: quoted, on one line, not longer than 80 letters."""
    text = ascii(key)
    return text if len(text) <= LONGEST_KEY else f"{text[: LONGEST_KEY - 3]}..."


def refuse_halves(tensors: Mapping[str, Tensor], words: Collection[str], where: str) -> None:
    """Refuse one of several tensors that become one of ours where another one is missing.

    Args:
        tensors: by official key.
        words: what tells their keys apart, such as ("query", "key", "value").
        where: what to call the file in messages.

    Raises:
        CheckpointError: names the first ones that are missing.
    """
    keys = [(key, word) for key in tensors for word in words if f".{word}." in f".{key}."]
    wanted = [
        f".{key}.".replace(f".{word}.", f".{other}.")[1:-1] for key, word in keys for other in words
    ]
    missing = [key for key in dict.fromkeys(wanted) if key not in tensors]
    if missing:
        raise CheckpointError(f"{where} lacks {listed('tensor', missing, shown)} for this network.")


def count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many different first groups of `pattern` occur, such as the number of layers."""
    matches = (re.fullmatch(pattern, key) for key in tensors)
    return len({match[1] for match in matches if match})


def _has_float(own: Tensor, given: Tensor) -> bool:
    """Whether a tensor holds what a network computes with: not integers or 8-bit floats."""
    return not own.is_floating_point() or given.dtype in FLOATS


def _finite(tensor: Tensor) -> bool:
    return tensor.is_meta or not tensor.is_floating_point() or bool(tensor.isfinite().all())
