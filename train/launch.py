"""Where a run runs: the accelerator, agreement between processes, and the wish to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedType
from torch import Tensor, nn

from mmgen.errors import ConfigError, suggestion
from mmgen.models.backbone import Block
from mmgen.train.recipe import TrainConfig

_UNSUPPORTED = (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM)


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return an accelerator for the config's precision, accumulation and trackers.

    Raises:
        ConfigError: a tracker that is unknown or not installed, fp16 without a GPU, or a launch
            that splits the weights over processes.
    """
    _check_trackers(config.trackers)
    # accelerate keeps these for the life of the process and refuses another precision; a process
    # that trains a tokenizer and then a generator may want one.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        log_with=list(config.trackers) or None,
        project_dir=config.out,
    )
    accelerator.gradient_accumulation_steps = config.accumulation  # stronger than the environment
    if accelerator.distributed_type in _UNSUPPORTED:
        raise ConfigError(
            f"Training does not split weights ({accelerator.distributed_type.value}); launch it "
            "with plain data parallelism (accelerate launch --multi_gpu)."
        )
    if config.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError("mixed_precision=fp16 needs a GPU; use bf16 or no.")
    return accelerator


def broadcast(tensors: Iterable[Tensor], accelerator: Accelerator) -> None:
    """Give every process the main process's values, in place."""
    if accelerator.num_processes > 1:
        for tensor in tensors:
            torch.distributed.broadcast(tensor.detach(), src=0)


def compile_blocks(network: nn.Module) -> None:
    """Compile each transformer block: alike as they are, one compilation serves them all."""
    for module in network.modules():
        if isinstance(module, Block):
            module.compile(dynamic=True)  # units and captions differ in length


class Stop:
    """Within the block, SIGTERM and SIGINT only ask for an end; a second one ends at once.

    Args:
        accelerator: used so that all processes agree.

    Attributes:
        name: name of the signal that came to this process, or "another process".
        number: its number (SIGTERM's if it came to another process).
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.name, self.number = "another process", int(signal.SIGTERM)
        self._accelerator = accelerator
        self._asked = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python allows it only there
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def requested(self) -> bool:
        """Whether any process was asked to stop; all processes must call this together."""
        if self._accelerator.num_processes == 1:
            return self._asked
        if self._asked:
            self._accelerator.set_trigger()
        return bool(self._accelerator.check_trigger())

    def _ask(self, number: int, _: FrameType | None) -> None:
        self._asked, self.name, self.number = True, signal.Signals(number).name, number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def _check_trackers(names: Iterable[str]) -> None:
    installed = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(
                f"There is no tracker '{name}'{suggestion(name, LOGGER_TYPE_TO_CLASS)}"
            )
        if name not in installed:
            raise ConfigError(f"The tracker '{name}' is not installed; install its package.")
