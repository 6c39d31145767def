"""KL-16 of MAR and xAR."""

from __future__ import annotations

import torch
from case import Case
from computing import by_output
from torch import Tensor

from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.tokenizers_vis.protocol import Codes
from mmgen.tokenizers_vis.quantizers import KL


def first(x: Tensor) -> Tensor:
    """(..., C) to channels first."""
    return x.movedim(-1, 1)


@torch.no_grad()
def outputs(case: Case) -> dict[str, Tensor]:
    scale = case.settings["latent_scale"]
    network: ConvTokenizer = case.only(case.imported_with(latent_scale=scale))
    assert isinstance(network.quantizer, KL)
    image = case.inputs["image"]
    noise = case.inputs["posterior_noise"].permute(0, 2, 3, 1).unsqueeze(1)  # (B, 1, h, w, C)
    moments = network.features(image)
    mean, std = network.quantizer.posterior(moments)
    sample, mode = network.encode(image, noise), network.encode(image)
    assert sample.latents is not None
    return {
        "moments": first(moments),
        "mean": first(mean),
        "std": first(std),
        "latent_scaled": first(sample.latents[:, 0]),
        "decoded": network.decode(Codes(indices=None, latents=sample.latents)),
        "decoded_mode": network.decode(mode),
    }


NAMES = ("moments", "mean", "std", "latent_scaled", "decoded", "decoded_mode")
COMPARE = {("kl16", "tokenizer"): by_output({outputs: NAMES})}
