"""A whole pipeline with random weights and tiny sizes, and pictures to train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmgen.models.backbone import BackboneConfig
from mmgen.models.text import TextTokenizer
from mmgen.models.unified import UnifiedConfig, UnifiedModel, Unit
from mmgen.pipeline import FORMAT, Pipeline, PipelineInfo
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig

SIZE = 16  # pixels a side: 4x4 codes
COLOURS = ("red", "green", "blue", "white", "black", "yellow")
UNITS = (
    Unit("neighbor", "neighbor", "neighbors"),
    Unit("block", "row:1", "shift"),
    Unit("token", "raster", "shift"),
    Unit("any", "random", "self"),
)


def tiny_pipeline(units: tuple[Unit, ...] = UNITS, **info: Any) -> Pipeline:
    """A pipeline of 16x16 pictures, the same one every time."""
    torch.manual_seed(0)
    vision = ConvTokenizer(
        ConvTokenizerConfig(
            quantizer=FSQConfig(levels=(4, 4, 3)),
            patch_size=4,
            widths=(8,),
            res_blocks=1,
            decoder_res_blocks=1,
            attention_levels=(),
            middle_attention=False,
            z_channels=8,
            norm_groups=4,
        )
    )
    text = TextTokenizer.train(captions(), vocab_size=300)
    transformer = UnifiedModel(
        UnifiedConfig(
            backbone=BackboneConfig(width=64, depth=2, heads=4),
            text_vocab=text.vocab_size,
            max_text=12,
            codebook_size=48,
            code_channels=3,
            grid=(1, 4, 4),
            units=units,
            logit_width=32,
        )
    )
    transformer.set_code_vectors(vision.embed(torch.arange(48)))
    about = PipelineInfo(format=FORMAT, name="tiny", image_size=SIZE, licence="CC0")
    return Pipeline(text, vision, transformer, replace(about, **info))


def captions() -> list[str]:
    """One for each picture of `write_pictures`."""
    return [f"a {colour} {shape}" for shape in ("square", "apple") for colour in COLOURS]


def write_pictures(folder: Path) -> Path:
    """A folder data set of twelve pictures."""
    folder.mkdir(parents=True)
    for i, caption in enumerate(captions()):
        picture = Image.new("RGB", (SIZE, SIZE), COLOURS[i % len(COLOURS)])
        picture.paste("grey", (i, 2, i + 4, 9))
        picture.save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(caption, encoding="utf-8")
    return folder
