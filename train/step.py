"""One training step, and the seeds that make every step independent of the ones before.

A step fetches `accumulation` batches, then for each network of the task in turn (a *phase*) sums
the task's losses, averages the gradients over the batches, clips and steps that network's
optimiser while the other networks are frozen.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device

from mmgen.train.launch import broadcast
from mmgen.train.optim import average_gradients, learning_rate, set_learning_rate
from mmgen.train.recipe import TrainConfig
from mmgen.train.state import TrainState


def train_step(state: TrainState, config: TrainConfig) -> list[str]:
    """Do one step and advance `state`; returns the task's warnings.

    Args:
        state: the run; its `window` receives losses, metrics, gradient norms and times.
        config: settings of the loop.
    """
    started = time.perf_counter()
    accelerator, task = state.accelerator, state.task
    count = config.accumulation * accelerator.num_processes
    batches = [next(state.data) for _ in range(count)]
    loaded = time.perf_counter()
    mine = range(accelerator.process_index, count, accelerator.num_processes)
    placed = {index: send_to_device(batches[index], accelerator.device) for index in mine}
    task.metrics.clear()
    task.renewed.clear()
    for name in state.networks:
        _phase(state, config, name, placed)
    seed_step(config.seed, state.step, "after")
    warnings = task.after_step(state.step)
    for network in state.networks.values():
        # Parameters too: tasks may change some in place (codes that are revived).
        broadcast(network.state_dict().values(), accelerator)
    state.ema.update(state.model, state.step)
    for name, rows in task.renewed.items():
        state.start_anew(name, rows)
    for key, value in task.metrics.items():
        state.window.add("metrics", key, value)
    state.step += 1
    state.samples += count * config.batch_size
    state.window.add("time", "seconds", time.perf_counter() - started)
    state.window.add("time", "data_seconds", loaded - started)
    return warnings


def seed_step(seed: int, step: int, *place: int | str) -> None:
    """Seed the generators of PyTorch, NumPy and Python for one place in one step.

    Args:
        seed: seed of the run.
        step: number of steps done before.
        place: what follows: a phase and the place of the batch in the step, or "evaluate", ...
    """
    text = "/".join(str(part) for part in (seed, step, *place))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big") >> 1  # 63 bits: torch takes signed numbers
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def _phase(state: TrainState, config: TrainConfig, name: str, batches: dict[int, Any]) -> None:
    """Optimise the network `name` on this process's batches, keyed by their place in the step."""
    accelerator, stepping = state.accelerator, False
    with _only(state, name):
        for index, batch in batches.items():
            seed_step(config.seed, state.step, name, index)
            with accelerator.accumulate():
                stepping = _backward(state, name, batch)
    if not stepping:
        return
    optimizer, parameters = state.optimizers[name], state.trained[name]
    if accelerator.num_processes > 1:
        average_gradients(parameters, accelerator.num_processes)
    norm = accelerator.clip_grad_norm_(parameters, config.clip_norm or math.inf)
    set_learning_rate(optimizer, learning_rate(state.step, config))
    optimizer.step()
    optimizer.zero_grad()
    if not optimizer.step_was_skipped:  # fp16 overflowed: the scaler lowers its scale
        state.window.add("grad_norm", name, norm)


def _backward(state: TrainState, name: str, batch: Any) -> bool:
    with state.accelerator.autocast():
        losses = state.task.losses(batch, state.step, name)
    if not losses:
        return False
    state.accelerator.backward(torch.stack([v.float() for v in losses.values()]).sum())
    for key, value in losses.items():
        state.window.add("losses", key, value)
    return True


@contextmanager
def _only(state: TrainState, name: str) -> Iterator[None]:
    """Freeze the other networks, so that nothing is computed for gradients nobody uses."""
    others = [p for other, ps in state.trained.items() if other != name for p in ps]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
