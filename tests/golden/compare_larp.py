"""LARP: clips in [0, 1] there, in [-1, 1] here."""

from __future__ import annotations

from case import Case
from torch import Tensor

from mmgen.tokenizers_vis.protocol import Codes, Quantized


def _clip(case: Case) -> Tensor:
    return case.inputs["video"] * 2 - 1


def _quantized(case: Case) -> Quantized:
    """With the losses, which only training asks for; every choice of a code is deterministic."""
    quantizer = case.network.quantizer.train()
    quantized: Quantized = quantizer(case.network.features(_clip(case)))
    quantizer.eval()
    return quantized


def _embedding(case: Case) -> Tensor:
    return case.once(_quantized).quantized


def _indices(case: Case) -> Tensor:
    return case.network.encode(_clip(case)).indices.flatten(1)


def _from_indices(case: Case) -> Tensor:
    return (case.network.decode(Codes(_indices(case)[:, None, None])) + 1) / 2


def _commitment(case: Case) -> Tensor:
    loss = case.once(_quantized).losses["commitment"]
    return loss / case.network.config.quantizer.commitment_weight


def _codebook(case: Case) -> Tensor:
    return case.once(_quantized).losses["codebook"] / case.network.config.quantizer.codebook_weight


COMPARE = {
    ("larp", "video tokenizer"): {
        "encoder_out": lambda case: case.network.read_clip(_clip(case)),
        "projected": lambda case: case.network.features(_clip(case)),
        "indices": _indices,
        "regularized_z": _embedding,
        "encoded": lambda case: case.network.from_code(_embedding(case)),
        "decoded": lambda case: (case.network.decode_embeddings(_embedding(case)) + 1) / 2,
        "decoded_from_indices": _from_indices,
        "loss_commit": _commitment,
        "loss_codebook": _codebook,
        "loss_q": lambda case: sum(case.once(_quantized).losses.values()),
    }
}
