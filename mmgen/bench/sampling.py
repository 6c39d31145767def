"""How fast a pipeline draws, next to what reading its weights alone would take.

At small batches a step of decoding is little more than reading every matrix once, so beside the
time of a step stand the bytes that it read, and that speed as a share of what the machine reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmgen.bench.machine import best_of, forget_peak, peak_bytes
from mmgen.kernels.int8 import Int8Linear
from mmgen.pipeline import Pipeline, Weights
from mmgen.prefixes import condition_kind


@dataclass(frozen=True)
class Figures:
    """What one way of drawing took; the pixel decoder is not in it.

    Args:
        weights: how they are stored.
        batch: pictures that are drawn together.
        steps: of decoding.
        seconds: for all of the batch, the fastest of several runs.
        processor_seconds: of all threads together in that run; on a machine that does nothing else
            no more than `seconds` times the threads.
        bytes_read: of matrices, in all steps together.
        peak_bytes: most memory that the process had.
    """

    weights: str
    batch: int
    steps: int
    seconds: float
    processor_seconds: float
    bytes_read: int
    peak_bytes: int

    @property
    def pictures_a_second(self) -> float:
        """Of the transformer alone."""
        return self.batch / self.seconds

    @property
    def step_seconds(self) -> float:
        """Mean time of a step."""
        return self.seconds / self.steps

    @property
    def gb_s(self) -> float:
        """10^9 bytes of matrices read in a second."""
        return self.bytes_read / self.seconds / 1e9


def measure(
    pipe: Pipeline,
    weights: Weights,
    batches: Sequence[int],
    repeats: int = 3,
    **settings: Any,
) -> Iterator[Figures]:
    """Draw batches of pictures and say how long each took.

    Args:
        pipe: is changed to `weights`.
        weights: how they are to be stored.
        batches: numbers of pictures.
        repeats: runs of each, of which the fastest counts.
        settings: of `Pipeline.stream`, such as `unit`.
    """
    pipe.to(weights=weights)
    for batch in batches:
        forget_peak()
        with _bytes_read(pipe.transformer) as read:  # the first run also warms up
            steps = len(_run(pipe, batch, settings)[1])
        seconds, processor = min(_run(pipe, batch, settings)[0] for _ in range(repeats))
        yield Figures(weights, batch, steps, seconds, processor, sum(read), peak_bytes())


def decoding_seconds(pipe: Pipeline, **settings: Any) -> float:
    """Seconds that the visual tokenizer takes to make pixels of one picture or clip."""
    codes = _run(pipe, 1, settings)[2]
    render = pipe.render_clips if pipe.draws_clips else pipe.render
    return best_of(2, lambda: render(codes))


def _run(
    pipe: Pipeline, batch: int, settings: dict[str, Any]
) -> tuple[tuple[float, float], list[int], Tensor]:
    """Seconds and processor seconds, the number of each step, and the codes."""
    asked: dict[str, Any] = {"prompt": [""] * batch}
    if condition_kind(pipe) == "class":
        asked = {"class_labels": list(range(batch))}
    steps, codes = [], torch.empty(0)
    start, processor = time.perf_counter(), time.process_time()
    for step in pipe.stream(**asked, seed=0, **settings):
        steps.append(step.index)
        codes = step.codes
    return (time.perf_counter() - start, time.process_time() - processor), steps, codes


@contextmanager
def _bytes_read(network: nn.Module) -> Iterator[list[int]]:
    """Collect the bytes of each linear layer that is applied."""
    read: list[int] = []

    def count(layer: nn.Module, _: Any) -> None:
        read.append(sum(t.numel() * t.element_size() for t in layer.state_dict().values()))

    layers = [m for m in network.modules() if isinstance(m, (nn.Linear, Int8Linear))]
    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()
