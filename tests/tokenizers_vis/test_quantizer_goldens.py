"""Quantizers and adversarial losses against the official numbers in shared goldens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmgen.tokenizers_vis.discriminator import DiscriminatorConfig, PatchDiscriminator
from mmgen.tokenizers_vis.losses import LeCam, discriminator_loss, generator_loss
from mmgen.tokenizers_vis.quantizers import IBQ, LFQ, VQ, IBQConfig, LFQConfig, VQConfig

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MMGEN_SHARED", ROOT.parent / "shared"))


def golden(case: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    folder = SHARED / "goldens" / case
    if not folder.is_dir():
        pytest.skip(f"there is no golden case {case} in {SHARED}; set MMGEN_SHARED")
    return load_file(folder / "tensors.safetensors"), load_file(folder / "weights.safetensors")


def last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous()


def close(ours: Tensor, theirs: Tensor, atol: float, rtol: float) -> None:
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), atol=atol, rtol=rtol)


def ibq() -> tuple[IBQ, dict[str, Tensor]]:
    tensors, weights = golden("ibq-tokenizer-tiny")
    quantizer = IBQ(IBQConfig(codebook_size=96, channels=16, entropy_weight=0.05))
    quantizer.load_state_dict({"codebook": weights["quantize.embedding.weight"]})
    return quantizer, tensors


def test_ibq_forward() -> None:
    quantizer, t = ibq()
    out = quantizer(last(t["z"]))
    assert torch.equal(out.indices, t["indices"])
    assert torch.equal(quantizer.assign(last(t["z"])), t["indices"])
    assert not torch.equal(out.indices, t["indices_euclid_WRONG"])
    assert torch.equal(out.quantized, quantizer.embed(out.indices))
    close(out.quantized, last(t["z_q"]), 1e-4, 1e-4)
    first, commitment, chosen = t["quant_loss_terms"]
    close(out.losses["codebook"], first + chosen, 1e-5, 1e-4)
    close(out.losses["commitment"], commitment, 1e-5, 1e-4)
    close(out.losses["entropy"] / 0.05, t["entropy_loss"], 1e-5, 1e-4)


@pytest.mark.parametrize(
    ("part", "atol"), [("zq", 5e-6), ("quant", 1e-6), ("entropy", 5e-5), ("total", 2e-5)]
)
def test_ibq_gradients(part: str, atol: float) -> None:
    quantizer, t = ibq()
    z = last(t["z"]).requires_grad_()
    out = quantizer(z)
    value = {
        "zq": (out.quantized * last(t["cotangent"])).sum(),
        "quant": out.losses["codebook"] + out.losses["commitment"],
        "entropy": out.losses["entropy"] / 0.05,
    }
    value["total"] = value["zq"] + value["quant"] + 0.05 * value["entropy"]
    dz, d_codebook = torch.autograd.grad(value[part], [z, quantizer.codebook])
    close(dz, last(t[f"dz_{part}"]), atol, 1e-3)
    close(d_codebook, t[f"dE_{part}"], atol, 1e-3)


def test_lfq() -> None:
    t, _ = golden("lfq-tokenizer-tiny")
    quantizer = LFQ(LFQConfig(channels=6, entropy_weight=1.0, commitment_weight=1.0)).eval()
    out = quantizer(last(t["h"]))
    assert torch.equal(out.indices, t["indices"])
    assert torch.equal(out.quantized, last(t["codes"]))
    assert out.losses == {}
    assert torch.equal(out.indices % 4, t["indices_pre"])
    assert torch.equal(out.indices // 4, t["indices_post"])
    h = last(t["h_scaled"]).requires_grad_()
    out = quantizer.train()(h)
    close(out.losses["entropy"], t["entropy_loss"], 1e-5, 1e-4)
    close(out.losses["commitment"], t["commitment"], 1e-5, 1e-4)
    straight = (out.quantized * last(t["cotangent"])).sum()
    for value, name, atol in [
        (straight, "dh_codes", 1e-6),
        (out.losses["entropy"], "dh_entropy", 3e-4),
        (out.losses["commitment"], "dh_commit", 1e-6),
    ]:
        (gradient,) = torch.autograd.grad(value, h, retain_graph=True)
        close(gradient, last(t[name]), atol, 1e-3)


@pytest.mark.parametrize("case", ["llamagen-vq16-tiny", "llamagen-vq8-tiny"])
def test_vq_of_llamagen(case: str) -> None:
    t, weights = golden(case)
    table = weights["quantize.embedding.weight"]
    config = VQConfig(
        codebook_size=len(table),
        channels=table.shape[1],
        normalize=bool((t["z_q"].norm(dim=1) - 1).abs().max() < 1e-4),
        entropy_weight=0.1 if "train_entropy_loss" in t else 0.0,
    )
    quantizer = VQ(config)
    quantizer.load_state_dict({"codebook": table})
    out = quantizer(last(t["z_before_quant"]))
    assert torch.equal(out.indices, t["indices"])
    close(out.quantized, last(t["z_q"]), 1e-4, 1e-4)
    close(quantizer.embed(out.indices), last(t["z_q"]), 1e-4, 1e-4)
    for ours, theirs, tolerance in [
        ("codebook", "train_vq_loss", 1e-4),
        ("commitment", "train_commit_loss", 1e-4),
        ("entropy", "train_entropy_loss", 1e-3),
    ]:
        if theirs in t and ours in out.losses:
            close(out.losses[ours], t[theirs], tolerance, tolerance)
    assert {"codebook", "commitment"} <= out.losses.keys()


def test_vq_of_emu3() -> None:
    t, weights = golden("emu3-vq-tiny")
    table = weights["quantize.embedding.weight"]
    quantizer = VQ(VQConfig(codebook_size=len(table), channels=table.shape[1])).eval()
    quantizer.load_state_dict({"codebook": table})
    z, codes = t["image_z"], t["image_codes"]
    channel = z.ndim - 3 if z.ndim == 4 else z.shape.index(table.shape[1])
    assert torch.equal(quantizer.assign(z.movedim(channel, -1)).flatten(), codes.flatten())


def test_discriminator_and_its_losses() -> None:
    t, weights = golden("ibq-checkpoint-tiny")
    discriminator = PatchDiscriminator(DiscriminatorConfig(width=4, layers=2))
    prefix = "loss.discriminator."
    state = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    discriminator.load_state_dict(state)
    fake_pixels = t["recon_raw"].clamp(-1, 1)
    close(discriminator.eval()(t["x"]), t["logits_real_eval"], 1e-4, 1e-4)
    real, fake = discriminator.train()(t["x"]), discriminator(fake_pixels)
    close(real, t["logits_real_train"], 1e-4, 1e-4)
    close(fake, t["logits_fake_train"], 1e-4, 1e-4)
    close(discriminator_loss("hinge", real, fake), t["hinge_d_loss"], 1e-5, 1e-4)
    close(generator_loss("nonsaturating", fake), t["gen_loss_nonsaturating"], 1e-5, 1e-4)
    lecam = LeCam()
    penalties = [lecam((1 + s) * real, (2 - 0.5 * s) * fake) for s in range(3)]
    close(torch.stack(penalties), t["lecam_reg_3_updates"], 1e-6, 1e-4)
    close(torch.tensor([lecam.real, lecam.fake]), t["lecam_ema_final"], 1e-7, 1e-4)
