"""LARP: the holistic video tokenizer that NAR uses on clips (specs/nar.md 6.1).

Official files: `hywang66/LARP-L-long-tokenizer` (config.json and model.safetensors), and the folder
of a .json and a .pth that the NAR repository reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmgen.published import keymap
from mmgen.published.building import build
from mmgen.published.larp_options import ASSUMED, LarpOptions, read_options, recorded
from mmgen.published.options import assumed
from mmgen.published.renamed import Target
from mmgen.published.systems import Converted, Part
from mmgen.tokenizers_vis.larp import LarpConfig, LarpTokenizer
from mmgen.tokenizers_vis.quantizers import VQConfig
from mmgen.tokenizers_vis.vit import ViTConfig

__all__ = ["PARTS", "convert", "tokenizer_config"]

RULES: tuple[tuple[str, Target], ...] = (
    (r"x_embedder\.proj\.(weight|bias)", r"patchify.\1"),
    (r"encoder_latent_query_embed", "encoder_queries"),
    # Tables are kept as the file has them, fixed or learned.
    (r"encoder_patch_pe", "patch_places"),
    (r"decoder_latent_pe", "token_places"),
    (r"decoder_patch_query_embed", "query_places"),
    (r"decoder_patch_query_token_type_embed", "query_type"),
    # Blocks are timm's there and here.
    (r"(?:en|de)coder\.blocks\.\d+\.(?:norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12])\.\w+", r"\g<0>"),
    (r"bottleneck\.in_linear\.(weight|bias)", r"to_code.\1"),
    (r"bottleneck\.out_linear\.(weight|bias)", r"from_code.\1"),
    (r"bottleneck\.regularizer\.embedding\.weight", "quantizer.codebook"),
    (r"final_layer\.norm_final\.(weight|bias)", r"norm_out.\1"),
    (r"final_layer\.linear\.(weight|bias)", r"to_pixels.\1"),
    (r"prior_model\..+", None),  # a regulariser of training
)
_ROWS = ("patch_places", "token_places", "query_places")  # officially with a batch axis of 1


def tokenizer_config(options: LarpOptions) -> LarpConfig:
    """Our configuration of official options."""
    arguments = options.bottleneck.args
    vq = arguments.regularizer.args
    return LarpConfig(
        quantizer=VQConfig(
            codebook_size=vq.codebook_size,
            channels=arguments.bottleneck_dim,
            normalize=vq.l2_normalized,
            codebook_weight=vq.codebook_loss_weight,
            commitment_weight=vq.commitment_loss_weight,
        ),
        encoder=_vit(options, "encoder"),
        decoder=_vit(options, "decoder"),
        tokens=options.bottleneck_token_num,
        frames=options.frame_num,
        size=options.input_size,
        patch=(options.temporal_patch_size, options.patch_size, options.patch_size),
        decoder_patch=(
            options.decoder_temporal_patch_size,
            options.decoder_patch_size,
            options.decoder_patch_size,
        ),
        token_base=options.latent_pe_scale_factor,
    )


def convert(tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str) -> Converted:
    """Read a tokenizer; what no tensor tells is by default as in LARP-L-long."""
    read = read_options(tensors, options, where)
    ours = keymap.rename(tensors, RULES, where)
    for name in _ROWS:
        if name in ours and ours[name].ndim > 1:  # else the size is refused below
            ours[name] = ours[name].flatten(0, -2)  # (rows, width)
    if "query_type" in ours:
        ours["query_type"] = ours["query_type"].flatten()
    config = tokenizer_config(read)
    network = build(lambda: LarpTokenizer(config), ours, where)
    notes = ["codes are the likeliest ones; the official class draws them unless told otherwise"]
    if read.bottleneck.args.regularizer.args.entropy_loss_weight:
        notes.append("its entropy loss is left out of further training")
    untold = assumed(read, options, ASSUMED)
    return Converted("vision", network, read.input_size, notes=tuple(notes), assumed=untold)


NEEDED = frozenset(
    {
        *("encoder_latent_query_embed", "bottleneck.in_linear.weight"),
        *("bottleneck.out_linear.weight", "decoder_latent_pe"),
    }
)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the keys are those of a LARP tokenizer."""
    return shapes.keys() >= NEEDED


def _vit(options: LarpOptions, side: str) -> ViTConfig:
    return ViTConfig(
        width=getattr(options, f"{side}_hidden_size"),
        depth=getattr(options, f"{side}_depth"),
        heads=getattr(options, f"{side}_num_heads"),
    )


PARTS = (
    Part(
        system="larp",
        name="holistic video tokenizer",
        licence="MIT",
        source="hywang66/LARP",
        recognise=recognise,
        convert=convert,
        component="vision",
        needed=NEEDED,
        recorded=recorded,
    ),
)
