"""What several comparisons need: outputs by the run that makes them, losses, gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from case import Case
from torch import Tensor

from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.tokenizers_vis.losses import TokenizerLossConfig, reconstruction_losses

PIXELS = TokenizerLossConfig(l1=1.0, l2=0.0, gradient=0.0)


def by_output(
    runs: Mapping[Callable[[Case], dict[str, Tensor]], tuple[str, ...]],
) -> dict[str, Callable[[Case], Tensor]]:
    """Turn runs, each with the names of its outputs, into one function an output."""
    return {
        name: lambda case, run=run, name=name: case.once(run)[name]  # type: ignore[misc]
        for run, names in runs.items()
        for name in names
    }


def total_loss(network: ConvTokenizer, pixels: Tensor) -> Tensor:
    """L1 and the quantizer's own weighted losses, of a network in training mode."""
    reconstruction, quantized = network.train()(pixels)
    losses = {**reconstruction_losses(PIXELS, reconstruction, pixels), **quantized.losses}
    return torch.stack([loss.reshape(()) for loss in losses.values()]).sum()


def gradients(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of a loss by the names of the leaves; the graph is kept."""
    found = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
    return dict(zip(leaves, found))
