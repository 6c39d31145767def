"""Open-MAGVIT2's LFQ tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from case import Case
from computing import by_output, gradients, total_loss
from torch import Tensor

from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.tokenizers_vis.quantizers import LFQ, LFQConfig


@torch.no_grad()
def forward(case: Case) -> dict[str, Tensor]:
    network: ConvTokenizer = case.network
    x = case.inputs["x"]
    codes = network.encode(x)
    assert codes.indices is not None
    indices = codes.indices[:, 0]
    found = {
        "h": network.features(x).movedim(-1, 1),
        "codes": network.embed(indices).movedim(-1, 1),
        "indices": indices,
        "decoded": network.decode(codes),
    }
    if case.config.get("factorized_bits"):
        low = 2 ** case.config["factorized_bits"][0]
        found |= {"indices_pre": indices % low, "indices_post": indices // low}
    return found


def quantizer(case: Case, **changes: Any) -> LFQ:
    """The imported quantizer in training mode with other weights of its losses."""
    own = case.network.quantizer
    assert isinstance(own, LFQ) and isinstance(own.config, LFQConfig)
    temperature = case.settings.get("entropy temperature", own.config.entropy_temperature)
    return LFQ(replace(own.config, entropy_temperature=temperature, **changes)).train()


def losses(case: Case) -> dict[str, Tensor]:
    h = case.inputs["h_scaled"].movedim(1, -1).contiguous().requires_grad_()
    plain = {"entropy_weight": 1.0, "commitment_weight": 1.0}
    whole = quantizer(case, **plain)(h)
    sample = quantizer(case, **plain, sample_weight=1.0, batch_weight=0.0)(h).losses["entropy"]
    average = quantizer(case, **plain, sample_weight=0.0, batch_weight=-1.0)(h).losses["entropy"]
    straight = (whole.quantized * case.inputs["cotangent"].movedim(1, -1)).sum()
    found = {
        "per_sample_entropy": sample,
        "codebook_entropy": average,
        "entropy_loss": whole.losses["entropy"],
        "commitment": whole.losses["commitment"],
    }
    for name, value in (
        ("dh_codes", straight),
        ("dh_entropy", whole.losses["entropy"]),
        ("dh_commit", whole.losses["commitment"]),
    ):
        found[name] = gradients(value, {"h": h})["h"].movedim(-1, 1)
    return found


def training(case: Case) -> dict[str, Tensor]:
    network: ConvTokenizer = case.only(case.pipeline)
    network.quantizer = quantizer(case)
    loss = total_loss(network, case.inputs["x"])
    finest: Any = network.decoder.levels[-1]
    leaves = {
        "dW_encoder_conv_in": network.encoder.conv_in.weight,
        "dW_adaptive0_gamma": finest.adapt.scale.weight,
    }
    return {"train_loss": loss, **gradients(loss, leaves)}


RUNS = {
    forward: ("h", "codes", "indices", "indices_pre", "indices_post", "decoded"),
    losses: (
        *("per_sample_entropy", "codebook_entropy", "entropy_loss", "commitment"),
        *("dh_codes", "dh_entropy", "dh_commit"),
    ),
    training: ("train_loss", "dW_encoder_conv_in", "dW_adaptive0_gamma"),
}
COMPARE = {("open-magvit2", "tokenizer"): by_output(RUNS)}
