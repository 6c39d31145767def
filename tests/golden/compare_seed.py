"""SEED's tokenizers v1 and v2, and unCLIP's class labels."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import torch
from case import Case
from registry import Comparisons
from torch import Tensor

from mmgen.tokenizers_vis.protocol import Codes, Quantized
from mmgen.tokenizers_vis.unclip import kept_signal


def _tower(case: Case) -> Tensor:
    return case.network.vision(case.inputs["images"])


def _memory(case: Case) -> Tensor:
    """Normed tokens of the tower: given, or made from its output or from pixels."""
    given = case.inputs
    if "image_embeds" in given:
        return given["image_embeds"]
    features = given["vision_features"] if "vision_features" in given else case.once(_tower)
    return case.network.vision_norm(features)


def _summary(case: Case) -> Tensor:
    return case.network.summary(case.once(_memory))


def _perturbed(case: Case) -> Tensor:
    memory = case.once(_memory)
    queries = case.inputs["query_tokens_perturbed"].expand(len(memory), -1, -1)
    return case.network.qformer(queries, memory)


def _down(case: Case) -> Tensor:
    return case.network.to_code(case.once(_summary))


def _quantized(case: Case) -> Quantized:
    """Of a quantizer in training mode, which alone has losses; nothing in it moves."""
    quantizer = case.network.quantizer.train()
    return quantizer(case.once(_down))


def _indices(case: Case) -> Tensor:
    """From the first input on, by the way that users go where the case has its start."""
    given, network = case.inputs, case.network
    if "vision_features" in given:
        return network.encode_features(given["vision_features"]).indices[:, 0, 0]
    return network.quantizer.assign(case.once(_down))


def _up(case: Case) -> Tensor:
    return case.network.from_code(case.once(_quantized).quantized)


def _embedding(case: Case) -> Tensor:
    return case.network.to_embedding(Codes(case.once(_indices)[:, None, None]))


TOKENIZER: Comparisons = {
    "vit_output": _tower,
    "image_embeds": _memory,
    "query_output": _summary,
    "query_output_down": _down,
    "indices": _indices,
    "quant": lambda case: case.once(_quantized).quantized,
    "quant_loss": lambda case: torch.stack([*case.once(_quantized).losses.values()]).sum(),
    "query_output_up": _up,
    "recon_features": lambda case: case.network.reconstructor(_up(case)),
    "image_block_output": lambda case: case.network.decoder(_up(case)),
    "image_embedding": _embedding,
    "text_block_output": lambda case: case.network.decoder(_up(case)),
    "text_embeddings": _embedding,
    "query_output_perturbed": _perturbed,
    "indices_perturbed": lambda case: case.network.quantizer.assign(
        case.network.to_code(_perturbed(case))
    ),
}


def _labels(level: int, guided: str, case: Case) -> Tensor:
    given, network = case.inputs, case.network
    pair = given["image_embeds"], given["noise"]
    if not guided:
        return network(*pair, level)
    negative = (given["negative_image_embeds"], given["negative_noise"])
    return network.guided(*pair, level, *(negative if guided.endswith("negative") else ()))


def _unclip(case: Case) -> Comparisons:
    """Levels and lengths stand in the names of the outputs."""
    found: dict[str, Callable[[Case], Tensor]] = {}
    for name in case.outputs:
        if labels := re.fullmatch(r"class_labels_level(\d+)(_cfg|_cfg_negative|)", name):
            found[name] = partial(_labels, int(labels[1]), labels[2])
        if first := re.fullmatch(r"alphas_cumprod_first(\d+)", name):
            found[name] = partial(_kept, int(first[1]))
    return found


def _kept(first: int, case: Case) -> Tensor:
    config = case.network.config
    return kept_signal(config.schedule, config.levels)[:first]


COMPARE = {
    ("seed", "tokenize"): TOKENIZER,
    ("seed", "tokenize and detokenize (v1)"): TOKENIZER,
    ("seed", "unCLIP conditioning"): _unclip,
}
