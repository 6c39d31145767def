"""Losses of tokenizer training: pixels, edges, features, and the two sides of a GAN.

Pictures (B, 3, H, W) or clips (B, 3, T, H, W), float in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgen.errors import ConfigError

GanKind = Literal["hinge", "nonsaturating"]


@dataclass(frozen=True)
class TokenizerLossConfig:
    """Weights of the tokenizer's losses (the quantizer weighs its own); 0 leaves a term out.

    Args:
        l1: of the mean absolute pixel difference.
        l2: of the mean squared pixel difference.
        gradient: of the mean absolute difference of the finite differences along x, y and time.
        perceptual: of the feature difference (`perceptual.FeatureNetwork`).
        adversarial: of the generator's side of the GAN.
        adversarial_start: first training step (from 0) with a GAN.
        gan: the generator's loss; the discriminator's is the hinge loss for "hinge" and its
            logistic twin for "nonsaturating".
        lecam: of the LeCAM regularisation of the discriminator.
    """

    l1: float = 1.0
    l2: float = 1.0
    gradient: float = 0.5
    perceptual: float = 0.0
    adversarial: float = 0.0
    adversarial_start: int = 0
    gan: GanKind = "hinge"
    lecam: float = 0.0

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "gradient", "perceptual", "adversarial", "lecam"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"The tokenizer loss weight '{name}' must be a number from 0 up.")


def reconstruction_losses(
    config: TokenizerLossConfig,
    reconstruction: Tensor,
    pixels: Tensor,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the weighted scalars "l1", "l2", "gradient" and "perceptual" with a weight above 0.

    Args:
        config: the weights.
        reconstruction: of `pixels`, the same shape.
        pixels: (B, 3, H, W) or (B, 3, T, H, W).
        perceptual: a distance of two such batches; needed if its weight is above 0.

    Raises:
        ConfigError: the perceptual loss has a weight and there is no network for it.
    """
    losses: dict[str, Tensor] = {}
    if config.l1:
        losses["l1"] = config.l1 * F.l1_loss(reconstruction, pixels)
    if config.l2:
        losses["l2"] = config.l2 * F.mse_loss(reconstruction, pixels)
    if config.gradient:
        losses["gradient"] = config.gradient * gradient_loss(reconstruction, pixels)
    if config.perceptual:
        if perceptual is None:
            raise ConfigError("The loss weight 'perceptual' needs a feature network; set it to 0.")
        losses["perceptual"] = config.perceptual * perceptual(reconstruction, pixels)
    return losses


def gradient_loss(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """Mean absolute difference of the finite differences along x, y and (in clips) time, summed."""
    difference = reconstruction - pixels  # a finite difference is linear
    axes = range(2, difference.ndim)
    along = [difference.diff(dim=axis).abs().mean() for axis in axes if difference.shape[axis] > 1]
    return torch.stack(along).sum()


def discriminator_loss(kind: GanKind, real: Tensor, fake: Tensor) -> Tensor:
    """Loss of the discriminator from its logits (any shape) of real and reconstructed pictures.

    hinge: half of mean relu(1 - real) + mean relu(1 + fake).
    nonsaturating: half of mean softplus(-real) + mean softplus(fake).
    """
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_loss(kind: GanKind, fake: Tensor) -> Tensor:
    """Loss of the tokenizer from the logits (B, ...) of its reconstructions.

    hinge: -mean fake. nonsaturating: mean over pictures of softplus(-(mean logit of a picture)).
    """
    if kind == "hinge":
        return -fake.mean()
    return F.softplus(-fake.flatten(1).mean(1)).mean()


class LeCam:
    """LeCAM regularisation: logits stay near the other side's moving average (arXiv 2104.03310).

    The averages start at 0 and take in the current batch before they are used.

    Args:
        decay: of the two averages.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay, self.real, self.fake = decay, 0.0, 0.0

    def __call__(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the unweighted penalty of a discriminator's logits."""
        self.real += (1 - self.decay) * (float(real.detach().mean()) - self.real)
        self.fake += (1 - self.decay) * (float(fake.detach().mean()) - self.fake)
        return F.relu(real - self.fake).square().mean() + F.relu(self.real - fake).square().mean()

    def state_dict(self) -> dict[str, float]:
        """Return the two averages."""
        return {"real": self.real, "fake": self.fake}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore what `state_dict` returned."""
        self.real, self.fake = float(state["real"]), float(state["fake"])


def as_frames(pixels: Tensor) -> Tensor:
    """Return clips (B, C, T, H, W) as pictures (B*T, C, H, W); pictures as they are."""
    if pixels.ndim == 5:
        return torch.flatten(pixels.transpose(1, 2), 0, 1)
    return pixels
