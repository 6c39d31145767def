"""Random small official xAR models: imported, their velocities and latents are the same."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import official_xar as official
import pytest
import torch
from fuzzing import CLOSE, imported
from official_gpt import drawn as weights_of
from torch import Tensor

from mmgen.models.flow import Noised
from mmgen.models.plan import compile_plan
from mmgen.sample.engine import DecodeSettings, decode, last_step
from mmgen.sample.flow import FlowDecider, FlowSettings
from mmgen.sample.guidance import Guidance

BATCH = 2


@pytest.mark.parametrize("seed", range(12))
def test_velocities_and_latents(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    across = random.randint(1, 3)
    sizes = official.Sizes(
        width=24 * random.randint(1, 2),
        depths=(random.randint(1, 3), random.randint(1, 3)),
        heads=(random.choice((1, 2, 3, 6)), random.choice((1, 2, 3, 6))),
        hidden=random.randint(5, 60),
        side=across * random.randint(1, 3),
        across=across,
        channels=random.randint(3, 16),
        waves=2 * random.randint(1, 20),
    )
    classes = random.randint(1, 6)
    weights = weights_of(official.shapes_of(sizes, classes))
    stride = random.choice((8, 16))
    options: dict[str, Any] = {"vae_stride": stride, "clusters": across**2}
    options |= {"img_size": stride * sizes.side, "class_num": 1000, "attn_dropout": 0.1}
    for stack, depth, heads in zip(official.STACKS, sizes.depths, sizes.heads):
        options |= {f"{stack}_embed_dim": sizes.width, f"{stack}_depth": depth}
        options[f"{stack}_num_heads"] = heads
    carried = dict(weights)
    if random.random() < 0.5:  # buffers instead of what they tell
        carried |= official.buffers_of(sizes)
        options = {"vae_stride": stride}
    network = imported("xar", carried, options, tmp_path)
    assert network.config.grid == (1, sizes.side, sizes.side)
    labels = torch.randint(classes + 1, (BATCH,))
    latents = torch.randn(BATCH, sizes.side**2, sizes.channels)
    time = torch.rand(BATCH, across**2)
    with torch.no_grad():
        said = network(Noised(latents, time, latents), labels)
    expected = official.velocity(weights, sizes, latents, labels, (time * 1000).trunc())
    torch.testing.assert_close(said, expected, **CLOSE)

    scale, steps = random.choice((1.5, 3.0)), random.randint(3, 5)
    expected = official.sample(weights, sizes, labels, latents, steps, scale)
    ours = sampled(network, labels, latents, steps, scale)
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)


def sampled(network: Any, labels: Tensor, start: Tensor, steps: int, scale: float) -> Tensor:
    """Our latents (B, N, C) in entity order, by Euler's rule from `start`."""
    plan = compile_plan(network.schedule, "self", continuous=True)
    with torch.inference_mode():
        prefix = network.prefix(labels, guided=True)
    decider = FlowDecider(
        network,
        plan,
        prefix.cursor.condition,
        torch.zeros(BATCH, dtype=torch.long),
        FlowSettings("euler", steps),
        lambda block, slots, visit: start[:, slots],
    )
    settings = DecodeSettings(guidance=Guidance(scale, ramp="linear"))
    steps_of = decode(network, prefix, plan, "", decider.seeds, settings, decider=decider)
    codes = last_step(steps_of).codes.flatten(1, 3)  # (B, N, C) by site
    return codes[:, network.schedule.site].clone()
