"""Flow matching on straight paths: how latents are noised, and what the network is asked for.

Time runs from t = 0 (data) to t = 1 (Gaussian noise): `z = (1 - t) x + t eps`, and the network
predicts the velocity `eps - x`. Every block of a picture has a time of its own, so that one pass
trains all blocks on noisy context (xAR, arXiv 2502.20388). Flow matching: arXiv 2209.03003,
2210.02747; times drawn from a logit-normal: arXiv 2403.03206.

Shapes: B batch, E blocks, N slots, C channels of a latent.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NO_LOGITS = "These weights predict velocities of latents; decode them with a FlowDecider."


class FlowDraws(NamedTuple):
    """The random numbers of a training step.

    Args:
        drop: (B,) uniform in [0, 1); a label is dropped where it is below the rate.
        time: (B, E) standard normal; the time of each block is its sigmoid.
        noise: (B, N, C) standard normal, in slot order.
    """

    drop: Tensor
    time: Tensor
    noise: Tensor


class Noised(NamedTuple):
    """Latents on their way to noise.

    Args:
        latents: (B, N, C), in slot order.
        time: (B, E) float32, of each block.
        velocity: (B, N, C), what the network shall say.
    """

    latents: Tensor
    time: Tensor
    velocity: Tensor


def flow_draws(
    batch: int, blocks: int, latents: Tensor, generator: torch.Generator | None = None
) -> FlowDraws:
    """Draw the numbers of a training step for latents (B, N, C), on their device."""
    device = latents.device
    return FlowDraws(
        torch.rand(batch, generator=generator, device=device),
        torch.randn(batch, blocks, generator=generator, device=device),
        torch.randn(latents.shape, generator=generator, device=device),
    )


def add_noise(latents: Tensor, draws: FlowDraws, block_of_slot: Tensor) -> Noised:
    """Move latents (B, N, C) towards the noise of `draws`, each block to its own time.

    Args:
        latents: in slot order.
        draws: the random numbers.
        block_of_slot: (N,) long.
    """
    time = draws.time.double().sigmoid().float()
    return noise_at(latents, time, draws.noise, block_of_slot)


def noise_at(latents: Tensor, time: Tensor, noise: Tensor, block_of_slot: Tensor) -> Noised:
    """Move latents (B, N, C) towards noise (B, N, C), each block to its time (B, E) float32."""
    t = time[:, block_of_slot, None]  # (B, N, 1)
    return Noised((1 - t) * latents + t * noise, time, noise - latents)


def time_level(time: Tensor, levels: int, whole: bool) -> Tensor:
    """What the network is told of a time in [0, 1]: `levels * t`, in float32.

    Args:
        time: any shape, float32 or float64.
        levels: what t = 1 becomes.
        whole: without its fraction.
    """
    level = time.float() * levels
    return level.trunc() if whole else level
