"""SEED's tokenizers v1 and v2: their official files and arguments.

v1 lies in `causal_qformer.pth` and `seed_tokenizer.pth` (under "model"), v2 in `seed_quantizer.pt`
(bare); both take the image tower from LAVIS' `eva_vit_g.pth`. Without it they have no pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from mmgen.errors import CheckpointError, ConfigError
from mmgen.published.building import build
from mmgen.published.keymap import rename
from mmgen.published.options import official
from mmgen.published.seed_keys import (
    TOWER,
    TOWER_DEPTH,
    Target,
    is_codes,
    is_qformer,
    is_tokenizer,
    is_tower,
    only_reverse,
    reverse_sizes,
    rules,
    sizes,
    tower_sizes,
)
from mmgen.published.systems import Converted, Part, Piece
from mmgen.tokenizers_vis.eva import EvaConfig
from mmgen.tokenizers_vis.qformer import QFormerConfig
from mmgen.tokenizers_vis.quantizers import VQConfig
from mmgen.tokenizers_vis.seed import MLPHeadConfig, QueryHeadConfig, SeedConfig, SeedTokenizer

# Arguments of training, one that the official class ignores, and switches that the file shows.
IGNORED = ("cross_attention_freq", "vocab_size", "recon_s", "blocks_for_image")


@dataclass(frozen=True)
class VitOptions:
    """Sizes of the image tower."""

    img_size: int = 224
    patch_size: int = 14
    embed_dim: int = 1408
    depth: int = TOWER_DEPTH
    num_heads: int = 16
    mlp_ratio: float = 4.3637


@dataclass(frozen=True)
class SeedOptions:
    """Official arguments of both versions, and sizes that the official code fixes."""

    num_query_token: int = 32
    vision_width: int = 1408
    hidden_size: int = 768
    qformer_layers: int = 12
    reverse_qformer_layers: int = 4
    num_reverse_token: int = 1
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    codebook_embed_dim: int = 32
    n_embed: int = 8192
    decode_depth: int = 4
    blocks_num_heads: int = 12
    use_qformer_image: bool = False
    image_features_dim: int = 1024
    text_features_dim: int = 768
    vit: VitOptions | None = field(default_factory=VitOptions)

    def __post_init__(self) -> None:
        """Refuse heads that nothing can have."""
        if self.blocks_num_heads < 1:
            raise ConfigError(f"blocks_num_heads must be 1 or more, not {self.blocks_num_heads}.")


PRESETS: dict[str, dict[str, Any]] = {
    "v1": asdict(SeedOptions(num_reverse_token=77)),
    "v2": asdict(SeedOptions()),
}


def configuration(options: SeedOptions, target: Target, reconstructs: bool) -> SeedConfig:
    """Our configuration.

    Args:
        options: official arguments.
        target: "text" is v1, "image" v2.
        reconstructs: whether the branch of the reconstruction loss is there.
    """

    def qformer(depth: int, memory_width: int, queries: int) -> QFormerConfig:
        return QFormerConfig(
            width=options.hidden_size,
            depth=depth,
            heads=options.num_attention_heads,
            mlp_width=options.intermediate_size,
            memory_width=memory_width,
            causal=queries == 32,  # the official code masks 32 queries and no other number
        )

    out = options.text_features_dim if target == "text" else options.image_features_dim
    head: MLPHeadConfig | QueryHeadConfig = MLPHeadConfig(out=out)
    if target == "text" or options.use_qformer_image:
        queries = options.num_reverse_token
        inner = qformer(options.reverse_qformer_layers, options.hidden_size, queries)
        head = QueryHeadConfig(qformer=inner, queries=queries, out=out)
    return SeedConfig(
        qformer=qformer(options.qformer_layers, options.vision_width, options.num_query_token),
        head=head,
        quantizer=VQConfig(
            codebook_size=options.n_embed,
            channels=options.codebook_embed_dim,
            codebook_weight=0.25,  # the official loss has its beta on this term
            commitment_weight=1.0,
        ),
        vision=None if options.vit is None else _tower(options.vit),
        tokens=options.num_query_token,
        decoder_depth=options.decode_depth,
        decoder_heads=options.blocks_num_heads,
        reconstructs=reconstructs,
    )


def _tower(vit: VitOptions) -> EvaConfig:
    hidden = int(vit.embed_dim * vit.mlp_ratio)
    return EvaConfig(vit.img_size, vit.patch_size, vit.embed_dim, vit.depth, vit.num_heads, hidden)


def convert(
    target: Target, tensors: Mapping[str, Tensor], options: Mapping[str, Any], where: str
) -> Converted:
    """Make a tokenizer of its files' tensors; see `Part.convert`."""
    said = official(SeedOptions, options, where, IGNORED)
    chosen = said.use_qformer_image if "use_qformer_image" in options else only_reverse(tensors)
    queries = target == "text" or chosen
    found = sizes(tensors, target, where) | (reverse_sizes(tensors) if queries else {})
    _refuse_other(options, found, where)
    vit, tower = said.vit or VitOptions(), tower_sizes(tensors)
    _refuse_other(options.get("vit") or {}, tower, where)
    whole = replace(
        said, **found, use_qformer_image=queries, vit=replace(vit, **tower) if tower else None
    )
    config = configuration(whole, target, "pos_embed" in tensors)
    depth = config.vision.depth if config.vision else 0
    named = rename(tensors, rules(target, queries, depth), where)
    network = build(lambda: SeedTokenizer(config), named, where)
    size = config.vision.image_size if config.vision else 224
    return Converted("vision", network, size, notes=_notes(len(tensors) - len(named), tower))


def _refuse_other(said: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    for name, value in found.items():
        # A ratio has many spellings; the shapes that it leads to are checked with the rest.
        if name != "mlp_ratio" and said.get(name, value) != value:
            raise CheckpointError(f"{where} has {name} {value}, not {said[name]}; drop the option.")


def _notes(unused: int, tower: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [f"tensors left out, since inference does not need them: {unused}"] if unused else []
    if not tower:
        notes.append("no image tower: to encode pictures, give eva_vit_g.pth too")
    return tuple(notes)


EVA = Piece("image tower (eva_vit_g.pth)", is_tower, TOWER)
PARTS = (
    Part(
        system="seed",
        name="tokenizer v1",
        licence="Apache-2.0",
        source="AILab-CVC/SEED",
        recognise=partial(is_tokenizer, "text"),
        convert=partial(convert, "text"),
        component="vision",
        # In the order of the official loader, where the later file wins.
        pieces=(
            Piece("causal Q-Former (causal_qformer.pth)", is_qformer),
            Piece("codes and head (seed_tokenizer.pth)", partial(is_codes, "text")),
            EVA,
        ),
    ),
    Part(
        system="seed",
        name="tokenizer v2",
        licence="Apache-2.0",
        source="AILab-CVC/SEED",
        recognise=partial(is_tokenizer, "image"),
        convert=partial(convert, "image"),
        component="vision",
        pieces=(EVA,),
    ),
)
