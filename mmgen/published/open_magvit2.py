"""Open-MAGVIT2's picture tokenizers (arXiv 2409.04410): lookup-free quantization, a network of its
own.

No attention, no convolutions around the quantizer; the code conditions every level of the decoder.
A file is a Lightning checkpoint with averages of all weights. Official code: TencentARC/SEED-Voken,
Apache-2.0. Spec: IBQ D1 and C3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmgen.published.building import build
from mmgen.published.ibq import IGNORED, chosen_weights
from mmgen.published.keymap import Rules, count, rename
from mmgen.published.options import official, refuse_contradictions
from mmgen.published.systems import Converted, Part, Shapes
from mmgen.published.taming import (
    WORDS,
    DDConfig,
    refuse_other_networks,
    sizes,
    taming_rules,
    trained_size,
)
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import LFQConfig

PRESETS: dict[str, dict[str, Any]] = {
    name: {
        "ddconfig": {
            "ch": 128,
            "ch_mult": ch_mult,
            "num_res_blocks": 4,
            "z_channels": bits,
            "resolution": int(name.split("-")[0]),
        },
        "n_embed": 2**bits,
        "embed_dim": bits,
    }
    for name, ch_mult, bits in (
        ("256-262144", (1, 1, 2, 2, 4), 18),
        ("128-262144", (1, 2, 2, 4), 18),
        ("256-16384", (1, 1, 2, 2, 4), 14),
    )
}
MAGVIT2_WORDS = {**WORDS, "mid_block": "middle.blocks", "downsample": "resample.conv"}


@dataclass(frozen=True)
class LFQOptions:
    """Official options; sizes that are not said are read off the tensors."""

    ddconfig: DDConfig = field(default_factory=DDConfig)
    n_embed: int | None = None
    embed_dim: int | None = None
    sample_minimization_weight: float = 1.0
    batch_maximization_weight: float = 1.0
    use_ema: bool = True


def rules(tensors: Mapping[str, Tensor]) -> Rules:
    """Rules from the official layout to `ConvTokenizer`, for the levels that the keys have."""
    levels = count(tensors, r"decoder\.up\.(\d+)\..+")
    words = {"gamma": "scale", "beta": "shift"}

    def adaptive(match: re.Match[str]) -> str:
        level = levels - 1 - int(match[1])
        return f"decoder.levels.{level}.adapt.{words[match[2]]}.{match[3]}"

    def upsample(match: re.Match[str]) -> str:
        return f"decoder.levels.{levels - 1 - int(match[1])}.resample.conv.{match[2]}"

    return [
        (r"decoder\.adaptive\.(\d+)\.(gamma|beta)\.(weight|bias)", adaptive),
        (r"decoder\.up\.(\d+)\.upsample\.conv1\.(weight|bias)", upsample),
        *taming_rules(tensors, MAGVIT2_WORDS),
    ]


def tokenizer_config(
    tensors: Mapping[str, Tensor], given: LFQOptions, where: str
) -> ConvTokenizerConfig:
    """Configuration of the tokenizer from tensors by our names.

    Raises:
        UserError: a tensor is missing, or an option contradicts the tensors.
    """
    found = sizes(tensors, where)
    bits = found["z_channels"]
    refuse_other_networks(given.ddconfig, tensors, found, where)
    refuse_contradictions(given, {"n_embed": 2**bits, "embed_dim": bits}, where)
    quantizer = LFQConfig(
        channels=bits,
        sample_weight=given.sample_minimization_weight,
        batch_weight=given.batch_maximization_weight,
    )
    return ConvTokenizerConfig(quantizer=quantizer, family="magvit2", **found)


def convert_tokenizer(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """An Open-MAGVIT2 tokenizer as a `ConvTokenizer`; see `Part.convert`."""
    given = official(
        LFQOptions, options, where, (*IGNORED, "factorized_bits", "token_factorization")
    )
    weights, notes = chosen_weights(tensors, given.use_ema, where)
    renamed = rename(weights, rules(weights), where)
    config = tokenizer_config(renamed, given, where)
    network = build(lambda: ConvTokenizer(config), renamed, where)
    return Converted("vision", network, trained_size(given.ddconfig), notes=notes)


NEEDED = frozenset(
    {
        *("encoder.mid_block.0.conv1.weight", "decoder.mid_block.0.conv1.weight"),
        "decoder.adaptive.0.gamma.weight",
    }
)


def recognise_tokenizer(shapes: Shapes) -> bool:
    """Whether the keys are those of the picture tokenizer; that of clips has other ones."""
    return set(shapes) >= NEEDED


PARTS = (
    Part(
        system="open-magvit2",
        name="LFQ tokenizer",
        licence="Apache-2.0",
        source="TencentARC/SEED-Voken",
        recognise=recognise_tokenizer,
        convert=convert_tokenizer,
        component="vision",
        needed=NEEDED,
    ),
)
