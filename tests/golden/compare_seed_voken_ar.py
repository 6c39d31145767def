"""IBQ's and Open-MAGVIT2's transformers: training forward, cached decoding, guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from case import Case
from compare_gpt import plan_of
from recorder import Recorder
from torch import Tensor

from mmgen.models.factorized import join, split
from mmgen.sample.draw import DrawSettings
from mmgen.sample.engine import DecodeSettings, decode, last_step
from mmgen.sample.factorized import FactorizedDecider
from mmgen.sample.guidance import Guidance

Compute = Callable[[Case], Tensor]
PARTS = ("pre", "post")


def labels(case: Case) -> Tensor:
    return case.inputs["class_ids"].flatten()


# -- IBQ -----------------------------------------------------------------------------------------


@torch.no_grad()
def logits(case: Case) -> Tensor:
    return case.network(labels(case), case.inputs["tokens"], plan_of(case))


@torch.no_grad()
def loss(case: Case) -> Tensor:
    return case.network.loss(labels(case), case.inputs["tokens"], plan_of(case))


def greedy(scale: float) -> DecodeSettings:
    return DecodeSettings(DrawSettings(temperature=0.0), Guidance(scale))


def run(case: Case) -> tuple[Recorder, Tensor]:
    """Decode greedily; what was recorded, and the codes."""
    recorder = Recorder(case.network)
    settings = greedy(case.settings["guidance"])
    with torch.inference_mode():
        prefix = case.network.prefix(labels(case), guided=True)
    seeds = torch.arange(len(labels(case)))
    step = last_step(decode(recorder, prefix, plan_of(case), "", seeds, settings))  # type: ignore[arg-type]
    return recorder, step.codes.flatten(1)


def raw(case: Case) -> Tensor:
    return case.once(run)[0].branches().transpose(0, 1).flatten(0, 1)


def guided(case: Case) -> Tensor:
    return case.once(run)[0].guided() / case.settings["temperature"]


# -- Open-MAGVIT2 --------------------------------------------------------------------------------


def codes(case: Case) -> Tensor:
    parts = tuple(case.inputs[f"tokens_{part}"] for part in PARTS)
    return join(parts, case.network.config.bits)


@torch.no_grad()
def all_sub_logits(case: Case) -> tuple[Tensor, ...]:
    return case.network(labels(case), codes(case), plan_of(case))


def sub_logits(case: Case, level: int) -> Tensor:
    return case.once(all_sub_logits)[level]


def sub_loss(case: Case, level: int) -> Tensor:
    """Its share of the loss: that of all sub-tokens, less what the other one adds."""
    with torch.no_grad():
        total = case.network.loss(labels(case), codes(case), plan_of(case))
    other = 1 - level
    targets = split(codes(case), case.network.config.bits)[other]
    return total - F.cross_entropy(sub_logits(case, other).flatten(0, 1), targets.flatten())


class SubTokenRecorder:
    """Answers as `model` does, and keeps the raw logits (G, n, K_i) of each sub-token."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.raw: dict[int, list[Tensor]] = {}
        self.guided: dict[int, list[Tensor]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def sub_logits(self, level: int, *given: Any) -> Tensor:
        said = self.model.sub_logits(level, *given)
        self.raw.setdefault(level, []).append(said)
        return said

    def trace(self, level: int, logits: Tensor) -> None:
        self.guided.setdefault(level, []).append(logits)


def sub_run(case: Case) -> tuple[SubTokenRecorder, tuple[Tensor, ...]]:
    """Decode greedily; what was recorded, and the sub-tokens."""
    recorder: Any = SubTokenRecorder(case.network)
    settings = tuple(map(greedy, case.settings["guidance"]))
    seeds = torch.arange(len(labels(case)))
    decider = FactorizedDecider(recorder, seeds, settings, trace=recorder.trace)
    with torch.inference_mode():
        prefix = case.network.prefix(labels(case), guided=True)
    step = last_step(decode(recorder, prefix, plan_of(case), "", seeds, decider=decider))
    return recorder, split(step.codes.flatten(1), case.network.config.bits)


def step_raw(case: Case, level: int) -> Tensor:
    return torch.cat(case.once(sub_run)[0].raw[level], 1)


def step_guided(case: Case, level: int) -> Tensor:
    seen = torch.cat(case.once(sub_run)[0].guided[level], 1)
    return seen / case.settings["temperature"][level]


def of_each(compute: Callable[..., Tensor], name: str) -> dict[str, Compute]:
    return {name.format(part): partial(compute, level=level) for level, part in enumerate(PARTS)}


COMPARE: dict[tuple[str, str], Mapping[str, Compute]] = {
    ("ibq", "class-conditional AR"): {
        "logits": logits,
        "loss": loss,
        "step_logits_raw": raw,
        "step_logits_guided": guided,
        "greedy_tokens": lambda case: case.once(run)[1],
    },
    ("open-magvit2", "class-conditional AR, factorised sub-tokens"): {
        **of_each(sub_logits, "logits_{}"),
        **of_each(sub_loss, "loss_{}"),
        **of_each(step_raw, "step_logits_{}_raw"),
        **of_each(step_guided, "step_logits_{}_guided"),
        **of_each(lambda case, level: case.once(sub_run)[1][level], "greedy_{}"),
    },
}
