"""Pipelines of conditional weights with random values and tiny sizes: classes, captions, clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_pipeline import SIZE, tiny_pipeline
from torch import Tensor, nn

from mmgen.models.backbone import BackboneConfig
from mmgen.models.conditional import ConditionalConfig, ConditionalModel, Tap
from mmgen.models.conditions import ClassConfig, FeatureConfig
from mmgen.models.text_features import TextEncoder
from mmgen.models.units import Unit
from mmgen.pipeline import FORMAT, Pipeline, PipelineInfo
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.tokenizers_vis.protocol import Codes

CHANNELS, WORDS, CLASSES = 8, 6, 5
VOCABULARY = ("<pad>", "</s>", "<unk>", "a", "red", "green", "apple", "square")


def conditional_pipeline(
    captioned: bool = False, grid: tuple[int, int, int] = (1, 4, 4), text: Any = None
) -> Pipeline:
    """A pipeline of 16x16 pictures, or clips, the same one every time."""
    vision: Any = tiny_pipeline().vision
    torch.manual_seed(1)
    directions = ("x", "y", "t") if grid[0] > 1 else ("x", "y")
    condition: Any = ClassConfig(classes=CLASSES)
    if captioned:
        condition = FeatureConfig(channels=CHANNELS, rows=WORDS)
    transformer = ConditionalModel(
        ConditionalConfig(
            backbone=BackboneConfig(width=32, depth=4, heads=2),
            condition=condition,
            codebook_size=48,
            grid=grid,
            units=(Unit("neighbor", "neighbor", "neighbors"),),
            taps=tuple(Tap(name, 2 + i) for i, name in enumerate(directions)),
            positions="yx",
            silent_condition=True,
        )
    )
    with torch.no_grad():  # else every code is as likely as the next one
        for parameter in transformer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    sampling = SamplingDefaults("neighbor", guidance_scale=2.0)
    info = PipelineInfo(FORMAT, "tiny", SIZE, sampling, licence="CC0")
    return Pipeline(text, Clips(vision) if grid[0] > 1 else vision, transformer, info)


class Clips(nn.Module):
    """A tokenizer of clips that decodes frame by frame."""

    codebook_size = 48

    def __init__(self, pictures: Any) -> None:
        super().__init__()
        self.pictures = pictures

    def decode(self, codes: Codes) -> Tensor:
        """(B, 3, T, H, W)."""
        assert codes.indices is not None
        frames = [self.pictures.decode(Codes(each[:, None])) for each in codes.indices.unbind(1)]
        return torch.stack(frames, 2)

    def hash_of_weights(self) -> str:
        """Of the pictures' tokenizer."""
        return str(self.pictures.hash_of_weights())


def save_encoder(folder: Path) -> Path:
    """A T5 encoder with random weights and a tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    sizes = {"d_model": CHANNELS, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    encoder = T5EncoderModel(T5Config(vocab_size=len(words), **sizes))
    fast.save_pretrained(folder)
    encoder.save_pretrained(folder)
    return folder


def load_encoder(folder: Path) -> TextEncoder:
    """The encoder of `save_encoder`, for captions of `WORDS` words."""
    encoder = TextEncoder.from_pretrained(folder, torch.float32)
    encoder.length = WORDS
    return encoder
