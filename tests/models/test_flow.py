"""Noised latents: straight paths, one time a block, and what the network is told of it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.models.flow import FlowDraws, add_noise, flow_draws, time_level

BLOCKS = torch.tensor([0, 0, 1, 1, 1, 2])


def drawn(seed: int = 0) -> tuple[torch.Tensor, FlowDraws]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(4, 6, 3, generator=generator)
    return latents, flow_draws(4, 3, latents, generator)


def test_a_block_moves_in_a_straight_line_and_velocity_is_its_direction() -> None:
    latents, draws = drawn()
    noised = add_noise(latents, draws, BLOCKS)
    for slot, block in enumerate(BLOCKS.tolist()):
        t = noised.time[:, block, None]
        at = noised.latents[:, slot]
        assert torch.allclose(at - t * noised.velocity[:, slot], latents[:, slot], atol=1e-6)
        end = at + (1 - t) * noised.velocity[:, slot]
        assert torch.allclose(end, draws.noise[:, slot], atol=1e-6)


def test_times_are_logit_normal_and_of_each_block() -> None:
    latents = torch.zeros(2000, 6, 1)
    draws = flow_draws(2000, 3, latents, torch.Generator().manual_seed(1))
    time = add_noise(latents, draws, BLOCKS).time
    assert time.dtype == torch.float32 and ((time > 0) & (time < 1)).all()
    normal = torch.logit(time)
    assert abs(float(normal.mean())) < 0.05 and abs(float(normal.std()) - 1) < 0.05
    assert (torch.corrcoef(normal.T) - torch.eye(3)).abs().max() < 0.1


def test_the_same_generator_draws_the_same_numbers() -> None:
    one, two, other = drawn(3)[1], drawn(3)[1], drawn(4)[1]
    assert all(torch.equal(a, b) for a, b in zip(one, two))
    assert not torch.equal(one.noise, other.noise)
    assert ((one.drop >= 0) & (one.drop < 1)).all()


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.sampled_from([10, 1000]))
def test_levels_are_computed_in_float32(t: float, levels: int) -> None:
    time = torch.tensor([t], dtype=torch.float64)
    exact = time_level(time, levels, whole=False)
    assert exact.dtype == torch.float32
    assert exact.item() == (torch.tensor(t, dtype=torch.float32) * levels).item()
    assert time_level(time, levels, whole=True).item() == int(exact)
