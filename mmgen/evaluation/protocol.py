"""What figures were made by: rules that must agree, and circumstances that may differ."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import torch

import mmgen
from mmgen.bench.machine import processor_name
from mmgen.data.emoji import SPLITS
from mmgen.evaluation.features import PROTOCOL, SIDE, Extractor
from mmgen.evaluation.real import RealSet

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline


def features_rules(extractor: Extractor) -> dict[str, Any]:
    """The yardstick's network."""
    return {"hash": extractor.hash, "side": SIDE, "resizing": PROTOCOL}


def data_rules(real: RealSet) -> dict[str, Any]:
    """The real pictures."""
    return {
        "hash": real.hash,
        "image_size": int(real.pictures.shape[1]),
        "pictures": len(real.items),
        "splits": {split: len(real.places(split)) for split in SPLITS},
        "concepts": len({item.concept.key for item in real.items}),
    }


def of_pipeline(pipeline: Pipeline) -> dict[str, Any]:
    """Circumstances of a pipeline's figures: versions, machine and weights."""
    return {**of_program(pipeline.device), "weights": pipeline.fingerprint}


def of_program(device: str | torch.device) -> dict[str, Any]:
    """Versions and the machine."""
    return {
        "mmgen": mmgen.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": processor_name(),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
