"""The image normalizer of unCLIP Stable Diffusion 2.1, which SEED v2 draws its pictures with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmgen.published.keymap import load
from mmgen.published.options import official, refuse_contradictions
from mmgen.published.systems import Converted, Part, Shapes
from mmgen.tokenizers_vis.unclip import Schedule, UnclipConditioner, UnclipConfig


@dataclass(frozen=True)
class UnclipOptions:
    """Official arguments of the normalizer and of the noising schedule."""

    embedding_dim: int
    num_train_timesteps: int = 1000
    beta_schedule: Schedule = "squaredcos_cap_v2"


PRESETS: dict[str, dict[str, Any]] = {"stable-diffusion-2-1-unclip": {"embedding_dim": 1024}}


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """Make a conditioner of the normalizer's file; see `Part.convert`."""
    told = {"embedding_dim": tensors["mean"].shape[-1]}
    said = official(UnclipOptions, {**told, **options}, where)
    refuse_contradictions(options, told, where)
    config = UnclipConfig(said.embedding_dim, said.num_train_timesteps, said.beta_schedule)
    network = UnclipConditioner(config).eval()
    load(network, tensors, where)
    return Converted("image_normalizer", network)


def recognise(shapes: Shapes) -> bool:
    """A mean and a deviation of one width, and nothing else."""
    return set(shapes) == {"mean", "std"} and shapes["mean"] == shapes["std"]


PARTS = (
    Part(
        system="seed",
        name="image normalizer of unCLIP",
        licence="CreativeML Open RAIL++-M",
        source="stabilityai/stable-diffusion-2-1-unclip",
        recognise=recognise,
        convert=convert,
        component="image_normalizer",
    ),
)
