"""Tiny unified transformers that draw latents, random weights everywhere, and their captions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmgen.models.backbone import BackboneConfig
from mmgen.models.schedule import Grid
from mmgen.models.text import BOS, EOS, PAD, TextTokenizer
from mmgen.models.unified import UnifiedConfig, UnifiedModel, Unit
from mmgen.pipeline import FORMAT, Pipeline, PipelineInfo, SamplingDefaults
from tests.test_flow_pipeline import latent_tokenizer
from tests.tiny_pipeline import SIZE, captions

VOCAB, CHANNELS = 50, 3
ADALN = BackboneConfig(width=32, depth=2, heads=2, adaln=True)
#: Every X of the paper, and one that decodes in any order.
ORDERS = ("raster", "cell:2", "subsample:2", "scale:1,2,4", "whole", "random")
#: The same on clips.
CLIP_ORDERS = ("raster", "cell:2", "block:2x2x2", "subsample:2", "frame:1", "scale:1,2,4", "whole")


def unit_of(order: str) -> Unit:
    """A unit of latents, named by the first word of its order."""
    return Unit(order.split(":", maxsplit=1)[0], order, "self", continuous=True)


def latent_config(
    grid: Grid = (1, 4, 4), orders: tuple[str, ...] = ORDERS, **changes: Any
) -> UnifiedConfig:
    """Sizes of a tiny model."""
    sizes: dict[str, Any] = {"backbone": ADALN, "text_vocab": VOCAB, "max_text": 12}
    sizes |= {"codebook_size": 0, "code_channels": CHANNELS, "grid": grid}
    return UnifiedConfig(**sizes | {"units": tuple(map(unit_of, orders))} | changes)


def latent_model(*words: Any, **changes: Any) -> UnifiedModel:
    """The model of `latent_config`; what begins at zero speaks too."""
    torch.manual_seed(0)
    model = UnifiedModel(latent_config(*words, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def texts(lengths: list[int], end: bool = False, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Ids `<bos> ... (<eos>)` of those lengths, padded on the right, and their mask."""
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(4, VOCAB, valid.shape, generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = BOS
    if end:
        ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = EOS
    return ids.where(valid, PAD), valid


def latents_of(grid: Grid, batch: int, seed: int = 2) -> Tensor:
    """Latents (B, t, h, w, C)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *grid, CHANNELS, generator=generator)


def latent_pipeline(orders: tuple[str, ...] = ORDERS, **sampling: Any) -> Pipeline:
    """A pipeline of 16x16 pictures in 4x4 latents, from text and to it."""
    text = TextTokenizer.train(captions(), vocab_size=300)
    model = latent_model((1, 4, 4), orders, text_vocab=text.vocab_size)
    usual = SamplingDefaults(**{"guidance_scale": 2.0, "solver": "euler", "steps": 3, **sampling})
    info = PipelineInfo(format=FORMAT, name="latents", image_size=SIZE, sampling=usual)
    torch.manual_seed(0)
    return Pipeline(text, latent_tokenizer(CHANNELS), model, info)
