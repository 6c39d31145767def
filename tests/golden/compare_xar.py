"""xAR: the training step, decoding by both solvers, and the entities of the paper."""

from __future__ import annotations

from typing import NamedTuple

import torch
from case import Case
from registry import Comparisons
from torch import Tensor

from mmgen.models.flow import FlowDraws, Noised, time_level
from mmgen.models.plan import compile_plan
from mmgen.models.schedule import make_schedule, to_slots
from mmgen.models.velocity import VelocityModel
from mmgen.sample.engine import DecodeSettings, decode, last_step
from mmgen.sample.flow import FlowDecider, FlowSettings
from mmgen.sample.guidance import Guidance


def _model(case: Case) -> VelocityModel:
    network = case.network
    assert isinstance(network, VelocityModel)
    return network


def _picture(latents: Tensor) -> Tensor:
    """Channels first to one frame (B, 1, H, W, C)."""
    return latents.movedim(1, -1)[:, None]


# -- training ------------------------------------------------------------------------------------


class Training(NamedTuple):
    noised: Noised
    velocity: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]


def _training(case: Case) -> Training:
    model, given = _model(case), case.inputs
    labels = given["train_labels"]
    draws = FlowDraws(
        given["train_label_drop_uniform"],
        given["train_time_normal"].view(-1, len(labels)).T,  # stored block by block
        torch.cat(list(given["train_noise"]), dim=1),
    )
    latents = to_slots(model.schedule, _picture(given["train_latents"]))
    noised = model.add_noise(latents, draws)
    dropped = labels.where(draws.drop >= model.config.label_drop, model.no_label)
    model.zero_grad()
    loss = model.loss(latents, labels, draws)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with torch.no_grad():
        return Training(noised, model(noised, dropped), loss.detach(), gradients)


def _time_index(case: Case) -> Tensor:
    config = _model(case).config
    time = case.once(_training).noised.time
    return time_level(time, config.time_levels, config.whole_times).long().T.flatten()


def _gradient_norm(case: Case) -> Tensor:
    return torch.cat([g.flatten() for g in case.once(_training).gradients.values()]).norm()


# -- sampling ------------------------------------------------------------------------------------


class Sampled(NamedTuple):
    latents: Tensor  # (B, 1, H, W, C)
    velocity: dict[tuple[int, int], Tensor]  # (block, visit) -> (2B, n, C)


def _settings(case: Case, ode: bool) -> FlowSettings:
    about = case.settings["ode"] if ode else case.settings
    solver = about["solver"].replace("_", "-")
    return FlowSettings(solver, about["num_steps"], case.settings["last_step"])


def _sampled(case: Case, ode: bool) -> Sampled:
    model, given = _model(case), case.inputs
    kind = "ode" if ode else "sample"
    labels, start = given[f"{kind}_labels"], given[f"{kind}_init_noise"]
    velocity: dict[tuple[int, int], Tensor] = {}

    def noise(block: int, slots: Tensor, visit: int) -> Tensor:
        return given["sample_step_noise"][block, visit - 1] if visit else start[block]

    def trace(block: int, visit: int, said: Tensor) -> None:
        velocity[block, visit] = said.clone()

    seeds = torch.zeros_like(labels)
    prefix = model.prefix(labels, guided=True)
    plan = compile_plan(model.schedule, "self", continuous=True)
    assert prefix.cursor.condition is not None
    told = prefix.cursor.condition
    decider = FlowDecider(model, plan, told, seeds, _settings(case, ode), noise, trace=trace)
    scale = (case.settings["ode"] if ode else case.settings)["cfg"]
    steps = decode(
        model,
        prefix,
        plan,
        "",
        seeds,
        DecodeSettings(guidance=_guidance(case, scale)),
        decider=decider,
    )
    return Sampled(last_step(steps).codes, velocity)


def _guidance(case: Case, scale: float) -> Guidance:
    """The ramp's first word is the name of ours; the interval is a share of the entities."""
    ramp = str(case.settings.get("guidance_schedule", "linear")).split()[0]
    start, stop = case.settings.get("guidance_interval", (0.0, 1.0))
    return Guidance(scale, start, stop, ramp=ramp)  # type: ignore[arg-type]


def _sde(case: Case) -> Sampled:
    return _sampled(case, ode=False)


def _ode(case: Case) -> Sampled:
    return _sampled(case, ode=True)


def _told(case: Case, ode: bool) -> Tensor:
    model = _model(case)
    times = _settings(case, ode).times(0, model.schedule.blocks)
    return time_level(times, model.config.time_levels, model.config.whole_times).long()


def _velocities(case: Case) -> Tensor:
    """At the first, the second and the last visit of each block."""
    seen = case.once(_sde).velocity
    blocks, last = (max(column) for column in zip(*seen))
    return torch.stack(
        [torch.stack([seen[block, i] for i in (0, 1, last)]) for block in range(blocks + 1)]
    )


def _blocks(case: Case) -> Tensor:
    schedule = _model(case).schedule
    slots = to_slots(schedule, case.once(_sde).latents)
    return torch.stack(slots.split(schedule.sizes, dim=1))


# -- entities ------------------------------------------------------------------------------------


def entities(case: Case) -> Comparisons:
    """One computation for each arrangement that the case names."""
    config = case.config
    orders = {"token": "raster", "image": "whole"}
    orders |= {f"cell{k}": f"cell:{k}" for k in config["cell_sizes"]}
    for d in config["subsample_distances"]:  # the paper counts samples, our order remainders
        down, across = config["height"] // d, config["width"] // d
        orders[f"subsample{d}"] = f"subsample:{down}x{across}"
    orders["scale"] = f"scale:{','.join(map(str, config['scales']))}"

    def arrange(case: Case, order: str) -> Tensor:
        latent = _picture(case.inputs["latent"])
        return to_slots(make_schedule(order, (1, *latent.shape[2:4])), latent)

    return {name: lambda case, order=order: arrange(case, order) for name, order in orders.items()}


C2I: Comparisons = {
    "train_time_index": _time_index,
    "train_model_input": lambda case: case.once(_training).noised.latents,
    "train_velocity": lambda case: case.once(_training).velocity,
    "train_loss": lambda case: case.once(_training).loss,
    "train_grad_norm": _gradient_norm,
    "train_grad_pred_weight": lambda case: case.once(_training).gradients["out.weight"],
    "sample_time_index": lambda case: _told(case, ode=False),
    "sample_velocity": _velocities,
    "sample_entity_latents": _blocks,
    "sample_latents": lambda case: case.once(_sde).latents[:, 0].movedim(-1, 1),
    "ode_time_index": lambda case: _told(case, ode=True),
    "ode_latents": lambda case: case.once(_ode).latents[:, 0].movedim(-1, 1),
}

COMPARE = {("xar", "c2i"): C2I, ("xar", "entities"): entities}
