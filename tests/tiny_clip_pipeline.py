"""A pipeline with random weights that draws stills and clips, and clips to train on."""

from __future__ import annotations

from typing import Any

import torch

from mmgen.models.backbone import BackboneConfig
from mmgen.models.text import TextTokenizer
from mmgen.models.unified import UnifiedConfig, UnifiedModel, Unit
from mmgen.pipeline import FORMAT, Pipeline, PipelineInfo, SamplingDefaults
from mmgen.tokenizers_vis.causal_video import CausalVideoTokenizer, CausalVideoTokenizerConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig
from tests.tiny_pipeline import captions

SIZE, FRAMES = 8, 5  # pixels a side, frames of a clip: 3x2x2 codes of 2x4x4 pixels
GRID = (3, 2, 2)
UNITS = (
    Unit("frame", "frame:1", "shift"),
    Unit("row", "row:1", "shift"),
    Unit("neighbor", "neighbor", "neighbors"),
    Unit("token", "raster", "shift"),
    Unit("block", "run:2", "shift", start="hybrid"),
    Unit("any", "random", "self"),
)


def tiny_vision() -> CausalVideoTokenizer:
    """48 codes, strides of 2 frames and 4x4 pixels."""
    torch.manual_seed(0)
    sizes = CausalVideoTokenizerConfig(
        FSQConfig(levels=(4, 4, 3)), (4, 4, 4), (1, 2), res_blocks=1, norm_groups=2
    )
    return CausalVideoTokenizer(sizes).eval()


def tiny_model(text_vocab: int = 300, units: tuple[Unit, ...] = UNITS) -> UnifiedModel:
    """Clips of the grid 3x2x2, and stills."""
    torch.manual_seed(0)
    config = UnifiedConfig(
        backbone=BackboneConfig(width=64, depth=2, heads=4),
        text_vocab=text_vocab,
        max_text=12,
        codebook_size=48,
        code_channels=3,
        grid=GRID,
        units=units,
        logit_width=32,
        stills=True,
    )
    return UnifiedModel(config).eval()


def tiny_clips(units: tuple[Unit, ...] = UNITS, **sampling: Any) -> Pipeline:
    """A pipeline of 8x8 stills and of clips of 5 frames, the same one every time."""
    text = TextTokenizer.train(captions(), vocab_size=300)
    vision, transformer = tiny_vision(), tiny_model(text.vocab_size, units)
    transformer.set_code_vectors(vision.embed(torch.arange(48)))
    usual = SamplingDefaults(**{"guidance_scale": 2.0, **sampling})
    info = PipelineInfo(format=FORMAT, name="clips", image_size=SIZE, sampling=usual)
    return Pipeline(text, vision, transformer, info)
