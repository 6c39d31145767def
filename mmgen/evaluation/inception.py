"""torch-fidelity's Inception network, whose weights the user brings: FID, sFID, IS, precision.

The network is TensorFlow's of 2015-12-05, which published numbers are of, with TensorFlow's own
resizing to 299x299. torch-fidelity would unpickle its weights file; here the file is read as plain
tensors first and handed over as such.
"""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from mmgen.errors import CheckpointError, UserError
from mmgen.evaluation.features import Features, Pictures
from mmgen.evaluation.standard import (
    NEIGHBOURS,
    SPLITS,
    Array,
    Gaussian,
    frechet_distance,
    inception_score,
    precision_recall,
)
from mmgen.published.reading import read_checkpoint

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
PROTOCOL = (
    "torch-fidelity inception-v3-compat: uint8 to 299x299 as TensorFlow 1 resizes (bilinear, no "
    "antialias), (x - 128) / 128; pool3 (2048) for FID, precision and recall, the first 7 channels "
    "of mixed_6/conv (17 x 17 x 7) for sFID, logits without bias (1008) for IS"
)
SPATIAL_CHANNELS = 7
WIDTHS = (2048, SPATIAL_CHANNELS * 17 * 17, 1008)


@dataclass(frozen=True)
class Seen:
    """What the network says of N pictures.

    Args:
        pooled: (N, 2048). `spatial`: (N, 2023). `logits`: (N, 1008).
    """

    pooled: Array
    spatial: Array
    logits: Array

    @classmethod
    def of(cls, features: Array) -> Self:
        """Take apart what `Inception` returns, (N, 5079)."""
        return cls(*np.split(features, np.cumsum(WIDTHS)[:-1], axis=1))


@dataclass(frozen=True)
class Reference:
    """What pictures are held against.

    Args:
        pooled: of pool3. `spatial`: of mixed_6; None where a file has none.
        features: (N, 2048) of the reference's own pictures; None where it has none.
    """

    pooled: Gaussian
    spatial: Gaussian | None
    features: Array | None

    @classmethod
    def of(cls, seen: Seen) -> Self:
        """The reference that pictures make."""
        return cls(Gaussian.of(seen.pooled), Gaussian.of(seen.spatial), seen.pooled)


class Inception:
    """The network, ready to look at pictures.

    Args:
        weights: the file; torch-fidelity's layout.
        device: where it runs.

    Raises:
        UserError: torch-fidelity is not installed, or the file is missing or another one.
    """

    def __init__(self, weights: str | Path, device: str | torch.device = "cpu") -> None:
        if importlib.util.find_spec("torch_fidelity") is None:
            raise UserError(
                "FID, precision, recall and IS need the package torch-fidelity; install it with: "
                "pip install torch-fidelity"
            )
        if not Path(weights).is_file():
            raise UserError(
                f"There is no file {weights}; give torch-fidelity's {WEIGHTS}, which its releases "
                "offer for download."
            )
        checkpoint = read_checkpoint(weights)
        self.network: Any = _network(checkpoint.tensors, weights).to(device)
        self.device = torch.device(device)
        self.protocol = PROTOCOL
        self.hash = checkpoint.sha256[:16]
        """First 16 hexadecimal digits of the SHA-256 of the file."""

    @torch.inference_mode()
    def __call__(self, pictures: Pictures) -> Features:
        """Return what `Seen` holds, side by side: (N, 5079) of pictures (N, H, W, 3) uint8."""
        kept: list[Tensor] = []
        hook = self.network.Mixed_6d.register_forward_hook(
            lambda _module, _input, maps: kept.append(maps[:, :SPATIAL_CHANNELS])
        )
        try:
            pixels = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)
            pooled, logits = self.network(pixels.to(self.device))
        finally:
            hook.remove()
        spatial = kept[0].permute(0, 2, 3, 1).flatten(1)  # channels last, as ADM's statistics
        features: Features = torch.cat([pooled, spatial, logits], 1).float().cpu().numpy()
        return features


def standard_figures(made: Seen, reference: Reference) -> dict[str, Any]:
    """FID, sFID, precision, recall and IS of pictures; None where something is missing for it."""
    count, figures = len(made.pooled), dict[str, Any]()
    figures["pictures"] = count
    figures["fid"] = frechet_distance(Gaussian.of(made.pooled), reference.pooled)
    spatial = reference.spatial
    figures["sfid"] = (
        None if spatial is None else frechet_distance(Gaussian.of(made.spatial), spatial)
    )
    figures["precision"] = figures["recall"] = None
    known = reference.features
    if known is not None and min(count, len(known)) > NEIGHBOURS:
        figures["precision"], figures["recall"] = precision_recall(known, made.pooled)
    figures["is"] = figures["is_deviation"] = None
    if count >= SPLITS:
        figures["is"], figures["is_deviation"] = inception_score(made.logits)
    return figures


def described(inception: Inception) -> dict[str, Any]:
    """The network's part of a protocol."""
    return {
        "hash": inception.hash,
        "resizing": PROTOCOL,
        "neighbours": NEIGHBOURS,
        "is_splits": SPLITS,
    }


def _network(tensors: dict[str, Tensor], weights: str | Path) -> Any:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    plain = io.BytesIO()
    torch.save(tensors, plain)
    plain.seek(0)
    try:
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], plain
        )
    except RuntimeError as error:  # of load_state_dict
        first = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{weights} holds other weights than {WEIGHTS} ({first}); download that file."
        ) from None
