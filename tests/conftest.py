"""What every test starts from: one thread, the same random numbers, no network."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmgen.models.backbone import BackboneConfig
from mmgen.models.unified import UnifiedConfig, UnifiedModel, Unit

sys.path.insert(0, str(Path(__file__).parent))  # helpers of several folders of tests

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("MMGEN_SHARED", ROOT.parent / "shared"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., UnifiedModel]:
    """Makes a small unified model with random weights, the same ones every time."""
    return _tiny_model


def _tiny_model(
    grid: tuple[int, int, int] = (1, 4, 4),
    units: tuple[Unit, ...] | None = None,
    **backbone: object,
) -> UnifiedModel:
    sizes = {"width": 64, "depth": 2, "heads": 4, **backbone}
    four = (
        Unit("token", "raster", "shift"),
        Unit("block", "row:1", "shift"),
        Unit("neighbor", "neighbor", "neighbors"),
        Unit("any", "random", "self"),
    )
    config = UnifiedConfig(
        backbone=BackboneConfig(**sizes),  # type: ignore[arg-type]
        text_vocab=50,
        max_text=12,
        codebook_size=40,
        code_channels=5,
        grid=grid,
        units=units or four,
        logit_width=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = UnifiedModel(config)
        model.set_code_vectors(torch.randn(40, 5))
    return model.eval()
