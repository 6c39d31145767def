"""Features of pictures in a fixed network: EfficientNet-Lite0, 1280 numbers a picture.

The network is the yardstick of the evaluation. Its weights come from a package, so it works
offline, and nothing of ours is trained on it (`mmgen.tokenizers_vis.perceptual`).
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mmgen.errors import CheckpointError, DataError, UserError
from mmgen.files import replacing
from mmgen.progress import Progress
from mmgen.saving import read_tensors
from mmgen.tokenizers_vis.perceptual import PACKAGES, FeatureNetwork, PerceptualConfig

NETWORK = "tf_efficientnet_lite0"
WIDTH = 1280
SIDE = 224
PROTOCOL = (
    "uint8 / 255, bicubic to 224x224 without antialias, clamp to [0, 1], (x - 0.5) / 0.5, "
    f"{NETWORK} forward_features, mean over height and width"
)

Pictures = NDArray[np.uint8]  # (N, H, W, 3)
Features = NDArray[np.float32]  # (N, 1280)

_BATCH = 16
_CHUNK = 512  # pictures between two writes of the cache


class Extractor(Protocol):
    """A network that looks at pictures.

    Args:
        hash: of its weights. `protocol`: what is done to pictures and taken from the network.
        device: where it runs.
    """

    hash: str
    protocol: str
    device: torch.device

    def __call__(self, pictures: Pictures) -> Features:
        """Return features (N, D) float32 of pictures (N, H, W, 3) uint8."""
        ...


class FeatureExtractor:
    """The fixed network, ready to look at pictures.

    Args:
        device: where it runs; the published numbers are of the CPU.

    Raises:
        UserError: the package with the weights is not installed.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        package = PACKAGES[NETWORK][0]
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"The evaluation needs the package {package}; "
                f"install it with: pip install {package.replace('_', '-')}"
            )
        self.protocol = PROTOCOL
        self.network = FeatureNetwork(PerceptualConfig(network=NETWORK)).network.to(device)
        self.device = torch.device(device)
        self.hash = _hash_of(self.network.state_dict())
        """First 16 hexadecimal digits of the SHA-256 of the weights."""

    @torch.inference_mode()
    def __call__(self, pictures: Pictures) -> Features:
        """Return the features (N, 1280) float32 of pictures (N, H, W, 3) uint8."""
        pixels = torch.from_numpy(np.array(pictures)).to(self.device).permute(0, 3, 1, 2)
        scaled = pixels.float() / 255
        if scaled.shape[-2:] != (SIDE, SIDE):
            scaled = F.interpolate(scaled, (SIDE, SIDE), mode="bicubic", align_corners=False)
        maps: Tensor = self.network.forward_features((scaled.clamp(0, 1) - 0.5) / 0.5)  # type: ignore[operator]
        features: Features = maps.mean((2, 3)).cpu().numpy()  # (N, 1280, 7, 7) before the mean
        return features


def features_of(
    pictures: Pictures,
    extractor: Extractor,
    *,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Features:
    """Return features of many pictures, those in the cache without looking at them again.

    A picture is known by a hash of its size and bytes, so the order does not matter and a part of
    a cached set is found too. The cache is written as the work goes on: an interrupted call loses
    little.

    Args:
        pictures: (N, H, W, 3) uint8.
        extractor: the network.
        cache: a .safetensors file; made if it does not exist. It keeps features of other weights,
            rules and kinds of device beside these, and never mixes them.
        progress: is called with the number of pictures done and of all.

    Raises:
        DataError: the array has another shape or type.
    """
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise DataError(
            f"Pictures must be (N, H, W, 3) uint8, not {pictures.shape} {pictures.dtype}."
        )
    keys = [_key_of(picture) for picture in pictures]
    maker = _maker_of(extractor)
    known = _read_cache(Path(cache), maker) if cache is not None else {}
    new = {key: i for i, key in enumerate(keys) if key not in known}  # each different picture once
    places, done = list(new.values()), len(keys) - len(new)
    for start in range(0, len(places), _CHUNK):
        chunk = places[start : start + _CHUNK]
        for begin in range(0, len(chunk), _BATCH):
            batch = chunk[begin : begin + _BATCH]
            known |= zip([keys[i] for i in batch], extractor(pictures[batch]))
            done += len(batch)
            if progress is not None:
                progress(done, len(keys))
        if cache is not None:
            _write_cache(Path(cache), known, maker)
    if not keys:
        return np.zeros((0, WIDTH), np.float32)
    return np.stack([known[key] for key in keys])


def _key_of(picture: Pictures) -> bytes:
    size = f"{picture.shape[0]}x{picture.shape[1]}:".encode()
    return hashlib.sha256(size + np.ascontiguousarray(picture).tobytes()).digest()


def _hash_of(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(PROTOCOL.encode())
    for tensor in tensors.values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _maker_of(extractor: Extractor) -> str:
    """What features depend on besides the picture, as a short hash."""
    kind = torch.device(extractor.device).type
    words = f"{extractor.hash} {extractor.protocol} {kind}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _read_cache(path: Path, maker: str) -> dict[bytes, Features]:
    """Features by picture; empty if the file is missing, damaged, or holds none of this maker."""
    tensors = _tensors_in(path)
    keys, features = (tensors.get(f"{kind}-{maker}") for kind in ("keys", "features"))
    if keys is None or features is None:
        return {}
    return {key.tobytes(): row for key, row in zip(keys, features)}


def _write_cache(path: Path, known: dict[bytes, Features], maker: str) -> None:
    from safetensors.numpy import save_file

    tensors = _tensors_in(path)
    tensors[f"keys-{maker}"] = np.frombuffer(b"".join(known), np.uint8).reshape(len(known), -1)
    tensors[f"features-{maker}"] = np.stack(list(known.values()))
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def _tensors_in(path: Path) -> dict[str, NDArray[Any]]:
    try:
        tensors = read_tensors(path)
    except CheckpointError:
        return {}  # it is a cache: what cannot be read is made again
    # Older caches do not say which device and rules they are of; they are not kept.
    makers = [name.removeprefix("keys-") for name in tensors if name.startswith("keys-")]
    names = [f"{kind}-{maker}" for maker in makers for kind in ("keys", "features")]
    return {name: tensors[name].numpy() for name in names if name in tensors}
