"""Exponential moving average of a network's weights, in float32.

After n earlier updates the decay is `min(decay, (1 + n) / (10 + n))`: young averages forget the
random start quickly (the warm-up of TensorFlow's `ExponentialMovingAverage`). Parameters are
averaged. Buffers are copied: a codebook that jumps when a dead code is revived, a counter or a
mask with infinities has no meaningful average.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmgen.saving import refuse_misfits


def decay_at(updates: int, decay: float) -> float:
    """Return the decay of the update that follows `updates` earlier ones."""
    return min(decay, (1 + updates) / (10 + updates))


class EMA:
    """Averaged copy of the weights of one network.

    Args:
        network: whose weights are averaged; the average starts as a copy of them.
        decay: the decay that is reached after the warm-up.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {
            name: p.detach().float().clone() for name, p in network.named_parameters()
        }
        self.buffers = {name: b.detach().clone() for name, b in _buffers(network).items()}

    @torch.no_grad()
    def update(self, network: nn.Module, updates: int) -> None:
        """Move the average towards the network's weights.

        Args:
            network: the network of the constructor.
            updates: number of updates before this one.
        """
        weight = 1.0 - decay_at(updates, self.decay)
        new = [p.detach().float() for _, p in network.named_parameters()]
        torch._foreach_lerp_(list(self.parameters.values()), new, weight)
        for name, buffer in _buffers(network).items():
            self.buffers[name].copy_(buffer)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[nn.Module]:
        """Give the network the averaged weights and evaluation mode; take both back at the end."""
        modes = {module: module.training for module in network.modules()}
        own = {name: t.detach().clone() for name, t in _tensors(network).items()}
        try:
            _assign(network, self.state())
            network.eval()
            yield network
        finally:
            _assign(network, own)
            for module, mode in modes.items():
                module.training = mode

    def state(self) -> dict[str, Tensor]:
        """Return the averaged tensors by name (not copies)."""
        return {**self.parameters, **self.buffers}

    def load_state(self, tensors: dict[str, Tensor], where: str) -> None:
        """Take over what `state` returned.

        Raises:
            CheckpointError: the tensors do not fit this network.
        """
        own = self.state()
        refuse_misfits(own, tensors, where)
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _buffers(network: nn.Module) -> dict[str, Tensor]:
    # Only what a state dict holds: buffers that are not persistent are derived from the settings.
    saved = network.state_dict().keys()
    return {name: b for name, b in network.named_buffers() if name in saved}


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **_buffers(network)}


@torch.no_grad()
def _assign(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, tensor in _tensors(network).items():
        tensor.copy_(tensors[name])
