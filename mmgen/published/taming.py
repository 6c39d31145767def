"""What the descendants of VQGAN share: key names, sizes read off the tensors, discriminators.

The layout of "taming transformers" (arXiv 2012.09841): `encoder.down.I.block.J`, `decoder.up.I`
with I = 0 the finest level, `mid.block_1`, `nin_shortcut`, `quant_conv`, `post_quant_conv`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmgen.errors import CheckpointError, ConfigError
from mmgen.published.keymap import Rules, count, load, rename, shape
from mmgen.published.options import refuse_contradictions
from mmgen.published.renamed import Target
from mmgen.tokenizers_vis.discriminator import DiscriminatorConfig, PatchDiscriminator

WORDS = {
    "down": "levels",
    "up": "levels",
    "block": "blocks",
    "attn": "attentions",
    "downsample": "resample",
    "upsample": "resample",
    "mid": "middle",
    "block_1": "block_in",
    "attn_1": "attention",
    "block_2": "block_out",
    "nin_shortcut": "shortcut",
    "quant_conv": "to_code",
    "post_quant_conv": "from_code",
}
CONVOLUTION = (4, 5)  # axes of a weight, in two and in three dimensions
TABLE = 2


def translated(key: str, words: Mapping[str, str] = WORDS) -> str:
    """Replace the parts of a dotted name that `words` knows."""
    return ".".join(words.get(part, part) for part in key.split("."))


def taming_rules(tensors: Mapping[str, Tensor], words: Mapping[str, str] = WORDS) -> Rules:
    """Rules from the layout of VQGAN to `ConvTokenizer`, for the levels that the keys have.

    Args:
        tensors: by official key.
        words: official parts of a name and ours.
    """
    levels = count(tensors, r"decoder\.up\.(\d+)\..+")

    def coarse_to_fine(match: re.Match[str]) -> str:
        return f"decoder.levels.{levels - 1 - int(match[1])}.{translated(match[2], words)}"

    rest: Target = lambda match: translated(match[0], words)  # noqa: E731
    return [
        (r"loss\..+", None),  # discriminator and feature network of training
        (r"quantize\.embedding\.weight", "quantizer.codebook"),
        (r"decoder\.up\.(\d+)\.(.+)", coarse_to_fine),
        (r"(?:encoder|decoder|quant_conv|post_quant_conv)\..+", rest),
    ]


def sizes(tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Sizes of a `ConvTokenizerConfig` by the tensors' names and shapes; no groups, no quantizer.

    Args:
        tensors: by our names.
        where: what to call the file in messages.

    Raises:
        CheckpointError: a tensor that tells a size is missing.
    """
    levels = range(count(tensors, r"encoder\.levels\.(\d+)\..+"))
    back = [len(levels) - 1 - i for i in levels]  # the decoder's levels run from coarse to fine
    encoder, decoder = (
        tuple(shape_of(tensors, f"{side}.levels.{i}.blocks.0.conv1.weight", where)[0] for i in own)
        for side, own in (("encoder", levels), ("decoder", back))
    )
    stem = shape_of(tensors, "encoder.conv_in.weight", where)[0]
    attended = [
        tuple(i for i in levels if _any(tensors, f"{side}.levels.{own[i]}.attentions."))
        for side, own in (("encoder", levels), ("decoder", back))
    ]
    return {
        "widths": encoder,
        "stem_width": None if stem in encoder[:1] else stem,
        "decoder_widths": None if decoder == encoder else decoder,
        "res_blocks": count(tensors, r"encoder\.levels\.0\.blocks\.(\d+)\..+"),
        "decoder_res_blocks": count(tensors, r"decoder\.levels\.0\.blocks\.(\d+)\..+"),
        "attention_levels": attended[0],
        "decoder_attention_levels": None if attended[0] == attended[1] else attended[1],
        "middle_attention": _any(tensors, "encoder.middle.attention."),
        "z_channels": shape_of(tensors, "decoder.conv_in.weight", where)[1],
    }


def shape_of(tensors: Mapping[str, Tensor], key: str, where: str) -> tuple[int, ...]:
    """Shape of a convolution's weight, or of a table such as the codebook, that tells a size.

    Raises:
        CheckpointError: there is none of that name, or it is neither.
    """
    return shape(tensors, key, CONVOLUTION if key.endswith(".weight") else TABLE, where)


def channels_of(found: Mapping[str, Any]) -> tuple[int, ...]:
    """Channels of all layers that have a norm, of what `sizes` found."""
    stem = found["stem_width"]
    return (*([stem] if stem else []), *found["widths"], *(found["decoder_widths"] or ()))


def official_sizes(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same sizes under VQGAN's names, to compare with what the user says."""
    stem = found["stem_width"] or found["widths"][0]
    return {
        "ch": stem,
        "ch_mult": tuple(width / stem for width in found["widths"]),
        "num_res_blocks": found["res_blocks"],
        "z_channels": found["z_channels"],
    }


def trained_size(options: DDConfig) -> int:
    """Pixels a side that it was trained on, 256 if nothing is said; `ConfigError` below 1."""
    size = 256 if options.resolution is None else options.resolution
    if size < 1:
        raise ConfigError(f"resolution must be 1 or more, not {size}.")
    return size


def nominal_levels(resolution: int, attended: Collection[int], levels: int) -> tuple[int, ...]:
    """Levels with attention, by sides of the feature map at the nominal resolution."""
    return tuple(i for i in range(levels) if resolution // 2**i in attended)


@dataclass(frozen=True)
class DDConfig:
    """Official options of encoder and decoder; what is not said is read off the tensors."""

    ch: int | None = None
    ch_mult: tuple[float, ...] | None = None
    num_res_blocks: int | None = None
    z_channels: int | None = None
    attn_resolutions: tuple[int, ...] | None = None
    resolution: int | None = None
    in_channels: int | None = None
    out_ch: int | None = None
    double_z: bool | None = None
    dropout: float = 0.0  # of training


def refuse_other_networks(
    options: DDConfig, tensors: Mapping[str, Tensor], found: Mapping[str, Any], where: str
) -> None:
    """Refuse `ddconfig` options that contradict the tensors.

    Args:
        options: what the user said.
        tensors: by our names.
        found: of `sizes`.
        where: what to call the file in messages.

    Raises:
        UserError: names the first one.
    """
    said = official_sizes(found) | {
        "in_channels": shape_of(tensors, "encoder.conv_in.weight", where)[1],
        "out_ch": shape_of(tensors, "decoder.conv_out.weight", where)[0],
        "double_z": shape_of(tensors, "encoder.conv_out.weight", where)[0] != found["z_channels"],
    }
    refuse_contradictions(options, said, where)
    if options.resolution is not None and options.attn_resolutions is not None:
        levels = len(found["widths"])
        nominal = nominal_levels(options.resolution, options.attn_resolutions, levels)
        if nominal != found["attention_levels"]:
            raise CheckpointError(
                f"{where} has attention at the levels {found['attention_levels']}, and the options "
                f"put it at {nominal}; leave resolution and attn_resolutions out."
            )
    elif options.attn_resolutions is not None:
        raise ConfigError(f"attn_resolutions of {where} are sides at a resolution; say it too.")


def discriminator(tensors: Mapping[str, Tensor], where: str) -> PatchDiscriminator:
    """The PatchGAN discriminator (`loss.discriminator.main.*`) that a training file holds.

    Raises:
        CheckpointError: there is none, or it has another layout.
    """
    prefix = "loss.discriminator."
    own = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    width, channels = shape_of(own, "main.0.weight", where)[:2]
    layers = count(own, r"main\.(\d+)\.running_mean")
    network = PatchDiscriminator(
        DiscriminatorConfig(width=width, layers=layers, in_channels=channels)
    )
    load(network, rename(own, [(r".+", r"\g<0>")], where), where)
    return network


def _any(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in tensors)
