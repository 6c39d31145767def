"""An experiment of tiny sizes over the small emoji set; run as a program it runs with `Small`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_emoji import Small
from tiny_pipeline import SIZE, tiny_pipeline

from mmgen.sample.clip_files import save_clip
from mmgen.tokenizers_vis.causal_video import CausalVideoTokenizer, CausalVideoTokenizerConfig
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig, KLConfig

LATENTS = ConvTokenizerConfig(
    KLConfig(channels=3), 4, (8,), 1, 1, (), z_channels=8, norm_groups=4, middle_attention=False
)
FRAMES = 5  # of a clip: 3x4x4 codes
VIDEO = CausalVideoTokenizerConfig(
    FSQConfig(levels=(4, 4, 3)), (4, 4, 4), (1, 2), res_blocks=1, norm_groups=2
)


def write_tokenizers(folder: Path) -> None:
    """`codes` and `latents`, of 4x4 places, and `video`."""
    tiny_pipeline().vision.save_pretrained(folder / "codes")
    torch.manual_seed(0)
    ConvTokenizer(LATENTS).save_pretrained(folder / "latents")
    vision = CausalVideoTokenizer(VIDEO)
    with torch.no_grad():
        vision.encoder.conv_out.weight *= 20  # else all clips have the same codes
    vision.save_pretrained(folder / "video")


def write_clips(folder: Path, count: int, shade: int) -> Path:
    """Clips of seven frames with captions: a ball that falls."""
    folder.mkdir()
    for i in range(count):
        frames = [Image.new("RGB", (SIZE, SIZE), (30 * i, shade, 160)) for _ in range(7)]
        for k, frame in enumerate(frames):
            frame.paste("white", (i, 2 * k, i + 4, 2 * k + 4))
        save_clip(frames, folder / f"{i}.gif", {})
        (folder / f"{i}.txt").write_text(f"ball number {i}, falling", encoding="utf-8")
    return folder


def tiny_recipe(folder: Path, data: Path, tokenizer: str) -> dict[str, Any]:
    """A generator that trains for two steps."""
    return {
        "task": "generator",
        "tokenizer": str(folder / tokenizer),
        "data": {"train": f"{data}/train-{{0000..0001}}.tar", "image_size": SIZE},
        "text": {"vocab_size": 300, "max_length": 12},
        "backbone": {"width": 32, "depth": 1, "heads": 2, "adaln": tokenizer == "latents"},
        "logit_width": 16,
        "caption_share": 0,
        "preview_prompts": ["a red apple", "a rocket"],
        "units": [{"name": "token", "order": "raster", "prediction": "shift"}],
        "sampling": {"guidance_scale": 1.5, "solver": "euler", "steps": 2},
        "train": {"steps": 2, "out": "elsewhere", "batch_size": 4, "warmup_steps": 1}
        | {"save_every": 1, "preview_every": 0, "threads": 1},
    }


def unit(name: str, order: str, prediction: str, **more: Any) -> list[dict[str, Any]]:
    """The units of a variant."""
    return [{"name": name, "order": order, "prediction": prediction, **more}]


def tiny_experiment(folder: Path, data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Raster, rows, and neighbours over codes."""
    return {
        "recipe": tiny_recipe(folder, data, "codes"),
        "variants": [
            {"name": "raster"},
            {"name": "rows", "change": {"units": unit("row", "row:1", "shift")}},
            {"name": "near", "change": {"units": unit("near", "neighbor", "neighbors")}},
        ],
        "out": str(out),
        "pictures": {"real": str(data), "count": 4, "batch": 4, "speed": [1]},
        **changes,
    }


def written(told: dict[str, Any], file: Path) -> Path:
    """The experiment as a file."""
    file.write_text(yaml.safe_dump(told), encoding="utf-8")
    return file


if __name__ == "__main__":
    from mmgen.cli import main
    from mmgen.evaluation import features

    features.FeatureExtractor = Small  # type: ignore[misc, assignment]
    main()
