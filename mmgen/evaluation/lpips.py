"""LPIPS (arXiv 1801.03924, version 0.1), whose weights the user brings.

Feature maps of VGG16 or AlexNet at five depths are scaled to unit-length channels; the squared
differences are weighted channel by channel, summed, and averaged over the picture.

Two files: torchvision's classification weights (vgg16-397923af.pth, alexnet-owt-7be5be79.pth), and
the channels' weights, `lin0.model.1.weight` to `lin4.model.1.weight` (vgg.pth, alex.pth, which the
package lpips ships in `lpips/weights/v0.1`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmgen.errors import CheckpointError, ConfigError, DataError, suggestion
from mmgen.published.reading import read_checkpoint
from mmgen.saving import load_strictly

# Which layers of torchvision's `features` are compared: a ReLU before each pooling, or each ReLU.
LAYERS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}
PROTOCOL = "LPIPS 0.1, {network}, pixels in [-1, 1] at the picture's own size"
# The mean and deviation of ImageNet for pixels in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SMALLEST = 32
_EPS = 1e-10


class Lpips:
    """The distance, ready to compare pictures.

    Args:
        network: "vgg" or "alex".
        backbone: file of torchvision's weights. `channels`: file of the channels' weights.
        device: where it runs.

    Raises:
        ConfigError: there is no such network.
        CheckpointError: a file is missing, damaged or of another network.
    """

    def __init__(
        self,
        network: str,
        backbone: str | Path,
        channels: str | Path,
        device: str | torch.device = "cpu",
    ) -> None:
        if network not in LAYERS:
            raise ConfigError(f"LPIPS knows no network '{network}'{suggestion(network, LAYERS)}")
        self.network, self.device = network, torch.device(device)
        trunk, weights = read_checkpoint(backbone), read_checkpoint(channels)
        self.features = _features(network, trunk.tensors, backbone).to(device)
        self.weights = [w.to(device) for w in _channel_weights(network, weights.tensors, channels)]
        self.hashes = [trunk.sha256[:16], weights.sha256[:16]]
        """First 16 hexadecimal digits of the SHA-256 of both files."""

    @torch.inference_mode()
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance (B,) of pictures x and y, (B, 3, H, W) in [-1, 1].

        Raises:
            DataError: they are smaller than what the networks can look at.
        """
        height, width = x.shape[-2:]
        if min(height, width) < SMALLEST:
            raise DataError(
                f"LPIPS needs pictures of {SMALLEST} pixels a side or more, not {width}x{height}."
            )
        maps = zip(self._maps(x), self._maps(y), self.weights)
        depths = [((a - b).square() * w[:, None, None]).sum(1).mean((1, 2)) for a, b, w in maps]
        return torch.stack(depths).sum(0).cpu()

    def described(self) -> dict[str, Any]:
        """Its part of a protocol."""
        return {"rule": PROTOCOL.format(network=self.network), "hashes": self.hashes}

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        shift, scale = (torch.tensor(v, device=self.device)[:, None, None] for v in (SHIFT, SCALE))
        hidden, found = (pixels.to(self.device) - shift) / scale, []
        for number, layer in enumerate(self.features):
            hidden = layer(hidden)
            if number in LAYERS[self.network]:
                found.append(hidden / (hidden.norm(dim=1, keepdim=True) + _EPS))
        return found  # five of (B, C, h, w)


def _features(network: str, tensors: dict[str, Tensor], path: str | Path) -> nn.Sequential:
    import torchvision

    build = {"vgg": torchvision.models.vgg16, "alex": torchvision.models.alexnet}[network]
    with torch.device("meta"):
        layers: nn.Sequential = build(weights=None).features[: LAYERS[network][-1] + 1]
    layers = layers.to_empty(device="cpu")
    kept = {k.removeprefix("features."): t for k, t in tensors.items() if k.startswith("features.")}
    load_strictly(layers, kept, str(path))
    return layers.eval().requires_grad_(False)


def _channel_weights(network: str, tensors: dict[str, Tensor], path: str | Path) -> list[Tensor]:
    names = [f"lin{i}.model.1.weight" for i in range(len(LAYERS[network]))]
    widths = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}[network]
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if found != {name: (1, width, 1, 1) for name, width in zip(names, widths)}:
        raise CheckpointError(
            f"{path} does not hold LPIPS's five rows of weights for '{network}'; give "
            f"{network}.pth of the package lpips (weights/v0.1)."
        )
    return [tensors[name].flatten().float() for name in names]
