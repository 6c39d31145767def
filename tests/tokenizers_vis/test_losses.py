"""Reconstruction and adversarial losses and the patch discriminator."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mmgen.config import from_dict
from mmgen.errors import ConfigError
from mmgen.tokenizers_vis.discriminator import DiscriminatorConfig, NormKind, PatchDiscriminator
from mmgen.tokenizers_vis.losses import (
    GanKind,
    LeCam,
    TokenizerLossConfig,
    as_frames,
    discriminator_loss,
    generator_loss,
    gradient_loss,
    reconstruction_losses,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


PICTURES = (2, 3, 8, 10)
CLIPS = (2, 3, 4, 8, 10)


@pytest.mark.parametrize("shape", [PICTURES, CLIPS])
def test_weights_and_terms(shape: tuple[int, ...]) -> None:
    x, y = torch.rand(shape), torch.rand(shape)
    config = TokenizerLossConfig(l1=0.5, l2=2.0, gradient=3.0, perceptual=0.1)
    losses = reconstruction_losses(config, x, y, lambda a, b: (a - b).abs().max())
    assert set(losses) == {"l1", "l2", "gradient", "perceptual"}
    torch.testing.assert_close(losses["l1"], 0.5 * (x - y).abs().mean())
    torch.testing.assert_close(losses["l2"], 2 * (x - y).square().mean())
    torch.testing.assert_close(losses["perceptual"], 0.1 * (x - y).abs().max())
    dx = (x[..., 1:] - x[..., :-1]) - (y[..., 1:] - y[..., :-1])
    dy = (x[..., 1:, :] - x[..., :-1, :]) - (y[..., 1:, :] - y[..., :-1, :])
    gradient = dx.abs().mean() + dy.abs().mean()
    if len(shape) == 5:
        gradient += (x - y)[:, :, 1:].sub((x - y)[:, :, :-1]).abs().mean()
    torch.testing.assert_close(losses["gradient"], 3 * gradient)
    only = reconstruction_losses(TokenizerLossConfig(l2=0, gradient=0), x, y)
    assert set(only) == {"l1"}
    assert TokenizerLossConfig().adversarial == 0  # the GAN is off unless asked for


def test_gradient_loss_forgives_a_constant_shift() -> None:
    x = torch.rand(PICTURES)
    torch.testing.assert_close(gradient_loss(x + 0.5, x), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert gradient_loss(x.flip(-1), x) > 0.1


def test_user_errors() -> None:
    with pytest.raises(ConfigError, match="feature network"):
        reconstruction_losses(
            TokenizerLossConfig(perceptual=1), torch.rand(PICTURES), torch.rand(PICTURES)
        )
    with pytest.raises(ConfigError, match="'l2'"):
        from_dict(TokenizerLossConfig, {"l2": -1.0})
    with pytest.raises(ConfigError, match="at least 1"):
        from_dict(DiscriminatorConfig, {"layers": 0})


def test_gan_losses_in_numbers() -> None:
    real, fake = torch.tensor([[2.0], [0.0]]), torch.tensor([[-3.0], [0.5]])
    assert float(discriminator_loss("hinge", real, fake)) == pytest.approx(0.5 * (0.5 + 0.75))
    assert float(generator_loss("hinge", fake)) == pytest.approx(1.25)
    soft = [math.log1p(math.exp(v)) for v in (-2.0, 0.0, -3.0, 0.5)]
    assert float(discriminator_loss("nonsaturating", real, fake)) == pytest.approx(sum(soft) / 4)
    soft = [math.log1p(math.exp(v)) for v in (3.0, -0.5)]
    assert float(generator_loss("nonsaturating", fake)) == pytest.approx(sum(soft) / 2)
    patches = torch.randn(2, 1, 3, 3)
    expected = F.softplus(-patches.mean((1, 2, 3))).mean()
    torch.testing.assert_close(generator_loss("nonsaturating", patches), expected)


@pytest.mark.parametrize("kind", ["hinge", "nonsaturating"])
def test_each_side_pulls_its_own_way(kind: GanKind) -> None:
    real, fake = torch.zeros(4, 1, requires_grad=True), torch.zeros(4, 1, requires_grad=True)
    d_real, d_fake = torch.autograd.grad(discriminator_loss(kind, real, fake), [real, fake])
    assert (d_real < 0).all()
    assert (d_fake > 0).all()
    (g_fake,) = torch.autograd.grad(generator_loss(kind, fake), fake)
    assert (g_fake < 0).all()


def test_lecam_resumes() -> None:
    first, second = LeCam(), LeCam()
    real, fake = torch.randn(4, 1), torch.randn(4, 1)
    first(real, fake)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(real, fake), second(real, fake))


def test_frames_of_clips() -> None:
    clip = torch.randn(CLIPS)
    frames = as_frames(clip)
    assert frames.shape == (8, 3, 8, 10)
    assert torch.equal(frames[5], clip[1, :, 1])
    picture = torch.randn(PICTURES)
    assert as_frames(picture) is picture


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_discriminator(norm: NormKind) -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(DiscriminatorConfig(width=8, layers=3, norm=norm))
    x = torch.randn(2, 3, 32, 40, requires_grad=True)
    logits = network(x)
    assert logits.shape == (2, 1, 2, 3)  # three halvings, then two 4x4 steps of padding 1
    logits.sum().backward()
    assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]
    assert network(torch.randn(2, 3, 5, 32, 32)).shape == (10, 1, 2, 2)
    if norm != "batch":  # a picture's logits do not depend on the rest of its batch
        torch.testing.assert_close(network(x)[:1], network(x[:1]))


def test_published_layout() -> None:
    network = PatchDiscriminator(DiscriminatorConfig())
    names = {name for name, _ in network.named_parameters()}
    assert {f"main.{i}.weight" for i in (0, 2, 3, 5, 6, 8, 9, 11)} <= names
    assert {"main.0.bias", "main.11.bias"} <= names
    assert "main.2.bias" not in names
    convolutions = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1
    norms = 2 * (128 + 256 + 512)
    assert sum(p.numel() for p in network.parameters()) == convolutions + norms
    deep = PatchDiscriminator(DiscriminatorConfig(layers=5))
    assert deep.main[-1].in_channels == 512  # the width stops at 8 times
