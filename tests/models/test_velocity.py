"""The transformer of velocities: who sees whom, what conditions it, and how it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmgen.errors import ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.flow import FlowDraws, flow_draws
from mmgen.models.velocity import VelocityConfig, VelocityModel

STACK = BackboneConfig(
    width=32, depth=2, heads=2, mlp="geglu", bias=True, qk_norm=False, adaln=True
)


def velocity_model(order: str = "cell:2", **changes: object) -> VelocityModel:
    """Random weights everywhere, so that adaLN speaks too."""
    torch.manual_seed(0)
    sizes = {"stacks": (STACK, STACK), "channels": 3, "grid": (1, 4, 4), "classes": 5}
    model = VelocityModel(VelocityConfig(**(sizes | {"order": order} | changes)))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def latents_of(model: VelocityModel, batch: int = 2) -> tuple[torch.Tensor, FlowDraws]:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(batch, model.schedule.slots, 3, generator=generator)
    return latents, flow_draws(batch, model.schedule.blocks, latents, generator)


@pytest.mark.parametrize("order", ["cell:2", "raster", "subsample:2", "scale:1,2,4", "whole"])
def test_a_block_hears_itself_and_the_noisy_blocks_before_it(order: str) -> None:
    model = velocity_model(order)
    latents, draws = latents_of(model)
    noised, labels = model.add_noise(latents, draws), torch.tensor([1, 4])
    block_of_slot = model.schedule.block_of_slot
    with torch.no_grad():
        before = model(noised, labels)
        for block in range(model.schedule.blocks):
            moved = noised.latents + 0.5 * (block_of_slot == block)[:, None]
            change = (model(noised._replace(latents=moved), labels) - before).abs().amax((0, 2))
            assert (change[block_of_slot >= block] > 1e-6).all()
            assert (change[block_of_slot < block] < 1e-6).all()


def test_labels_and_times_reach_the_rows() -> None:
    model = velocity_model()
    latents, draws = latents_of(model)
    noised, labels = model.add_noise(latents, draws), torch.tensor([1, 4])
    with torch.no_grad():
        said = model(noised, labels)
        assert not torch.allclose(model(noised, torch.tensor([1, 3]))[1], said[1], atol=1e-3)
        later = noised.time.clone()
        later[0, 2] = 1 - later[0, 2]
        change = (model(noised._replace(time=later), labels) - said).abs().amax(2)
    assert change[0, 8:12].min() > 1e-4  # the block whose time it is
    assert change[0, :8].max() < 1e-6 and change[1].max() < 1e-6


def test_whole_times_hide_the_fraction() -> None:
    latents, draws = latents_of(velocity_model())
    labels = torch.tensor([0, 0])
    for whole in (True, False):
        model = velocity_model(whole_times=whole, time_levels=10)
        noised = model.add_noise(latents, draws)
        floor = (noised.time * 10).trunc() / 10 + 0.01
        with torch.no_grad():
            same = torch.allclose(
                model(noised, labels), model(noised._replace(time=floor), labels), atol=1e-5
            )
        assert same == whole


def test_loss_is_the_squared_error_with_labels_dropped() -> None:
    model = velocity_model(label_drop=0.5)
    latents, draws = latents_of(model)
    draws = draws._replace(drop=torch.tensor([0.4, 0.5]))
    noised = model.add_noise(latents, draws)
    with torch.no_grad():
        told = model(noised, torch.tensor([model.no_label, 3]))
        loss = model.loss(latents, torch.tensor([2, 3]), draws)
    assert torch.isclose(loss, F.mse_loss(told, draws.noise - latents))


def test_training_reaches_every_weight() -> None:
    model = velocity_model()
    latents, draws = latents_of(model)
    model.loss(latents, torch.tensor([1, 2]), draws).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_new_model_begins_as_the_identity_in_every_block() -> None:
    torch.manual_seed(0)
    config = VelocityConfig((STACK,), channels=3, grid=(1, 4, 4), order="cell:2", classes=5)
    model = VelocityModel(config)
    latents, draws = latents_of(model)
    noised = model.add_noise(latents, draws)
    with torch.no_grad():
        assert torch.equal(model(noised, torch.tensor([0, 1])), model(noised, torch.tensor([2, 3])))


def test_stacks_may_have_other_heads_and_depths() -> None:
    other = BackboneConfig(width=32, depth=1, heads=4, mlp="geglu", bias=True, adaln=True)
    model = velocity_model(stacks=(STACK, other))
    latents, draws = latents_of(model)
    assert torch.isfinite(model.loss(latents, torch.tensor([1, 2]), draws))


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = velocity_model()
    model.save_pretrained(tmp_path)
    again = VelocityModel.from_pretrained(tmp_path)
    assert again.config == model.config and again.fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("stacks", "message"),
    [
        ((), "stacks needs one entry"),
        ((STACK, BackboneConfig(width=16, heads=2, adaln=True)), "all of one width"),
        ((BackboneConfig(width=32, heads=2),), r"stacks\[0\].adaln must be true"),
        ((BackboneConfig(width=12, heads=2, adaln=True),), "heads of 6 channels"),
    ],
)
def test_stacks_that_cannot_stand_in_series(stacks: tuple[BackboneConfig, ...], message) -> None:
    with pytest.raises(ConfigError, match=message):
        VelocityConfig(stacks, channels=3, grid=(1, 4, 4), order="cell:2", classes=5)


def test_latents_have_no_logits() -> None:
    with pytest.raises(ConfigError, match="FlowDecider"):
        velocity_model().logits(torch.zeros(1, 1, 3), None)
