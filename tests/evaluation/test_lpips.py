"""LPIPS with random weights against the formula, one layer and one site at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from mmgen.errors import CheckpointError, ConfigError, DataError
from mmgen.evaluation.lpips import Lpips

WIDTHS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}


def save(folder: Path, network: str) -> tuple[Path, Path, nn.Module]:
    """Both files with random weights, as torchvision and lpips name their tensors."""
    torch.manual_seed(1)
    build = {"vgg": torchvision.models.vgg16, "alex": torchvision.models.alexnet}[network]
    with torch.device("meta"):
        whole = build(weights=None)
    features = whole.features.to_empty(device="cpu")
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)
    state = {f"features.{name}": t for name, t in features.state_dict().items()}
    state["classifier.1.weight"] = torch.zeros(2, 2)  # is not needed, and not looked at
    torch.save(state, folder / f"{network}-backbone.pth")
    rows = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1) for i, w in enumerate(WIDTHS[network])}
    torch.save(rows, folder / f"{network}.pth")
    return folder / f"{network}-backbone.pth", folder / f"{network}.pth", features


def direct(features: nn.Module, rows: list[np.ndarray], x: torch.Tensor, y: torch.Tensor) -> float:
    """The distance of two pictures (3, H, W), read off the paper and ImageNet's means."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    alex = len(rows[1]) == 192
    maps: list[list[np.ndarray]] = []
    for picture in (x, y):
        hidden = (((picture + 1) / 2 - mean[:, None, None]) / std[:, None, None])[None].double()
        found = []
        for number, layer in enumerate(features):
            hidden = layer(hidden)
            following = features[number + 1 : number + 2]
            # VGG: what is pooled. AlexNet: every ReLU.
            pooled = len(following) and isinstance(following[0], nn.MaxPool2d)
            if isinstance(layer, nn.ReLU) and (alex or pooled):
                found.append(hidden[0].numpy().copy())
            if len(found) == 5:
                break
        maps.append(found)
    assert len(maps[0]) == 5
    total = 0.0
    for a, b, row in zip(*maps, rows):
        _, height, width = a.shape
        for i in range(height):
            for j in range(width):
                u = a[:, i, j] / (np.linalg.norm(a[:, i, j]) + 1e-10)
                v = b[:, i, j] / (np.linalg.norm(b[:, i, j]) + 1e-10)
                total += float((row * (u - v) ** 2).sum()) / (height * width)
    return total


@pytest.mark.parametrize("network", ["vgg", "alex"])
@torch.inference_mode()
def test_lpips_is_the_formula(network: str, tmp_path: Path) -> None:
    backbone, channels, features = save(tmp_path, network)
    distance = Lpips(network, backbone, channels)
    rows = [t.flatten().double().numpy() for t in torch.load(channels, weights_only=True).values()]
    x, y = torch.rand(2, 3, 40, 36) * 2 - 1, torch.rand(2, 3, 40, 36) * 2 - 1
    found = distance(x, y)
    assert found.shape == (2,)
    features = features.double()
    for i in range(2):
        # The package's constants are ImageNet's, rounded to three digits.
        expected = direct(features, rows, x[i], y[i])
        assert float(found[i]) == pytest.approx(expected, rel=2e-3)
    assert distance(x, x).abs().max() < 1e-9
    with pytest.raises(DataError, match="32 pixels a side or more, not 31x40"):
        distance(x[..., :31], y[..., :31])
    assert distance.described()["hashes"] == distance.hashes and len(distance.hashes[0]) == 16


def test_other_files_are_refused(tmp_path: Path) -> None:
    backbone, channels, _ = save(tmp_path, "alex")
    with pytest.raises(ConfigError, match="no network 'vg'; did you mean 'vgg'"):
        Lpips("vg", backbone, channels)
    with pytest.raises(CheckpointError, match="lacks the tensors"):
        Lpips("vgg", backbone, channels)
    with pytest.raises(CheckpointError, match="five rows of weights for 'alex'"):
        Lpips("alex", backbone, backbone)
    with pytest.raises(CheckpointError):
        Lpips("alex", tmp_path / "nothing.pth", channels)
