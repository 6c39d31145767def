"""xAR's tensors under our names, in our layout: the key map of `xar.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mmgen.errors import CheckpointError
from mmgen.models.velocity import VelocityConfig
from mmgen.published.keymap import refuse_halves, rename
from mmgen.published.layouts import fuse, halves

STACKS = ("encoder", "decoder")  # in series, both see every row
NEEDED = frozenset(
    {
        *("encoder_blocks.0.ada_lin.1.weight", "decoder_blocks.0.mlp.fc1_g.weight"),
        *("z_proj_ln.weight", "time_embed.mlp.0.weight"),
    }
)


def _in_stack(name: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"stacks.{STACKS.index(match[1])}.{match.expand(name)}"


BLOCK = r"(encoder|decoder)_blocks\.(\d+)\."
RULES = (
    (r"mask|.*\.attn\.rope\.freqs(?:_cos|_sin)?", None),  # ours follow from the configuration
    (r"class_emb\.weight", "labels.weight"),
    (r"time_embed\.(mlp\..*)", r"time.\1"),
    (r"z_proj\.(.*)", r"stacks.0.enter.\1"),
    (r"z_proj_ln\.weight", "stacks.0.entry_norm.weight"),
    (r"decoder_embed\.(.*)", r"stacks.1.enter.\1"),
    (r"pred\.(.*)", r"out.\1"),
    (r"(encoder|decoder)_pos_embed_learned", _in_stack("places")),
    (r"(encoder|decoder)_norm\.weight", _in_stack("norm.weight")),
    (BLOCK + r"attn\.qkv\.(.*)", _in_stack(r"backbone.blocks.\2.attention.qkv.\3")),
    (BLOCK + r"attn\.proj\.(.*)", _in_stack(r"backbone.blocks.\2.attention.out.\3")),
    (BLOCK + r"mlp\.inner\.(.*)", _in_stack(r"backbone.blocks.\2.mlp.inner.\3")),
    (BLOCK + r"mlp\.fc2\.(.*)", _in_stack(r"backbone.blocks.\2.mlp.out.\3")),
    (BLOCK + r"ada_lin\.1\.(.*)", _in_stack(r"backbone.blocks.\2.modulation.\3")),
)


def our_tensors(
    tensors: Mapping[str, Tensor], config: VelocityConfig, where: str
) -> dict[str, Tensor]:
    """Official tensors by our names, in our layout.

    Raises:
        CheckpointError: a key that xAR does not have, or queries, keys and values of another size.
    """
    refuse_halves(tensors, ("fc1_g", "fc1_x"), where)
    found = rename(fuse(tensors, "fc1_g", "fc1_x", "inner", where), RULES, where)
    for name, tensor in found.items():
        if name.endswith(".places"):
            found[name] = tensor.squeeze(0)
        elif ".attention.qkv." in name:
            stack = config.stacks[int(name.split(".")[1])]
            if len(tensor) != 3 * stack.width:
                raise CheckpointError(
                    f"{where} holds {len(tensor)} rows in a layer of queries, keys and values "
                    f"that should have {3 * stack.width}; get it again."
                )
            turned = 2 * stack.width  # rows of queries and keys
            q_and_k = halves(tensor[:turned], stack.head_dim)
            found[name] = torch.cat([q_and_k, tensor[turned:]])
    return found
