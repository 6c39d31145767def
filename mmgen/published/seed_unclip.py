"""The image normalizer of unCLIP Stable Diffusion 2.1, which SEED v2 draws its pictures with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from mmgen.published.keymap import load, shape
from mmgen.published.options import official, refuse_contradictions
from mmgen.published.systems import Converted, Part, Shapes
from mmgen.tokenizers_vis.unclip import Schedule, UnclipConditioner, UnclipConfig

# Of diffusers' scheduler, which here only adds noise; these steer how it takes noise away.
IGNORED = frozenset(
    {
        *("_class_name", "_diffusers_version", "prediction_type", "variance_type", "clip_sample"),
        *("clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"),
        *("timestep_spacing", "steps_offset", "set_alpha_to_one", "skip_prk_steps"),
    }
)


@dataclass(frozen=True)
class UnclipOptions:
    """Official arguments of the normalizer and of the noising schedule."""

    embedding_dim: int
    num_train_timesteps: int = 1000
    beta_schedule: Schedule = "squaredcos_cap_v2"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    trained_betas: None = None  # other schedules are not built
    rescale_betas_zero_snr: Literal[False] = False


PRESETS: dict[str, dict[str, Any]] = {"stable-diffusion-2-1-unclip": {"embedding_dim": 1024}}


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """Make a conditioner of the normalizer's file; see `Part.convert`."""
    told = {"embedding_dim": shape(tensors, "mean", 2, where)[1]}
    refuse_contradictions(options, told, where)
    said = official(UnclipOptions, {**options, **told}, where, IGNORED)
    config = UnclipConfig(
        channels=said.embedding_dim,
        levels=said.num_train_timesteps,
        schedule=said.beta_schedule,
        beta_start=said.beta_start,
        beta_end=said.beta_end,
    )
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
