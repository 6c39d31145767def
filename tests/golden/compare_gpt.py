"""LlamaGen and NAR: training forward, both branches of cached decoding, guidance, filters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from case import Case
from recorder import Recorder
from torch import Tensor

from mmgen.models.conditions import Features, pad_left
from mmgen.models.plan import NONE, PREFIX, Plan
from mmgen.models.rows import row_mask
from mmgen.models.schedule import to_slots
from mmgen.models.units import plan_for
from mmgen.sample.draw import DrawSettings, filter_logits
from mmgen.sample.engine import DecodeSettings, decode, last_step
from mmgen.sample.guidance import Guidance

Compute = Callable[[Case], Tensor]
OFFICIAL = {"x": "R", "y": "B"}  # letters of NAR's image heads
OFFICIAL_CLIP = {"x": "R", "y": "D", "t": "B"}


def plan_of(case: Case) -> Plan:
    config = case.network.config
    return plan_for(config.units[0], config.grid)


def features(case: Case) -> Features:
    return pad_left(
        case.inputs["caption_features_right_padded"], case.inputs["caption_mask_right_padded"]
    )


def condition(case: Case, when: str) -> Any:
    if "labels_gen" not in case.inputs:
        return case.once(features)
    labels = case.inputs[f"labels_{when}"]
    if case.task != "c2v":
        return labels
    # Of clips alone: a negative label is the null class (specs/nar.md 6.2).
    return labels.where(labels >= 0, case.network.config.condition.classes)


def raster(case: Case, values: Tensor, dim: int = 1) -> Tensor:
    """Values in decoding order to raster order."""
    return values.index_select(dim, torch.argsort(plan_of(case).schedule.site))


def slots(case: Case) -> Tensor:
    grid = case.network.config.grid
    return to_slots(plan_of(case).schedule, case.inputs["tokens"].unflatten(1, grid))


# -- training ------------------------------------------------------------------------------------


@torch.no_grad()
def train_logits(case: Case) -> Tensor:
    logits = case.network(condition(case, "train"), slots(case), plan_of(case))
    return raster(case, logits)


@torch.no_grad()
def loss(case: Case, weighted: bool) -> Tensor:
    weight = case.inputs["valid"].float() if weighted else None
    return case.network.loss(condition(case, "train"), slots(case), plan_of(case), weight)


def in_sequence(case: Case) -> Tensor:
    """Places of the condition and of the sites in raster order among our rows."""
    count = case.network.config.condition.rows
    site = torch.argsort(plan_of(case).schedule.site)
    return torch.cat([torch.arange(count), count + site])


@torch.no_grad()
def train_mask(case: Case) -> Tensor:
    rows = case.network.sequence(condition(case, "train"), slots(case), plan_of(case))
    mask, order = row_mask(rows), in_sequence(case)
    assert mask is not None
    mask = mask[:, order][:, :, order]
    shape = case.expected("train_mask").shape
    return mask.expand(shape) if len(shape) == 3 else mask[0]


@torch.no_grad()
def train_states(case: Case) -> dict[str, Tensor]:
    return case.network.run(
        case.network.sequence(condition(case, "train"), slots(case), plan_of(case))
    )


def raw(case: Case, state: Tensor, direction: str) -> Tensor:
    """Logits of one head alone."""
    head = case.network.head
    with torch.no_grad():
        return head.outs[direction](head.norms[direction](state))


def train_raw(case: Case, direction: str) -> Tensor:
    order = in_sequence(case)[case.network.config.condition.rows - 1 :]
    return raw(case, case.once(train_states)[direction][:, order], direction)


def target_position(case: Case, direction: str) -> Tensor:
    """Raster site that the head predicts from each row, the condition's last one first."""
    plan = plan_of(case)
    site = plan.schedule.site
    targets = torch.full((len(site) + 1,), NONE)
    for slot, row in enumerate(plan.reads[plan.heads.index(direction)].tolist()):
        if row != NONE:
            targets[0 if row == PREFIX else 1 + site[row]] = site[slot]
    return targets


# -- decoding ------------------------------------------------------------------------------------


def guidance(case: Case, interval: int, scale: float) -> Guidance:
    """The published rule: a step is guided while what was done before it is within the interval."""
    if scale <= 1.0:
        return Guidance(1.0)
    if interval < 0:
        return Guidance(scale)
    if case.system == "llamagen":
        return Guidance(scale, stop=interval + 2, unit="steps")
    return Guidance(scale, stop=interval + 1, unit="tokens")


def run(case: Case, interval: int, scale: float | None = None) -> tuple[Recorder, Tensor]:
    """Decode greedily; what was recorded, and the codes in raster order."""
    settings = case.settings
    recorder = Recorder(case.network)
    guide = guidance(case, interval, settings["cfg_scale"] if scale is None else scale)
    plan, given = plan_of(case), condition(case, "gen")
    with torch.inference_mode():
        prefix = case.network.prefix(given, guide.enabled)
    greedy = DecodeSettings(DrawSettings(temperature=0.0), guide)
    seeds = torch.arange(len(prefix.rows.x) // (2 if guide.enabled else 1))
    step = last_step(decode(recorder, prefix, plan, "", seeds, greedy))  # type: ignore[arg-type]
    return recorder, step.codes.flatten(1)


def first_run(case: Case) -> tuple[Recorder, Tensor]:
    return run(case, case.settings["cfg_interval_first_run"])


def second_run(case: Case) -> tuple[Recorder, Tensor]:
    return run(case, case.settings["cfg_interval_second_run"])


def plain_run(case: Case) -> tuple[Recorder, Tensor]:
    return run(case, -1, 1.0)


def branch(case: Case, number: int) -> Tensor:
    return case.once(first_run)[0].branches()[:, number]


def fed(case: Case) -> Tensor:
    """Rows of the plan in feeding order."""
    return torch.cat(case.once(first_run)[0].chosen)


def fed_step(case: Case) -> Tensor:
    chosen = case.once(first_run)[0].chosen
    return torch.cat([torch.full((len(rows),), step) for step, rows in enumerate(chosen, start=1)])


def fed_raw(case: Case, direction: str, prefill: bool) -> Tensor:
    """One head at the condition's last row and at every fed one, (B, 2, 1 + fed, K)."""
    hidden = [states[direction] for states in case.once(first_run)[0].hidden]
    hidden[0] = hidden[0][:, -1:]
    logits = raw(case, torch.cat(hidden, 1).clone(), direction)
    both = torch.stack(logits.chunk(2), 1)
    return both if prefill else both[:, :, 1:]


def prefill_raw(case: Case, direction: str) -> Tensor:
    return fed_raw(case, direction, prefill=True)[:, :, 0]


def gen_order_step(case: Case) -> Tensor:
    plan = plan_of(case)
    return torch.repeat_interleave(torch.arange(plan.steps), torch.tensor(plan.sizes))


def filtered(case: Case, top_k: int | None = None) -> Tensor:
    rule = case.settings["filter"]
    z = case.once(first_run)[0].guided()[:, 1] / max(rule["temperature"], 1e-5)
    return filter_logits(z, rule["top_k"] if top_k is None else top_k, rule["top_p"]).softmax(-1)


COMMON: dict[str, Compute] = {
    "caption_features_left_padded": lambda case: features(case).values,
    "caption_mask_left_padded": lambda case: features(case).valid,
    "train_logits": train_logits,
    "train_loss": partial(loss, weighted=False),
    "train_loss_valid": partial(loss, weighted=True),
    "gen_tokens": lambda case: case.once(first_run)[1],
    "gen_guided_logits": lambda case: case.once(first_run)[0].guided(),
    "gen_interval_tokens": lambda case: case.once(second_run)[1],
    "gen_interval_guided_logits": lambda case: case.once(second_run)[0].guided(),
    "gen_noguide_tokens": lambda case: case.once(plain_run)[1],
    "filtered_probs": filtered,
    "filtered_probs_top_p_only": partial(filtered, top_k=0),
}
LLAMAGEN: dict[str, Compute] = {
    **COMMON,
    "gen_cond_logits": partial(branch, number=0),
    "gen_uncond_logits": partial(branch, number=1),
}
NAR: dict[str, Compute] = {
    **COMMON,
    "train_mask": train_mask,
    "gen_order_position": lambda case: plan_of(case).schedule.site,
    "gen_order_step": gen_order_step,
    "gen_fed_position": lambda case: plan_of(case).schedule.site[fed(case)],
    "gen_fed_step": fed_step,
    "gen_mixed_logits": lambda case: case.once(first_run)[0].branches(),
}


def heads(letters: dict[str, str], clip: bool) -> dict[str, Compute]:
    """Outputs of single heads; those of clips count the prefill among the fed rows."""
    computed: dict[str, Compute] = {}
    for direction, letter in letters.items():
        computed[f"train_raw_{letter}"] = partial(train_raw, direction=direction)
        computed[f"target_position_{letter}"] = partial(target_position, direction=direction)
        computed[f"gen_prefill_{letter}"] = partial(prefill_raw, direction=direction)
        computed[f"gen_raw_{letter}"] = partial(fed_raw, direction=direction, prefill=clip)
    return computed


COMPARE = {
    ("llamagen", "c2i"): LLAMAGEN,
    ("llamagen", "t2i"): LLAMAGEN,
    ("nar", "c2i"): {**NAR, **heads(OFFICIAL, clip=False)},
    ("nar", "t2i"): {**NAR, **heads(OFFICIAL, clip=False)},
    ("nar", "c2v"): {**NAR, **heads(OFFICIAL_CLIP, clip=True)},
}
