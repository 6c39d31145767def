"""Emu3's vision tokenizer (arXiv 2409.18869): pictures and clips, 4 frames and 8x8 pixels a code.

VQGAN's network on every frame, causal convolutions over time, and a decoder whose norms are
conditioned on the code. Official code: baaivision/Emu3, Apache-2.0. Spec: IBQ D3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmgen.published.building import build
from mmgen.published.keymap import Rules, count, rename
from mmgen.published.options import official, refuse_contradictions
from mmgen.published.systems import Converted, Part, Shapes
from mmgen.published.taming import (
    WORDS,
    official_sizes,
    shape_of,
    sizes,
    taming_rules,
)
from mmgen.tokenizers_vis.conv import ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import VQConfig
from mmgen.tokenizers_vis.video_conv import VideoConvTokenizer, VideoConvTokenizerConfig

PRESETS: dict[str, dict[str, Any]] = {
    "Emu3-VisionTokenizer": {
        "codebook_size": 32768,
        "embed_dim": 4,
        "z_channels": 4,
        "temporal_downsample_factor": 4,
        "ch": 256,
        "ch_mult": (1, 2, 2, 4),
        "num_res_blocks": 2,
        "attn_resolutions": (3,),
    }
}
EMU3_WORDS = {**WORDS, "norm_layer": "norm", "conv_y": "scale", "conv_b": "shift"}
# Of the class and of Hugging Face's configuration file.
IGNORED = (
    *("class", "double_z", "in_channels", "out_channels", "dropout", "model_type", "auto_map"),
    *("architectures", "torch_dtype", "transformers_version", "_name_or_path"),
)


@dataclass(frozen=True)
class Emu3Options:
    """Official options; sizes that are not said are read off the tensors."""

    codebook_size: int | None = None
    embed_dim: int | None = None
    z_channels: int | None = None
    temporal_downsample_factor: int | None = None
    ch: int | None = None
    ch_mult: tuple[float, ...] | None = None
    num_res_blocks: int | None = None
    attn_resolutions: tuple[int, ...] | None = None  # numbers of levels, in spite of the name


def renamed_tensors(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors by the names of `VideoConvTokenizer`.

    Raises:
        CheckpointError: a key is unknown.
    """
    time: Rules = [
        (r"encoder\.time_conv\.(\d+)\.conv\.conv\.(.+)", r"encoder.halvings.\1.conv.\2"),
        (r"decoder\.time_conv\.(\d+)\.conv\.conv\.(.+)", r"decoder.doublings.\1.conv.\2"),
        (r"(encoder|decoder)\.time_res_stack\.(.+)", r"\1.blocks.\2"),
    ]
    renamed = rename(tensors, [*time, *taming_rules(tensors, EMU3_WORDS)], where)
    side = r"(encoder|decoder)"
    inside: Rules = [
        (side + r"\.((?:levels|middle|conv_in|norm_out|conv_out)\..+)", r"\1.frames.\2"),
        (r".+", r"\g<0>"),
    ]
    return rename(renamed, inside, where)


def tokenizer_config(
    tensors: Mapping[str, Tensor], given: Emu3Options, where: str
) -> VideoConvTokenizerConfig:
    """Configuration of the tokenizer from tensors by our names.

    Raises:
        UserError: a tensor is missing, or an option contradicts the tensors.
    """
    found = sizes({key.replace(".frames.", "."): t for key, t in tensors.items()}, where)
    halvings = count(tensors, r"encoder\.halvings\.(\d+)\..+")
    codes, channels = shape_of(tensors, "quantizer.codebook", where)
    said = official_sizes(found) | {
        "codebook_size": codes,
        "embed_dim": channels,
        "temporal_downsample_factor": 2**halvings,
        "attn_resolutions": found["attention_levels"],
    }
    refuse_contradictions(given, said, where)
    quantizer = VQConfig(codebook_size=codes, channels=channels)
    return VideoConvTokenizerConfig(
        frames=ConvTokenizerConfig(quantizer=quantizer, decoder_norm="spatial", **found),
        temporal_stride=2**halvings,
        temporal_res_blocks=count(tensors, r"encoder\.blocks\.(\d+)\..+"),
    )


def convert_tokenizer(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """Emu3's tokenizer as a `VideoConvTokenizer`; see `Part.convert`."""
    given = official(Emu3Options, options, where, IGNORED)
    renamed = renamed_tensors(tensors, where)
    config = tokenizer_config(renamed, given, where)
    network = build(lambda: VideoConvTokenizer(config), renamed, where)
    return Converted("vision", network, image_size=512)


NEEDED = frozenset(
    {
        *("quant_conv.conv.weight", "post_quant_conv.conv.weight"),
        *("decoder.norm_out.conv_y.weight", "quantize.embedding.weight"),
    }
)


def recognise_tokenizer(shapes: Shapes) -> bool:
    """Whether the keys are those of Emu3's tokenizer."""
    return set(shapes) >= NEEDED


PARTS = (
    Part(
        system="emu3",
        name="vision tokenizer",
        licence="Apache-2.0",
        source="baaivision/Emu3",
        recognise=recognise_tokenizer,
        convert=convert_tokenizer,
        component="vision",
        needed=NEEDED,
    ),
)
