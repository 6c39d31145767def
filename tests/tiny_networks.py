"""Tiny class-conditional transformers with random weights, the same ones every time."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from mmgen.models.backbone import BackboneConfig
from mmgen.models.conditional import ConditionalConfig, ConditionalModel, Tap
from mmgen.models.conditions import ClassConfig
from mmgen.models.factorized import FactorizedConfig, FactorizedModel
from mmgen.models.plan import Plan
from mmgen.models.units import Unit, plan_for

BACKBONE = BackboneConfig(width=32, depth=2, heads=2, qk_norm=False)
SIZES = {
    "condition": ClassConfig(classes=5),
    "grid": (1, 3, 3),
    "units": (Unit("token", "raster", "shift"),),
    "taps": (Tap("x", 2),),
    "positions": "yx",
    "silent_condition": True,
}
LABELS = torch.tensor([1, 4])


Model = TypeVar("Model", bound=ConditionalModel)


def everywhere(model: Model) -> Model:
    """Random weights everywhere, so that what begins at zero speaks too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def factorized(bits: tuple[int, ...] = (2, 4), **changes: object) -> FactorizedModel:
    torch.manual_seed(0)
    sizes = {"backbone": BACKBONE, "codebook_size": 2 ** sum(bits), "bits": bits, **SIZES}
    return everywhere(FactorizedModel(FactorizedConfig(**(sizes | changes))))  # type: ignore[arg-type]


def adaptive(**changes: object) -> ConditionalModel:
    torch.manual_seed(0)
    told = BackboneConfig(
        width=32, depth=2, heads=2, qk_norm=False, adaln=True, adaln_norm_weights=True
    )
    sizes = {"backbone": told, "codebook_size": 20, **SIZES}
    return everywhere(ConditionalModel(ConditionalConfig(**(sizes | changes))))  # type: ignore[arg-type]


def raster(model: ConditionalModel) -> Plan:
    return plan_for(model.config.units[0], model.config.grid)


def codes_of(model: ConditionalModel) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.config.codebook_size, (2, 9), generator=generator)
