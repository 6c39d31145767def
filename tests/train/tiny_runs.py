"""Tokenizers and generators of tiny sizes: recipes, runs, and what a run left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mmgen.models.backbone import BackboneConfig
from mmgen.models.unified import Unit
from mmgen.pipeline import SamplingDefaults
from mmgen.tokenizers_vis.conv import ConvTokenizerConfig
from mmgen.tokenizers_vis.discriminator import DiscriminatorConfig
from mmgen.tokenizers_vis.losses import TokenizerLossConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig, VQConfig
from mmgen.train.datasets import DataConfig
from mmgen.train.generator_task import GeneratorRecipe, GeneratorTask, TextConfig
from mmgen.train.loop import train
from mmgen.train.recipe import TrainConfig
from mmgen.train.tokenizer_task import TokenizerRecipe, TokenizerTask

SIZE, COUNT = 16, 10
COLOURS = ("red", "green", "blue", "white", "black")
FSQ = FSQConfig(levels=(4, 4, 3))
VQ = VQConfig(codebook_size=64, channels=4, revive_after=2)


def sizes(quantizer: Any) -> ConvTokenizerConfig:
    return ConvTokenizerConfig(
        quantizer, 4, (8,), 1, 1, attention_levels=(), z_channels=8, norm_groups=4
    )


def schedule(out: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "steps": 6,
        "out": str(out),
        "batch_size": 4,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "cooldown": "constant",  # or the number of steps would shape the first ones
        "log_every": 1,
        "eval_every": 3,
        "preview_every": 6,
        "save_every": 3,
        "threads": 1,
    }
    return TrainConfig(**values | changes)


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}/{name}": tensor
        for path in sorted(folder.rglob("model.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(one: Path, two: Path) -> bool:
    a, b = tensors_of(one), tensors_of(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def tokenizer_recipe(pictures: Path, out: Path, steps: int = 6, **changes: Any) -> TokenizerRecipe:
    values: dict[str, Any] = {
        "train": schedule(out, steps=steps),
        "data": DataConfig(str(pictures), str(pictures), SIZE),
        "model": sizes(VQ),
        "loss": TokenizerLossConfig(
            l1=1.0, l2=0.0, gradient=0.0, perceptual=0.0, adversarial=0.1, adversarial_start=2
        ),
        "discriminator": DiscriminatorConfig(width=4, layers=1, norm="none"),
        "usage_window": 2,
    }
    return TokenizerRecipe(**values | changes)


def run_tokenizer(recipe: TokenizerRecipe) -> Path:
    return train(TokenizerTask(recipe), recipe.train, recipe=recipe)


UNITS = (
    Unit("neighbor", "neighbor", "neighbors", 2.0),
    Unit("token", "raster", "shift"),
    Unit("any", "random", "self"),
)


def generator_recipe(
    pictures: Path, vision: Path, out: Path, steps: int = 6, **changes: Any
) -> GeneratorRecipe:
    values: dict[str, Any] = {
        "train": schedule(out, steps=steps),
        "data": DataConfig(str(pictures), str(pictures), SIZE),
        "tokenizer": str(vision),
        "name": "tiny",
        "text": TextConfig(vocab_size=300, max_length=10),
        "backbone": BackboneConfig(width=32, depth=2, heads=2, dropout=0.1),
        "logit_width": 16,
        "units": UNITS,
        "caption_share": 0.3,
        "preview_prompts": ("a red thing", "a blue thing"),
        "sampling": SamplingDefaults(guidance_scale=1.5),
        "licence": "CC0",
    }
    return GeneratorRecipe(**values | changes)


def run_generator(recipe: GeneratorRecipe) -> Path:
    return train(GeneratorTask(recipe), recipe.train, recipe=recipe)
