"""What latents are trained with: noisy or clean context, and a held-out loss that can be repeated.

Noisy context learning (xAR, arXiv 2502.20388): one sequence of noisy latents, each block at its own
time, is at once what is asked for and the context of later blocks. Teacher forcing: the blocks
before are as they will be in decoding, clean, so every latent has two rows. Times are logit-normal,
one a block; the target is the velocity; every latent counts the same.

Shapes: B batch, T ids of a text, N slots, E blocks, C channels of a latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgen.models.flow import add_noise, flow_draws, noise_at
from mmgen.models.plan import Plan, compile_plan
from mmgen.models.schedule import Schedule, to_slots
from mmgen.models.unified import UnifiedModel
from mmgen.noise import gaussian

Context = Literal["noisy", "clean"]
STRATA = 8  # different times of the held-out loss


@dataclass(frozen=True)
class FlowConfig:
    """How latents are learned.

    Args:
        context: what stands before a block: "noisy", the blocks as they are asked for themselves,
            each at its own time, or "clean", the decided ones (teacher forcing).
    """

    context: Context = "noisy"


def flow_loss(
    model: UnifiedModel,
    ids: Tensor,
    valid: Tensor,
    latents: Tensor,
    plan: Plan,
    unit: str,
    context: Context = "noisy",
) -> Tensor:
    """Mean squared error of the velocities of pictures behind their captions.

    Args:
        model: whose unit this is.
        ids: (B, T) captions, `valid` (B, T) likewise bool.
        latents: (B, N, C), in slot order.
        plan: of the unit, with clean context.
        unit: its name.
        context: what the model sees of earlier blocks.
    """
    block_of_slot = plan.schedule.block_of_slot.to(latents.device)
    draws = flow_draws(len(latents), plan.schedule.blocks, latents)
    noised = add_noise(latents, draws, block_of_slot)
    if context == "noisy":
        plan = compile_plan(plan.schedule, "self", noisy_context=True)
    said = model.image_velocities(ids, valid, latents, noised, plan, unit)
    return F.mse_loss(said.float(), noised.velocity)


@torch.no_grad()
def held_out_flow_loss(
    model: UnifiedModel,
    ids: Tensor,
    valid: Tensor,
    latents: Tensor,
    plan: Plan,
    unit: str,
    first: int,
) -> Tensor:
    """The same on clean context, as in decoding, at times and noise that never change.

    Block e of picture i stands in the middle of stratum `(i + e) mod STRATA` of all times. A site
    has the same noise whatever the order. All orders are asked for the same latents, each once and
    before it is shown (`held_out_slots`).

    Args:
        model, ids, valid, latents, plan, unit: as in `flow_loss`.
        first: number of the first picture among all that are held out.
    """
    schedule = plan.schedule
    picture = first + torch.arange(len(latents))
    stratum = (picture[:, None] + torch.arange(schedule.blocks)) % STRATA  # (B, E)
    asked = held_out_slots(schedule)
    place = torch.where(asked, _shown(schedule), schedule.slots + torch.arange(schedule.slots))
    noise = gaussian(picture, place, latents.shape[-1])
    noised = noise_at(
        latents,
        ((stratum + 0.5) / STRATA).to(latents.device),
        noise.to(latents.device),
        schedule.block_of_slot.to(latents.device),
    )
    said = model.image_velocities(ids, valid, latents, noised, plan, unit)
    asked = asked.to(latents.device)
    return F.mse_loss(said[:, asked].float(), noised.velocity[:, asked])


def held_out_slots(schedule: Schedule) -> Tensor:
    """Slots that the held-out loss asks for, (N,) bool: of each site the first that shows it.

    Coarse levels of `scale` by nearest neighbour are latents of the picture, which finer levels see
    clean and would copy. Means of latents (`:area`) are none of them, and are context only.
    """
    sites = _shown(schedule).tolist()
    first = {site: slot for slot, site in reversed([*enumerate(sites)]) if site >= 0}
    asked = torch.zeros(schedule.slots, dtype=torch.bool)
    asked[list(first.values())] = True
    return asked


def _shown(schedule: Schedule) -> Tensor:
    """The site whose latent a slot holds, (N,) long; -1: none."""
    if not schedule.order.startswith("scale:") or schedule.order.endswith(":area"):
        return schedule.site
    t, h, w = schedule.grid
    numbers = torch.arange(t * h * w, dtype=torch.float32).view(1, t, h, w, 1)
    return to_slots(schedule, numbers)[0, :, 0].long()
