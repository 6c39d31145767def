"""KL-16, the autoencoder of MAR and xAR (arXiv 2406.11838, 2502.20388).

VQGAN's network around a normal posterior of 16 channels; attention in the encoder's coarsest level
and in both middles only. The same network in diffusers' layout: `diffusers_kl.py`. Official code:
LTH14/mar, MIT. Spec: xAR section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmgen.errors import CheckpointError
from mmgen.published.building import build
from mmgen.published.keymap import rename
from mmgen.published.options import assumed, official, refuse_contradictions, refuse_groups
from mmgen.published.systems import Converted, Part, Shapes
from mmgen.published.taming import (
    channels_of,
    nominal_levels,
    official_sizes,
    shape_of,
    sizes,
    taming_rules,
)
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import KLConfig

LATENT_SCALE = 0.2325
PRESETS: dict[str, dict[str, Any]] = {
    "KL-16": {"embed_dim": 16, "ch_mult": (1, 1, 2, 2, 4)},
}


@dataclass(frozen=True)
class KLOptions:
    """Official options; sizes that are not said are read off the tensors."""

    embed_dim: int | None = None
    ch_mult: tuple[float, ...] | None = None
    ch: int | None = None
    num_res_blocks: int | None = None
    z_channels: int | None = None
    resolution: int = 256
    encoder_attn_resolutions: tuple[int, ...] | None = None
    decoder_attn_resolutions: tuple[int, ...] | None = None
    num_groups: int = 32
    latent_scale: float = LATENT_SCALE


def tokenizer_config(
    tensors: Mapping[str, Tensor], given: KLOptions, where: str
) -> ConvTokenizerConfig:
    """Configuration of the tokenizer from tensors by our names.

    Raises:
        UserError: a tensor is missing, or an option contradicts the tensors.
    """
    found = sizes(tensors, where)
    channels = shape_of(tensors, "from_code.weight", where)[1]
    refuse_contradictions(given, official_sizes(found) | {"embed_dim": channels}, where)
    encoder = found["attention_levels"]
    decoder = found["decoder_attention_levels"]
    there = {"encoder": encoder, "decoder": encoder if decoder is None else decoder}
    for side, levels in there.items():
        name = f"{side}_attn_resolutions"
        said = getattr(given, name)
        if said is not None and levels != nominal_levels(
            given.resolution, said, len(found["widths"])
        ):
            raise CheckpointError(
                f"{where} has attention at the {side}'s levels {levels}, and {name} is {said}; "
                f"leave {name} out."
            )
    refuse_groups(channels_of(found), "num_groups", given.num_groups, where)
    quantizer = KLConfig(channels=channels, scale=given.latent_scale)
    return ConvTokenizerConfig(quantizer=quantizer, norm_groups=given.num_groups, **found)


def convert_tokenizer(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """KL-16 as a `ConvTokenizer`; see `Part.convert`."""
    given = official(KLOptions, options, where, ignored=("double_z", "dropout", "ckpt_path"))
    renamed = rename(tensors, taming_rules(tensors), where)
    config = tokenizer_config(renamed, given, where)
    network = build(lambda: ConvTokenizer(config), renamed, where)
    untold = assumed(given, options, ("num_groups", "latent_scale"))
    return Converted("vision", network, image_size=256, assumed=untold)


NEEDED = frozenset(
    {
        *("encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.conv1.weight"),
        *("quant_conv.weight", "post_quant_conv.weight"),
    }
)


def recognise_tokenizer(shapes: Shapes) -> bool:
    """Whether the keys are those of VQGAN's network around a posterior: no codebook."""
    into, out = shapes.get("quant_conv.weight", ()), shapes.get("post_quant_conv.weight", ())
    kl = len(into) == len(out) == 4 and into[0] == 2 * out[1]
    return kl and set(shapes) >= NEEDED and not any(key.startswith("quantize.") for key in shapes)


PARTS = (
    Part(
        system="kl16",
        name="KL tokenizer",
        licence="MIT",
        source="LTH14/mar",
        recognise=recognise_tokenizer,
        convert=convert_tokenizer,
        component="vision",
        needed=NEEDED,
    ),
)
