"""The tokenizer task on stills and clips together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_runs import COLOURS, SIZE, log_of, run_tokenizer, same, sizes, tokenizer_recipe

from mmgen.config import from_dict, to_dict
from mmgen.errors import ConfigError
from mmgen.tokenizers_vis.causal_video import CausalVideoTokenizer, CausalVideoTokenizerConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig, VQConfig
from mmgen.train.clip_datasets import ClipDataConfig
from mmgen.train.tokenizer_task import TokenizerRecipe, TokenizerTask

FRAMES = 5
MODEL = CausalVideoTokenizerConfig(
    FSQConfig(levels=(4, 4, 3)),
    widths=(8, 8),
    time_strides=(2,),
    res_blocks=1,
    norm_groups=4,
    patch_size=4,
    z_channels=8,
    edges="constant",
    factorized=True,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares that move to the right."""
    folder = tmp_path_factory.mktemp("clips")
    for i, colour in enumerate(COLOURS):
        frames = []
        for t in range(FRAMES):
            frame = Image.new("RGB", (SIZE, SIZE), "grey")
            frame.paste(colour, (2 * t, i, 2 * t + 4, i + 9))
            frames.append(frame)
        path = folder / f"{i}.webp"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, lossless=True)
        (folder / f"{i}.txt").write_text(f"a {colour} thing that moves", encoding="utf-8")
    return folder


def _recipe(pictures: Path, clips: Path, out: Path, steps: int = 6) -> TokenizerRecipe:
    config = ClipDataConfig(str(clips), str(clips), frames=FRAMES, share=0.4, batch_size=2)
    return tokenizer_recipe(pictures, out, steps, model=MODEL, clips=config)


def test_stills_and_clips_take_turns_and_are_judged_apart(
    pictures: Path, clips: Path, tmp_path: Path
) -> None:
    recipe = _recipe(pictures, clips, tmp_path)
    task = TokenizerTask(recipe)
    shapes = [batch.pixels.shape for batch in task.batches(0, 0)]
    assert sorted(shapes, key=len) == [(4, 3, SIZE, SIZE)] * 2 + [(2, 3, FRAMES, SIZE, SIZE)]
    run_tokenizer(recipe)
    model = CausalVideoTokenizer.from_pretrained(tmp_path / "final")
    assert model.config == MODEL
    scores = log_of(tmp_path)[-1]["eval"]
    assert set(scores) == {"psnr", "ssim", "clip_psnr", "clip_ssim"}
    assert scores["clip_psnr"] != scores["psnr"]
    with Image.open(tmp_path / "previews" / "step-6.png") as sheet:
        assert sheet.height > 6 * 2 * SIZE  # stills and two clips, each above its reconstruction


def test_a_broken_run_goes_on_with_the_same_bits(
    pictures: Path, clips: Path, tmp_path: Path
) -> None:
    run_tokenizer(_recipe(pictures, clips, tmp_path / "whole"))
    run_tokenizer(_recipe(pictures, clips, tmp_path / "broken", 3))
    run_tokenizer(_recipe(pictures, clips, tmp_path / "broken"))
    assert same(tmp_path / "whole" / "final", tmp_path / "broken" / "final")


def test_the_keys_tell_a_tokenizer_of_clips() -> None:
    kind = CausalVideoTokenizerConfig | type(sizes(VQConfig()))
    for config in (MODEL, sizes(VQConfig())):
        recipe = {"model": to_dict(config), "train": {"steps": 1, "out": "x"}}
        found = from_dict(TokenizerRecipe, recipe | {"data": {"train": "x"}}).model
        assert found == config and isinstance(found, kind)
    wrong = to_dict(MODEL) | {"time_stride": [2]}
    with pytest.raises(ConfigError, match=re.escape("'time_stride'; did you mean 'time_strides'")):
        from_dict(
            TokenizerRecipe,
            {"model": wrong, "train": {"steps": 1, "out": "x"}, "data": {"train": "x"}},
        )


def test_clips_need_a_tokenizer_of_clips(pictures: Path, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="time_strides"):
        tokenizer_recipe(pictures, tmp_path, clips=ClipDataConfig(str(clips)))
    for name, value in (("views", 2), ("drop_caption", 0.2)):
        config = ClipDataConfig(str(clips), **{name: value})
        with pytest.raises(ConfigError, match=f"clips.{name} does nothing .* tokenizer"):
            tokenizer_recipe(pictures, tmp_path, model=MODEL, clips=config)


def test_gradients_reach_every_weight(pictures: Path, clips: Path, tmp_path: Path) -> None:
    task = TokenizerTask(_recipe(pictures, clips, tmp_path))
    batch = next(batch for batch in task.batches(0, 0) if batch.pixels.ndim == 5)
    losses = task.losses(batch, 0, "model")
    torch.stack(list(losses.values())).sum().backward()
    silent = [n for n, p in task.model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
