"""SEED's official tensors: which file is which, our names for them, the sizes that they tell."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from mmgen.errors import CheckpointError
from mmgen.published.keymap import Rules, count
from mmgen.published.systems import Shapes

Target = Literal["text", "image"]  # what the codes become: v1's text features, v2's embedding

TOWER = "visual_encoder."
TOWER_DEPTH = 39  # the tower's own file has 40 blocks, of which SEED leaves out the last
BLOCK = r"(attn\.(?:qkv|proj)|attn\.[qv]_bias|norm[12]|mlp\.fc[12])(\.weight|\.bias|)"

# A layer of a Q-Former. The feed-forward of text (`intermediate`, `output`) is not needed.
LAYER = {
    "attention.self.query": "attention.q",
    "attention.self.key": "attention.k",
    "attention.self.value": "attention.v",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "attention_norm",
    "crossattention.self.query": "cross.q",
    "crossattention.self.key": "cross.k",
    "crossattention.self.value": "cross.v",
    "crossattention.output.dense": "cross.out",
    "crossattention.output.LayerNorm": "cross_norm",
    "intermediate_query.dense": "mlp.0",
    "output_query.dense": "mlp.2",
    "output_query.LayerNorm": "mlp_norm",
}


def rules(target: Target, queries: bool, depth: int) -> Rules:
    """Rules for `keymap.rename`; what inference does not use is left out, as officially.

    Args:
        target: whose branch of the decoder is taken.
        queries: the head is a reverse Q-Former, not an MLP.
        depth: blocks of the tower.
    """
    last = "|".join(str(i) for i in range(depth)) or "-"
    head = [
        (r"reverse_tokens", "head.queries"),
        *_qformer("Reverse_Qformer", "head.qformer"),
    ]
    return [
        (r"visual_encoder\.(cls_token|pos_embed|patch_embed\.proj\.\w+)", r"vision.\1"),
        (rf"visual_encoder\.blocks\.({last})\.{BLOCK}", r"vision.blocks.\1.\2\3"),
        (r"ln_vision\.(\w+)", r"vision_norm.\1"),
        (r"query_tokens", "queries"),
        *_qformer("Qformer", "qformer"),
        (r"encode_task_layer\.(\d\.\w+)", r"to_code.\1"),
        (r"decode_task_layer\.(\d\.\w+)", r"from_code.\1"),
        (r"quantize\.embedding\.weight", "quantizer.codebook"),
        (rf"pos_embed_{target}", "decoder.position"),
        (rf"blocks_{target}\.(\d+)\.{BLOCK}", r"decoder.blocks.\1.\2\3"),
        (r"pos_embed", "reconstructor.position"),
        (rf"blocks\.(\d+)\.{BLOCK}", r"reconstructor.blocks.\1.\2\3"),
        *(head if queries else [(r"image_down\.(\d\.weight)", r"head.down.\1")]),
        (rf"distill_{target}_proj\.(\w+)", r"head.out.\1"),
        (r".*", None),
    ]


def _qformer(theirs: str, ours: str) -> list[tuple[str, Any]]:
    names = "|".join(re.escape(name) for name in LAYER)

    def layer(match: re.Match[str]) -> str:
        return f"{ours}.layers.{match[1]}.{LAYER[match[2]]}.{match[3]}"

    return [
        (rf"{theirs}\.bert\.embeddings\.LayerNorm\.(\w+)", rf"{ours}.norm_in.\1"),
        (rf"{theirs}\.bert\.encoder\.layer\.(\d+)\.({names})\.(\w+)", layer),
    ]


def sizes(tensors: Mapping[str, Tensor], target: Target, where: str) -> dict[str, Any]:
    """Official arguments that the shapes tell.

    Raises:
        CheckpointError: a tensor that every such file holds is missing.
    """

    def shape(key: str, axes: int = 2) -> tuple[int, ...]:
        if key not in tensors:
            raise CheckpointError(
                f"{where} lacks '{key}'; give all files of the tokenizer, if it has several."
            )
        if tensors[key].ndim != axes:
            raise CheckpointError(f"{where} has a '{key}' of another kind than SEED's.")
        return tuple(tensors[key].shape)

    hidden = "Qformer.bert.encoder.layer.0.intermediate_query.dense.weight"
    _, tokens, width = shape("query_tokens", 3)
    found: dict[str, Any] = {
        "num_query_token": tokens,
        "hidden_size": width,
        "vision_width": shape("ln_vision.weight", 1)[0],
        "qformer_layers": count(tensors, r"Qformer\.bert\.encoder\.layer\.(\d+)\..*"),
        "intermediate_size": shape(hidden)[0],
        "n_embed": shape("quantize.embedding.weight")[0],
        "codebook_embed_dim": shape("quantize.embedding.weight")[1],
        "decode_depth": count(tensors, rf"blocks_{target}\.(\d+)\..*"),
        f"{target}_features_dim": shape(f"distill_{target}_proj.weight")[0],
    }
    return found


def reverse_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Official arguments of a reverse Q-Former; nothing where there is none."""
    if "reverse_tokens" not in tensors or tensors["reverse_tokens"].ndim != 3:
        return {}  # the strict load says what is missing
    layers = count(tensors, r"Reverse_Qformer\.bert\.encoder\.layer\.(\d+)\..*")
    tokens = tensors["reverse_tokens"].shape[1]
    return {"reverse_qformer_layers": layers, "num_reverse_token": tokens}


def only_reverse(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the head can only be the reverse Q-Former; files with both use the MLP."""
    return "reverse_tokens" in tensors and "image_down.0.weight" not in tensors


def tower_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Official arguments of the image tower; nothing where there is none."""
    patches = tensors.get(f"{TOWER}patch_embed.proj.weight")
    positions = tensors.get(f"{TOWER}pos_embed")
    hidden = tensors.get(f"{TOWER}blocks.0.mlp.fc1.weight")
    if patches is None or positions is None or hidden is None or patches.ndim != 4:
        return {}
    width, _, patch, _ = patches.shape
    blocks = count(tensors, r"visual_encoder\.blocks\.(\d+)\..*")
    return {
        "img_size": math.isqrt(positions.shape[1] - 1) * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": min(blocks, TOWER_DEPTH),
        # The official product is rounded down; half a channel keeps it from one less.
        "mlp_ratio": (hidden.shape[0] + 0.5) / width,
    }


def is_tokenizer(target: Target, shapes: Shapes) -> bool:
    """A whole tokenizer, but for the tower."""
    return is_codes(target, shapes) and _has(shapes, "query_tokens", "ln_vision.weight")


def is_codes(target: Target, shapes: Shapes) -> bool:
    """Codebook and head; v1 keeps them in a file of their own."""
    return _has(shapes, "quantize.embedding.weight", f"distill_{target}_proj.weight")


def is_qformer(shapes: Shapes) -> bool:
    """The causal Q-Former alone: v1's first file."""
    own = "Qformer.bert.encoder.layer.0.crossattention.self.key.weight"
    return _has(shapes, "query_tokens", own) and "quantize.embedding.weight" not in shapes


def is_tower(shapes: Shapes) -> bool:
    """The image tower alone: LAVIS' file."""
    return _has(shapes, "cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.q_bias")


def _has(shapes: Shapes, *keys: str) -> bool:
    return all(key in shapes for key in keys)
