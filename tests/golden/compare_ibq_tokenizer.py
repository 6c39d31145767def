"""IBQ's tokenizer: forward, losses, gradients; its checkpoints: averages, discriminator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from case import Case
from computing import by_output, gradients, total_loss
from torch import Tensor

from mmgen.published.reading import read_checkpoint
from mmgen.published.taming import discriminator
from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.tokenizers_vis.losses import LeCam, discriminator_loss, generator_loss
from mmgen.tokenizers_vis.quantizers import IBQ, IBQConfig
from mmgen.train.ema import EMA

LONG_AFTER_WARM_UP = 10**9


@torch.no_grad()
def forward(case: Case) -> dict[str, Tensor]:
    network: ConvTokenizer = case.network
    x = case.inputs["x"]
    features, codes = network.features(x), network.encode(x)
    pixels, quantized = network(x)
    assert codes.indices is not None
    indices = codes.indices[:, 0]
    if "indices_euclid_WRONG" in case.inputs:
        assert not torch.equal(indices, case.inputs["indices_euclid_WRONG"])
    return {
        "encoder_out": network.encoder(x),
        "z": features.movedim(-1, 1),
        "logits": (features @ network.quantizer.codebook.T).movedim(-1, 1),  # type: ignore[attr-defined]
        "indices": indices,
        "z_q": quantized.quantized.movedim(-1, 1),
        "z_q_from_indices": network.embed(indices).movedim(-1, 1),
        "decoded": pixels,
    }


def quantizer(case: Case, **changes: Any) -> IBQ:
    """The imported quantizer with other weights of its losses."""
    own = case.network.quantizer
    assert isinstance(own, IBQ) and isinstance(own.config, IBQConfig)
    other = IBQ(replace(own.config, **changes))
    other.load_state_dict(own.state_dict())
    return other


def losses(case: Case) -> dict[str, Tensor]:
    """The losses without their weights, each by itself."""
    z = case.once(forward)["z"].movedim(1, -1)
    whole = quantizer(case, entropy_weight=1.0)(z).losses
    soft = quantizer(case, beta=0.0)(z).losses["codebook"]
    sample = quantizer(case, entropy_weight=1.0, sample_weight=1.0, batch_weight=0.0)(z)
    average = quantizer(case, entropy_weight=1.0, sample_weight=0.0, batch_weight=-1.0)(z)
    return {
        "quant_loss": whole["codebook"] + whole["commitment"],
        "quant_loss_terms": torch.stack([soft, whole["commitment"], whole["codebook"] - soft]),
        "sample_entropy": sample.losses["entropy"],
        "avg_entropy": average.losses["entropy"],
        "entropy_loss": whole["entropy"],
    }


def quantizer_gradients(case: Case) -> dict[str, Tensor]:
    one = quantizer(case, entropy_weight=1.0)
    z = case.once(forward)["z"].movedim(1, -1).contiguous().requires_grad_()
    out = one(z)
    parts = {
        "zq": (out.quantized * case.inputs["cotangent"].movedim(1, -1)).sum(),
        "quant": out.losses["codebook"] + out.losses["commitment"],
        "entropy": out.losses["entropy"],
    }
    weights = {"zq": 1.0, "quant": case.settings["lambda_q"], "entropy": case.settings["lambda_e"]}
    parts["total"] = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
    found = {}
    for name, value in parts.items():
        dz, d_codebook = torch.autograd.grad(value, [z, one.codebook], retain_graph=True)
        found |= {f"dz_{name}": dz.movedim(-1, 1), f"dE_{name}": d_codebook}
    return found


def training(case: Case) -> dict[str, Tensor]:
    network: ConvTokenizer = case.only(case.pipeline)
    network.quantizer = quantizer(
        case,
        entropy_weight=case.settings["lambda_e"],
        quantization_weight=case.settings["lambda_q"],
    )
    loss = total_loss(network, case.inputs["x"])
    leaves = {
        "dW_encoder_conv_in": network.encoder.conv_in.weight,
        "dW_quant_conv": network.to_code.weight,
        "dW_codebook": network.quantizer.codebook,
        "dW_decoder_conv_out": network.decoder.conv_out.weight,
    }
    return {"train_loss": loss.detach(), **gradients(loss, leaves)}  # type: ignore[arg-type]


@torch.no_grad()
def averages(case: Case) -> dict[str, Tensor]:
    averaged: ConvTokenizer = case.network
    live: ConvTokenizer = case.only(case.imported_with(use_ema=False))
    x, found = case.inputs["x"], {}
    for name, network in (("raw", live), ("ema", averaged)):
        codes = network.encode(x)
        assert codes.indices is not None
        found |= {f"indices_{name}": codes.indices[:, 0], f"recon_{name}": network.decode(codes)}
    assert torch.equal(live.encoder.conv_in.weight, case.inputs["expected_ema_step_in"])
    ema = EMA(averaged, case.settings["ema_decay"])
    ema.update(live, updates=LONG_AFTER_WARM_UP)
    found["ema_after_one_update_encoder_conv_in"] = ema.state()["encoder.conv_in.weight"]
    return found


@torch.no_grad()
def adversarial(case: Case) -> dict[str, Tensor]:
    judge = discriminator(read_checkpoint(case.official_file).tensors, str(case.official_file))
    x, fake_pixels = case.inputs["x"], case.once(averages)["recon_raw"].clamp(-1, 1)
    at_rest = judge.eval()(x)
    real, fake = judge.train()(x), judge(fake_pixels)
    lecam = LeCam()
    penalties = [lecam((1 + s) * real, (2 - 0.5 * s) * fake) for s in range(3)]
    return {
        "logits_real_eval": at_rest,
        "logits_real_train": real,
        "logits_fake_train": fake,
        "hinge_d_loss": discriminator_loss("hinge", real, fake),
        "gen_loss_nonsaturating": generator_loss("nonsaturating", fake),
        "lecam_reg_3_updates": torch.stack(penalties),
        "lecam_ema_final": torch.tensor([lecam.real, lecam.fake]),
    }


RUNS = {
    forward: ("encoder_out", "z", "logits", "indices", "z_q", "z_q_from_indices", "decoded"),
    losses: ("quant_loss", "quant_loss_terms", "sample_entropy", "avg_entropy", "entropy_loss"),
    quantizer_gradients: tuple(
        f"d{leaf}_{part}" for leaf in "zE" for part in ("zq", "quant", "entropy", "total")
    ),
    training: (
        *("train_loss", "dW_encoder_conv_in", "dW_quant_conv", "dW_codebook"),
        "dW_decoder_conv_out",
    ),
}
CHECKPOINT_RUNS = {
    averages: (
        *("indices_raw", "recon_raw", "indices_ema", "recon_ema"),
        "ema_after_one_update_encoder_conv_in",
    ),
    adversarial: (
        *("logits_real_eval", "logits_real_train", "logits_fake_train", "hinge_d_loss"),
        *("gen_loss_nonsaturating", "lecam_reg_3_updates", "lecam_ema_final"),
    ),
}


COMPARE = {
    ("ibq", "tokenizer"): by_output(RUNS),
    ("ibq", "checkpoint and adversarial losses"): by_output(CHECKPOINT_RUNS),
}
