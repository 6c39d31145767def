"""Everything of a run that changes from step to step, as an object and as a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from mmgen.errors import DataError
from mmgen.saving import load_strictly
from mmgen.train.checkpoint import Checkpoint, load
from mmgen.train.ema import EMA
from mmgen.train.launch import broadcast, compile_blocks
from mmgen.train.log import Means
from mmgen.train.optim import load_optimizer, make_optimizer, optimizer_tensors
from mmgen.train.recipe import TrainConfig
from mmgen.train.task import Task


class TrainState:
    """Networks, optimisers, averaged weights, position in the data.

    Args:
        task: its networks are moved to the accelerator's device and set to training mode.
        config: settings of the loop.
        accelerator: device, precision, processes.

    Attributes:
        networks, optimizers: by name.
        trained: trainable parameters by name of their network.
        model: the main network, which `ema` averages.
        step: steps done.
        epoch, batch: the next batch.
        samples: samples seen.
        window: running means since the last log line.
    """

    def __init__(self, task: Task, config: TrainConfig, accelerator: Accelerator) -> None:
        self.task, self.accelerator = task, accelerator
        self.networks = task.networks()
        for network in self.networks.values():
            network.to(accelerator.device).train()
            broadcast(network.state_dict().values(), accelerator)
            if config.compile:
                compile_blocks(network)
        self.trained = {
            name: [p for p in network.parameters() if p.requires_grad]
            for name, network in self.networks.items()
        }
        self.optimizers = {
            name: accelerator.prepare_optimizer(make_optimizer(network, config))
            for name, network in self.networks.items()
        }
        self.model = next(iter(self.networks.values()))
        self.ema = EMA(self.model, config.ema_decay)
        self.step = self.epoch = self.batch = self.samples = 0
        self.window = Means()
        self.data = self._endless()

    def start_anew(self, name: str, rows: Tensor) -> None:
        """Forget what rows of a parameter of the main network were before they were replaced.

        Their moments would push a revived code on the way of the dead one, and an average of the
        two is neither.

        Args:
            name: of the parameter.
            rows: (n,) long.
        """
        optimizer = next(iter(self.optimizers.values()))
        parameter = self.model.get_parameter(name)
        for moment in optimizer.state[parameter].values():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moment[rows] = 0
        self.ema.parameters[name][rows] = parameter.detach()[rows].float()

    def checkpoint(self, recipe: str) -> Checkpoint:
        """Return all of it as tensors and plain data.

        Args:
            recipe: fingerprint of the recipe.
        """
        parts = {"ema": self.ema.state(), "task": self.task.state()}
        for name, network in self.networks.items():
            parts[f"network-{name}"] = network.state_dict()
            parts[f"optimizer-{name}"] = optimizer_tensors(self.optimizers[name], network)
        scaler = self.accelerator.scaler
        state: dict[str, Any] = {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "samples": self.samples,
            "recipe": recipe,
            "torch": torch.__version__,
            "window": self.window.state(),
            "scaler": scaler.state_dict() if scaler else None,
        }
        return Checkpoint(parts, state)

    def restore(self, path: Path) -> list[str]:
        """Take over a checkpoint folder; returns warnings.

        Args:
            path: a folder that `checkpoint.open_run` returned.

        Raises:
            CheckpointError: it belongs to other networks.
        """
        saved = load(path)
        self.task.load_state(saved.part("task"))  # first: it knows why networks differ
        for name, network in self.networks.items():
            part = f"network-{name}"
            load_strictly(network, saved.part(part), f"{path}/{part}")
            part = f"optimizer-{name}"
            load_optimizer(self.optimizers[name], network, saved.part(part), f"{path}/{part}")
        self.ema.load_state(saved.part("ema"), f"{path}/ema")
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])
        self.step, self.samples = saved.state["step"], saved.state["samples"]
        self.epoch, self.batch = saved.state["epoch"], saved.state["batch"]
        self.window = Means(saved.state["window"])
        written = saved.state["torch"]
        if written == torch.__version__:
            return []
        return [f"{path} is of torch {written}; with {torch.__version__} sums may round anew."]

    def _endless(self) -> Iterator[Any]:
        """Yield batch after batch, epoch after epoch; `epoch` and `batch` name the next one."""
        while True:
            start = self.batch
            for batch in self.task.batches(self.epoch, start):
                self.batch += 1
                yield batch
            if self.batch == start == 0:
                raise DataError(f"Epoch {self.epoch} has no batch; add data or lower batch_size.")
            self.epoch, self.batch = self.epoch + 1, 0
