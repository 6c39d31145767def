"""LlamaGen's VQ-8 and VQ-16 (arXiv 2406.06525), which NAR (arXiv 2503.10696) uses as well.

The codebook is stored as it was trained and normalised at every use. Attention stands at the
coarsest level. Official code: FoundationVision/LlamaGen, MIT. Spec: NAR and LlamaGen, section 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmgen.published.building import build
from mmgen.published.keymap import Rules, rename
from mmgen.published.options import assumed, official, refuse_contradictions
from mmgen.published.systems import Converted, Part, Shapes
from mmgen.published.taming import (
    WORDS,
    official_sizes,
    shape_of,
    sizes,
    translated,
)
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import VQConfig

PRESETS: dict[str, dict[str, Any]] = {
    "VQ-16": {"encoder_ch_mult": (1, 1, 2, 2, 4), "decoder_ch_mult": (1, 1, 2, 2, 4)},
    "VQ-8": {"encoder_ch_mult": (1, 2, 2, 4), "decoder_ch_mult": (1, 2, 2, 4)},
}
LLAMAGEN_WORDS = {**WORDS, "conv_blocks": "levels", "res": "blocks"}
RULES: Rules = (
    (r"quantize\.codebook_used", None),  # which codes occurred lately: a record of training
    (r"quantize\.embedding\.weight", "quantizer.codebook"),
    (
        r"((?:encoder|decoder))\.mid\.([012])\.(.+)",
        lambda m: translated(f"{m[1]}.mid.{('block_1', 'attn_1', 'block_2')[int(m[2])]}.{m[3]}"),
    ),
    (
        r"(?:encoder|decoder|quant_conv|post_quant_conv)\..+",
        lambda m: translated(m[0], LLAMAGEN_WORDS),
    ),
)


@dataclass(frozen=True)
class VQOptions:
    """Official options of the tokenizer; sizes that are not said are read off the tensors."""

    codebook_size: int | None = None
    codebook_embed_dim: int | None = None
    encoder_ch_mult: tuple[float, ...] | None = None
    decoder_ch_mult: tuple[float, ...] | None = None
    ch: int | None = None
    num_res_blocks: int | None = None
    z_channels: int | None = None
    codebook_l2_norm: bool = True
    commit_loss_beta: float = 0.25
    entropy_loss_ratio: float = 0.0


def tokenizer_config(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> ConvTokenizerConfig:
    """Configuration of the tokenizer.

    Args:
        tensors: by our names.
        options: official names.
        where: what to call the file in messages.

    Raises:
        UserError: a tensor is missing, or an option is unknown or contradicts the tensors.
    """
    given = official(VQOptions, options, where, ignored=("codebook_show_usage", "dropout_p"))
    found = sizes(tensors, where)
    own = official_sizes(found)
    stem, decoder = own["ch"], found["decoder_widths"] or found["widths"]
    codes, channels = shape_of(tensors, "quantizer.codebook", where)
    said = {key: value for key, value in own.items() if key != "ch_mult"} | {
        "codebook_size": codes,
        "codebook_embed_dim": channels,
        "encoder_ch_mult": own["ch_mult"],
        "decoder_ch_mult": tuple(width / stem for width in decoder),
    }
    refuse_contradictions(given, said, where)
    quantizer = VQConfig(
        codebook_size=codes,
        channels=channels,
        normalize=given.codebook_l2_norm,
        commitment_weight=given.commit_loss_beta,
        entropy_weight=given.entropy_loss_ratio,
    )
    return ConvTokenizerConfig(quantizer=quantizer, **found)


def convert_tokenizer(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """VQ-8 or VQ-16 as a `ConvTokenizer`; see `Part.convert`."""
    renamed = rename(tensors, RULES, where)
    config = tokenizer_config(renamed, options, where)
    network = build(lambda: ConvTokenizer(config), renamed, where)
    untold = assumed(VQOptions(), options, ("codebook_l2_norm",))
    return Converted("vision", network, image_size=256, assumed=untold)


NEEDED = frozenset(
    {
        *(f"{side}.conv_blocks.0.res.0.conv1.weight" for side in ("encoder", "decoder")),
        *("encoder.mid.0.conv1.weight", "quantize.embedding.weight"),
    }
)


def recognise_tokenizer(shapes: Shapes) -> bool:
    """Whether the keys are those of LlamaGen's tokenizer."""
    return {"encoder.conv_blocks.0.res.0.conv1.weight", "quantize.embedding.weight"} <= set(shapes)


PARTS = (
    Part(
        system="llamagen",
        name="VQ tokenizer",
        licence="MIT",
        source="FoundationVision/LlamaGen",
        recognise=recognise_tokenizer,
        convert=convert_tokenizer,
        component="vision",
        needed=NEEDED,
    ),
)
