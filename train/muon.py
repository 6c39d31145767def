"""Muon: orthogonalised momentum for the matrices of a network, AdamW for everything else.

The momentum of a weight matrix is replaced by the nearest semi-orthogonal matrix, found with five
Newton-Schulz iterations (Keller Jordan, "Muon", 2024), and scaled so that its entries are about as
large as AdamW's updates, 0.2 on average (Moonlight, arXiv 2502.16982); so one learning rate serves
both. Embeddings, biases and norms, which no matrix product mixes, get AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, from Muon
_UPDATE_RMS = 0.2  # from Moonlight


class Muon(torch.optim.Optimizer):
    """Muon for the groups with `matrices=True`, AdamW for the others.

    Args:
        groups: parameter groups, each with `params`, `weight_decay` and `matrices`; the parameters
            of a group of matrices have two axes, or are kernels of convolutions, more.
        lr: learning rate of both.
        betas: AdamW's decay rates; the first is the decay of Muon's (Nesterov) momentum too.
        eps: AdamW's.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._muon if group["matrices"] else self._adamw
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, parameter.grad, group)
        return loss

    def _muon(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, beta = self.state[parameter], group["betas"][0]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(grad, 1 - beta)
        wanted = grad.lerp(momentum, beta).flatten(1)  # a kernel is a matrix of its patches
        direction = orthogonalise(wanted).view_as(parameter)
        scale = _UPDATE_RMS * max(wanted.shape) ** 0.5
        parameter.add_(direction, alpha=-group["lr"] * scale)

    def _adamw(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step = float(state["step"])
        mean = state["exp_avg"].lerp_(grad, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2)
        square.addcmul_(grad, grad, value=1 - beta2)
        scale = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**step))


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Return about the nearest matrix whose singular values are all 1 (within 0.7 to 1.2).

    Args:
        matrix: (M, N) float.
        iterations: Newton-Schulz steps; bfloat16 on a GPU, where they are stable too.

    Returns:
        (M, N) of the same type.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T  # the smaller Gram matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.T).to(matrix.dtype)


def linear_weights(network: nn.Module) -> set[Tensor]:
    """The trainable matrices that Muon is for: weights of linear layers and of convolutions."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = (module for module in network.modules() if isinstance(module, kinds))
    return {layer.weight for layer in layers if layer.weight.requires_grad}
