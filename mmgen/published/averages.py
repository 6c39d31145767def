"""Averaged weights (EMA) as Lightning stores them: buffers beside the live weights.

Parameter `encoder.conv_in.weight` has its average under `model_ema.encoderconv_inweight`: its name
with all dots removed. Buffers of the network have none. `model_ema.decay` and
`model_ema.num_updates` are bookkeeping.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmgen.errors import CheckpointError
from mmgen.published.keymap import shown

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "model_ema."
BOOKKEEPING = (f"{PREFIX}decay", f"{PREFIX}num_updates")


def has_averages(tensors: Mapping[str, Tensor]) -> bool:
    """Whether averages lie beside the live weights."""
    return any(key.startswith(PREFIX) and key not in BOOKKEEPING for key in tensors)


def live_parameters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The live weights alone."""
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(PREFIX)}


def ema_parameters(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The weights with their averages in their place; the live ones where there is no average.

    Args:
        tensors: by official key, those with the prefix `model_ema.` among them.
        where: what to call the file in messages.

    Raises:
        CheckpointError: an average belongs to no weight, or to two, or has another shape.
    """
    live = live_parameters(tensors)
    owners: dict[str, list[str]] = {}
    for name in live:
        owners.setdefault(PREFIX + name.replace(".", ""), []).append(name)
    swapped = dict(live)
    for key, tensor in tensors.items():
        if not key.startswith(PREFIX) or key in BOOKKEEPING:
            continue
        names = owners.get(key, [])
        if len(names) != 1 or live[names[0]].shape != tensor.shape:
            raise CheckpointError(
                f"{where} holds the average {shown(key.removeprefix(PREFIX))} (of model_ema), "
                f"which {_misfit(names, live)}; get the file again."
            )
        swapped[names[0]] = tensor
    return swapped


def _misfit(names: list[str], live: Mapping[str, Tensor]) -> str:
    """Why an average has no place."""
    if not names:
        return "is of no weight that the file holds"
    if len(names) > 1:
        return f"may be of {' or of '.join(map(shown, names[:3]))}"
    return f"has not the shape {tuple(live[names[0]].shape)} of {shown(names[0])}"
