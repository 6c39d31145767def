"""Optimiser, learning rate by step, and optimiser state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mmgen.errors import CheckpointError
from mmgen.train.muon import Muon, linear_weights
from mmgen.train.recipe import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then a half cosine or a constant.

    Args:
        step: number of steps done before.
        config: `warmup_steps`, `steps`, `learning_rate`, `min_learning_rate`, `cooldown`.
    """
    peak, low = config.learning_rate, config.min_learning_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.cooldown == "constant":
        return peak
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return `config.optimizer` over the trainable parameters; vectors are not decayed."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    matrices = linear_weights(network) if config.optimizer == "muon" else set()
    others = [p for p in parameters if p not in matrices]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p in matrices], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    if config.optimizer == "muon":
        groups = [{**group, "matrices": not i} for i, group in enumerate(groups)]
        return Muon(groups, config.learning_rate, config.betas)
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)  # one pass over memory
    return torch.optim.AdamW(groups[1:], config.learning_rate, config.betas, fused=fused)


def optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """Return the state of `make_optimizer`'s optimiser as `{"parameter.name/moment": tensor}`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{name}/{key}": value
        for index, name in enumerate(_names(optimizer, network))
        for key, value in state.get(index, {}).items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor], where: str
) -> None:
    """Take over what `optimizer_tensors` returned; parameters not yet stepped have no state.

    Raises:
        CheckpointError: a tensor belongs to no parameter of the network.
    """
    index = {name: i for i, name in enumerate(_names(optimizer, network))}
    parameters = dict(network.named_parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        name, _, key = full.rpartition("/")
        if name not in index:
            raise CheckpointError(f"{where} has state for '{name}', which this model lacks.")
        state.setdefault(index[name], {})[key] = _laid_out_like(parameters[name], tensor)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameter groups the learning rate `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def average_gradients(parameters: Iterable[nn.Parameter], processes: int) -> None:
    """Average the gradients over all processes, in one message for each type.

    Tasks call their networks as they like (encode, decode, ...), which a wrapper around `forward`
    (DistributedDataParallel) would not see; so the loop averages after the backward pass itself.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    for dtype in sorted({g.dtype for g in grads}, key=str):
        same = [g for g in grads if g.dtype == dtype]
        flat = torch.cat([g.reshape(-1) for g in same])
        torch.distributed.all_reduce(flat)
        flat /= processes
        for grad, part in zip(same, torch.split(flat, [g.numel() for g in same])):
            grad.copy_(part.view_as(grad))


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    # A moment must have its parameter's strides (channels last): fused AdamW walks flat memory.
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _names(optimizer: torch.optim.Optimizer, network: nn.Module) -> list[str]:
    # The order in which the optimiser numbers its parameters.
    names = {parameter: name for name, parameter in network.named_parameters()}
    return [names[p] for group in optimizer.param_groups for p in group["params"]]
