"""LlamaGen's VQ-8 and VQ-16."""

from __future__ import annotations

import torch
from case import Case
from computing import by_output
from torch import Tensor

from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.tokenizers_vis.protocol import Codes


@torch.no_grad()
def encoded(case: Case) -> dict[str, Tensor]:
    network: ConvTokenizer = case.network
    image = case.inputs["image"]
    features = network.features(image)  # (B, h, w, C)
    codes = network.encode(image)
    pixels, quantized = network(image)
    assert codes.indices is not None
    return {
        "encoder_out": network.encoder(image),
        "z_before_quant": features.movedim(-1, 1),
        "indices": codes.indices[:, 0],
        "z_q": quantized.quantized.movedim(-1, 1),
        "decoded": pixels,
        "decoded_from_indices": network.decode(Codes(codes.indices)),
    }


def decoded_bytes(case: Case) -> dict[str, Tensor]:
    # LlamaGen's own rounding, 127.5 x + 128 cut off; our writer rounds 127.5 x + 127.5 to nearest.
    pixels = case.once(encoded)["decoded_from_indices"]
    whole = (127.5 * pixels + 128).clamp(0, 255).to(torch.uint8)
    return {"decoded_uint8": whole.permute(0, 2, 3, 1).long()}


def training_losses(case: Case) -> dict[str, Tensor]:
    quantizer = case.only(case.pipeline).quantizer.train()
    losses = quantizer(case.once(encoded)["z_before_quant"].movedim(1, -1)).losses
    return {
        "train_vq_loss": losses["codebook"],
        "train_commit_loss": losses["commitment"],
        # Without a weight there is no such term.
        "train_entropy_loss": losses.get("entropy", torch.zeros(())),
    }


RUNS = {
    encoded: ("encoder_out", "z_before_quant", "indices", "z_q", "decoded", "decoded_from_indices"),
    decoded_bytes: ("decoded_uint8",),
    training_losses: ("train_vq_loss", "train_commit_loss", "train_entropy_loss"),
}
COMPARE = {("llamagen", "tokenizer"): by_output(RUNS)}
