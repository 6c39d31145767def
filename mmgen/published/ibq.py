"""IBQ's tokenizers (arXiv 2412.02692): VQGAN's network around index backpropagation quantization.

A file is a Lightning checkpoint, with the discriminator and averages of all weights in it; the
published evaluations use the averages. Official code: TencentARC/SEED-Voken, Apache-2.0. Spec: IBQ
A1 to A4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmgen.published.averages import ema_parameters, has_averages, live_parameters
from mmgen.published.building import build
from mmgen.published.keymap import rename
from mmgen.published.options import official, refuse_contradictions
from mmgen.published.systems import Converted, Part, Shapes
from mmgen.published.taming import (
    DDConfig,
    refuse_other_networks,
    shape_of,
    sizes,
    taming_rules,
    trained_size,
)
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import IBQConfig

DDCONFIG: dict[str, Any] = {
    "ch": 128,
    "ch_mult": (1, 1, 2, 2, 4),
    "num_res_blocks": 4,
    "attn_resolutions": (16,),
    "resolution": 256,
    "z_channels": 256,
}
PRESETS: dict[str, dict[str, Any]] = {
    f"IBQ-{codes}": {"ddconfig": DDCONFIG, "n_embed": codes, "embed_dim": 256}
    for codes in (1024, 8192, 16384, 262144)
}
ENTROPY_WEIGHT = 0.05  # of the published recipe; the official option only says whether
# Of training and of the official class; none changes what a tokenizer does.
IGNORED = (
    *("class", "discriminator", "lossconfig", "learning_rate", "image_key", "monitor", "stage"),
    *("cosine_similarity", "l2_normalize", "remap", "sane_index_shape", "ckpt_path", "ignore_keys"),
    *("colorize_nlabels", "lr_drop_epoch", "lr_drop_rate", "scheduler_type", "resume_lr"),
)


@dataclass(frozen=True)
class IBQOptions:
    """Official options; sizes that are not said are read off the tensors."""

    ddconfig: DDConfig = field(default_factory=DDConfig)
    n_embed: int | None = None
    embed_dim: int | None = None
    beta: float = 0.25
    use_entropy_loss: bool = True
    sample_minimization_weight: float = 1.0
    batch_maximization_weight: float = 1.0
    entropy_temperature: float = 0.01
    use_ema: bool = True


def tokenizer_config(
    tensors: Mapping[str, Tensor], given: IBQOptions, where: str
) -> ConvTokenizerConfig:
    """Configuration of the tokenizer from tensors by our names.

    Raises:
        UserError: a tensor is missing, or an option contradicts the tensors.
    """
    found = sizes(tensors, where)
    codes, channels = shape_of(tensors, "quantizer.codebook", where)
    refuse_other_networks(given.ddconfig, tensors, found, where)
    refuse_contradictions(given, {"n_embed": codes, "embed_dim": channels}, where)
    quantizer = IBQConfig(
        codebook_size=codes,
        channels=channels,
        beta=given.beta,
        entropy_weight=ENTROPY_WEIGHT if given.use_entropy_loss else 0.0,
        sample_weight=given.sample_minimization_weight,
        batch_weight=given.batch_maximization_weight,
        entropy_temperature=given.entropy_temperature,
    )
    return ConvTokenizerConfig(quantizer=quantizer, **found)


def chosen_weights(
    tensors: Mapping[str, Tensor], use_ema: bool, where: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The averages where there are any and they are wanted, else the live weights, and a note."""
    if use_ema and has_averages(tensors):
        return ema_parameters(tensors, where), ("EMA weights",)
    return live_parameters(tensors), ()


def convert_tokenizer(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """An IBQ tokenizer as a `ConvTokenizer`; see `Part.convert`."""
    given = official(IBQOptions, options, where, IGNORED)
    weights, notes = chosen_weights(tensors, given.use_ema, where)
    renamed = rename(weights, taming_rules(weights), where)
    config = tokenizer_config(renamed, given, where)
    network = build(lambda: ConvTokenizer(config), renamed, where)
    return Converted("vision", network, trained_size(given.ddconfig), notes=notes)


NEEDED = frozenset(
    {
        *("encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.conv1.weight"),
        *("quant_conv.weight", "quantize.embedding.weight"),
    }
)


def recognise_tokenizer(shapes: Shapes) -> bool:
    """Whether the keys are those of VQGAN with a codebook and convolutions in two dimensions."""
    return set(shapes) >= NEEDED and len(shapes["quant_conv.weight"]) == 4


PARTS = (
    Part(
        system="ibq",
        name="IBQ tokenizer",
        licence="Apache-2.0",
        source="TencentARC/SEED-Voken",
        recognise=recognise_tokenizer,
        convert=convert_tokenizer,
        component="vision",
        needed=NEEDED,
    ),
)
