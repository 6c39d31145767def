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
    has the same noise whatever the order. Coarse levels of `scale` are context only: latents of
    the picture itself are what all orders are asked for.

    Args:
        model, ids, valid, latents, plan, unit: as in `flow_loss`.
        first: number of the first picture among all that are held out.
    """
    schedule = plan.schedule
    picture = first + torch.arange(len(latents))
    stratum = (picture[:, None] + torch.arange(schedule.blocks)) % STRATA  # (B, E)
    fine = schedule.site >= 0
    place = torch.where(fine, schedule.site, schedule.slots + torch.arange(schedule.slots))
    noise = gaussian(picture, place, latents.shape[-1])
    noised = noise_at(
        latents,
        ((stratum + 0.5) / STRATA).to(latents.device),
        noise.to(latents.device),
        schedule.block_of_slot.to(latents.device),
    )
    said = model.image_velocities(ids, valid, latents, noised, plan, unit)
    fine = fine.to(latents.device)
    return F.mse_loss(said[:, fine].float(), noised.velocity[:, fine])
