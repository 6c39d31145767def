"""torch-fidelity's network through our door, with random weights in its own layout."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmgen.errors import CheckpointError, UserError
from mmgen.evaluation.inception import WIDTHS, Inception, Seen

installed = pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed"
)


@pytest.fixture(scope="module")
def official() -> Any:
    """The network as torch-fidelity builds it, before weights are loaded."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        return FeatureExtractorInceptionV3("any", ["2048", "logits_unbiased"], nothing)


@installed
def test_features_are_those_of_torch_fidelity(official: Any, tmp_path: Path) -> None:
    torch.save(official.state_dict(), tmp_path / "weights.pth")
    network = Inception(tmp_path / "weights.pth")
    shown = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), dtype=np.uint8)
    features = network(shown)
    assert features.shape == (2, sum(WIDTHS)) and len(network.hash) == 16
    seen = Seen.of(features)
    maps: list[torch.Tensor] = []  # mixed_6/conv is the first branch of the third 17x17 block
    hook = official.Mixed_6d.branch1x1.register_forward_hook(lambda *args: maps.append(args[2]))
    pooled, logits = official(torch.from_numpy(shown).permute(0, 3, 1, 2))
    hook.remove()
    np.testing.assert_array_equal(seen.pooled, pooled.numpy())
    np.testing.assert_array_equal(seen.logits, logits.numpy())
    spatial = maps[0][:, :7].permute(0, 2, 3, 1).reshape(2, -1)
    np.testing.assert_array_equal(seen.spatial, spatial.numpy())


@installed
def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .* give torch-fidelity's weights-inception"):
        Inception(tmp_path / "nothing.pth")
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="holds other weights than weights-inception"):
        Inception(tmp_path / "other.pth")


@installed
def test_a_hostile_file_is_not_unpickled(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    torch.save(Hostile(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError):
        Inception(tmp_path / "weights.pth")
    assert not (tmp_path / "touched").exists()


def test_the_package_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="pip install torch-fidelity"):
        Inception("weights.pth")
