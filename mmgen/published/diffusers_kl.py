"""KL tokenizers in the layout of diffusers' `AutoencoderKL`; written: `diffusers_kl_export.py`.

It is VQGAN's network under other names, with 1x1 convolutions of attention as matrices. Neither
way needs diffusers itself. Spec: xAR section 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.published.building import build
from mmgen.published.keymap import rename
from mmgen.published.kl16 import LATENT_SCALE
from mmgen.published.options import (
    official,
    refuse_contradictions,
    refuse_groups,
    refuse_other_ranks,
)
from mmgen.published.systems import Converted, Part, Shapes
from mmgen.published.taming import channels_of, sizes
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import KLConfig

SCALE = 0.18215  # of diffusers, where a configuration is silent
# Theirs and ours, between dots, in the order of replacement; both ways.
WORDS = (
    ("mid_block.resnets.0", "middle.block_in"),
    ("mid_block.resnets.1", "middle.block_out"),
    ("mid_block.attentions.0", "middle.attention"),
    ("resnets", "blocks"),
    ("conv_shortcut", "shortcut"),
    ("conv_norm_out", "norm_out"),
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
    ("quant_conv", "to_code"),
    ("post_quant_conv", "from_code"),
)
SIDES = {
    "encoder": (("down_blocks", "levels"), ("downsamplers.0", "resample")),
    "decoder": (("up_blocks", "levels"), ("upsamplers.0", "resample")),
}
MATRICES = (".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight")
# Of diffusers' configuration file; the types of blocks are read off the tensors.
IGNORED = (
    *("_class_name", "_diffusers_version", "_name_or_path", "_use_default_values"),
    *("down_block_types", "up_block_types", "in_channels", "out_channels", "sample_size"),
    *("force_upcast", "use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"),
)


@dataclass(frozen=True)
class DiffusersOptions:
    """Options of `AutoencoderKL`; sizes that are not said are read off the tensors."""

    block_out_channels: tuple[int, ...] | None = None
    layers_per_block: int | None = None
    latent_channels: int | None = None
    norm_num_groups: int = 32
    scaling_factor: float | None = None
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    act_fn: Literal["silu"] = "silu"


def to_diffusers(name: str) -> str:
    """The name of one of our tensors there."""
    return _replaced(name, [(own, theirs) for theirs, own in _words(name)])


def from_diffusers(name: str) -> str:
    """Our name of one of their tensors."""
    return _replaced(name, _words(name))


def convert_tokenizer(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """An `AutoencoderKL` as a `ConvTokenizer`; see `Part.convert`."""
    given, scale = _read(options, where)
    refuse_other_ranks(tensors, {r".*\.to_(q|k|v|out\.0)\.weight": 2}, where)
    renamed = rename(tensors, [(r".+", lambda match: from_diffusers(match[0]))], where)
    for key in (key for key in tensors if key.endswith(MATRICES)):
        renamed[from_diffusers(key)] = tensors[key][:, :, None, None]
    found = sizes(renamed, where)
    told = {
        "block_out_channels": found["widths"],
        "layers_per_block": found["res_blocks"],
        "latent_channels": found["z_channels"],
    }
    refuse_contradictions(given, told, where)
    refuse_groups(channels_of(found), "norm_num_groups", given.norm_num_groups, where)
    quantizer = KLConfig(channels=found["z_channels"], scale=scale)
    config = ConvTokenizerConfig(quantizer=quantizer, norm_groups=given.norm_num_groups, **found)
    network = build(lambda: ConvTokenizer(config), renamed, where)
    return Converted("vision", network, image_size=256, notes=(f"latent scale {scale}",))


def _read(options: Mapping[str, Any], where: str) -> tuple[DiffusersOptions, float]:
    """The options and their scale, which a whole configuration file may leave to diffusers."""
    given = official(DiffusersOptions, options, where, IGNORED)
    for name in ("shift_factor", "latents_mean", "latents_std"):
        if getattr(given, name):
            raise ConfigError(f"{where} moves its latents ({name}), which is not supported.")
    if given.scaling_factor is not None:
        return given, given.scaling_factor
    if "_class_name" in options:
        return given, SCALE
    raise ConfigError(
        f"No tensor of {where} tells its scaling_factor; give its config.json with --config, or "
        f"say scaling_factor=... ({LATENT_SCALE} for KL-16)."
    )


NEEDED = frozenset(
    {
        *("encoder.down_blocks.0.resnets.0.conv1.weight", "post_quant_conv.weight"),
        *("encoder.mid_block.resnets.0.conv1.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"),
    }
)


def recognise_tokenizer(shapes: Shapes) -> bool:
    """Whether the keys are those of `AutoencoderKL` with convolutions around the posterior."""
    moments, latents = shapes.get("encoder.conv_out.weight"), shapes.get("decoder.conv_in.weight")
    if not (set(shapes) >= NEEDED and moments and latents):
        return False
    return len(latents) == 4 and moments[0] == 2 * latents[1]


def _words(name: str) -> list[tuple[str, str]]:
    return [*WORDS, *SIDES.get(name.partition(".")[0], ())]


def _replaced(name: str, pairs: list[tuple[str, str]]) -> str:
    dotted = f".{name}."
    for old, new in pairs:
        dotted = dotted.replace(f".{old}.", f".{new}.")
    return dotted[1:-1]


PARTS = (
    Part(
        system="kl16",
        name="KL tokenizer in diffusers' layout",
        licence="that of its model card",
        source="huggingface/diffusers",
        recognise=recognise_tokenizer,
        convert=convert_tokenizer,
        component="vision",
        needed=NEEDED,
    ),
)
