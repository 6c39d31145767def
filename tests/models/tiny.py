"""A small unified model with random weights, for tests of models, engine and pipeline."""

from __future__ import annotations

import torch

from mmgen.models.backbone import BackboneConfig
from mmgen.models.unified import UnifiedConfig, UnifiedModel, Unit

UNITS = (
    Unit("token", "raster", "shift"),
    Unit("block", "row:1", "shift"),
    Unit("neighbor", "neighbor", "neighbors"),
    Unit("any", "random", "self"),
)


def tiny_model(
    grid: tuple[int, int, int] = (1, 4, 4), units: tuple[Unit, ...] = UNITS, **backbone: object
) -> UnifiedModel:
    torch.manual_seed(0)
    sizes = {"width": 64, "depth": 2, "heads": 4, **backbone}
    config = UnifiedConfig(
        backbone=BackboneConfig(**sizes),  # type: ignore[arg-type]
        text_vocab=50,
        max_text=12,
        codebook_size=40,
        code_channels=5,
        grid=grid,
        units=units,
        logit_width=32,
    )
    model = UnifiedModel(config)
    model.set_code_vectors(torch.randn(40, 5))
    return model.eval()
