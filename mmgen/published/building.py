"""Networks made to be filled: no random number is drawn for weights that a file will overwrite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmgen.errors import CheckpointError
from mmgen.published.keymap import load

Network = TypeVar("Network", bound=nn.Module)

# In-place draws, and `erfinv_`, by which uniform numbers become normal ones.
DRAWS = frozenset(
    {"uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "erfinv_"}
)
MADE = (torch.randn, torch.rand)  # their tensors are allocated alone


class _NothingDrawn(TorchFunctionMode):
    """Weights stay as they were allocated; constants are computed as ever."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in MADE and "generator" not in kwargs:  # a seeded draw is a constant
            return torch.empty(*args, **kwargs)
        if getattr(function, "__name__", "") in DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def build(make: Callable[[], Network], tensors: Mapping[str, Tensor], where: str) -> Network:
    """The network that `make` constructs, with its weights, on the device of the tensors.

    The meta device would draw nothing either, but loses the constants that no file holds, such as
    the levels of FSQ.

    Args:
        make: constructs the network.
        tensors: by our names; on the meta device only names and shapes are checked.
        where: what to call the file in messages.

    Raises:
        CheckpointError: there are none, or they do not fit the network.
    """
    if not tensors:
        raise CheckpointError(f"{where} holds no tensor of this network; get the whole file.")
    with next(iter(tensors.values())).device, _NothingDrawn():
        network = make()
    load(network, tensors, where)
    return network.eval()
