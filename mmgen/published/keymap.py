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
from mmgen.saving import listed, refuse_misfits

Target = str | Callable[[re.Match[str]], str] | None
Rules = Iterable[tuple[str, Target]]
LONGEST_KEY = 80  # characters of a key in a message


def rename(tensors: Mapping[str, Tensor], rules: Rules, where: str) -> dict[str, Tensor]:
    """Rename official tensors.

    Args:
        tensors: by official key.
        rules: pattern and target pairs.
        where: what to call the file in messages.

    Raises:
        CheckpointError: no rule knows a key, or two keys become one.
    """
    compiled = [(re.compile(pattern), target) for pattern, target in rules]
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, tensor in tensors.items():
        found = next(((m, to) for p, to in compiled if (m := p.fullmatch(key))), None)
        if found is None:
            unknown.append(key)
            continue
        match, target = found
        if target is None:
            continue
        name = match.expand(target) if isinstance(target, str) else target(match)
        if name in renamed:
            raise CheckpointError(f"{where} holds {shown(key)} twice under different names.")
        renamed[name] = tensor
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
        CheckpointError: a tensor is missing, left over or of another shape; names the first three.
    """
    own = network.state_dict()
    refuse_misfits(own, tensors, where, shown)
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
    if key not in tensors:
        raise CheckpointError(f"{where} lacks the tensor {shown(key)}; get the whole file.")
    found = tuple(tensors[key].shape)
    allowed = (axes,) if isinstance(axes, int) else tuple(axes)
    if len(found) not in allowed or 0 in found:
        raise CheckpointError(
            f"{where} holds {shown(key)} of shape {found}, not with "
            f"{' or '.join(map(str, allowed))} axes; get the file again."
        )
    return found


def shown(key: str) -> str:
    """A key of a file as a message may hold it: quoted, on one line, not longer than 80 letters."""
    text = ascii(key)
    return text if len(text) <= LONGEST_KEY else f"{text[: LONGEST_KEY - 3]}..."


def count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many different first groups of `pattern` occur, such as the number of layers."""
    matches = (re.fullmatch(pattern, key) for key in tensors)
    return len({match[1] for match in matches if match})
