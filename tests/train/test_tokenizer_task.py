"""The tokenizer task through the real loop on a tiny data set: what it leaves, resumes, refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import (
    COUNT,
    FSQ,
    SIZE,
    VQ,
    generator_recipe,
    log_of,
    run_generator,
    run_tokenizer,
    same,
    schedule,
    sizes,
    tokenizer_recipe,
)

from mmgen.errors import ConfigError, DataError, UserError
from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.tokenizers_vis.losses import TokenizerLossConfig
from mmgen.train.datasets import DataConfig
from mmgen.train.launch import make_accelerator
from mmgen.train.loop import train
from mmgen.train.state import TrainState
from mmgen.train.step import train_step
from mmgen.train.tokenizer_task import TokenizerTask


def test_a_tokenizer_run_leaves_a_tokenizer_and_its_numbers(pictures: Path, trained: Path) -> None:
    model = ConvTokenizer.from_pretrained(trained / "final")
    assert model.config == sizes(VQ)
    assert sorted(path.name for path in (trained / "final").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    lines = log_of(trained)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        late = {"adversarial", "discriminator"} if line["step"] > 2 else set()
        assert set(line["losses"]) == {"l1", "commitment", "codebook"} | late
        assert {"code_use", "perplexity", "dead_codes", "revived"} <= set(line["metrics"])
    assert [line["step"] for line in lines if "eval" in line] == [3, 6]
    assert 5 < lines[-1]["eval"]["psnr"] < 60 and -1 < lines[-1]["eval"]["ssim"] < 1
    with Image.open(trained / "previews" / "step-6.png") as sheet:
        assert sheet.width > COUNT * 2 * SIZE and sheet.height > 2 * 2 * SIZE


def test_pictures_that_could_not_be_used_are_named_at_the_end(
    chipped: Path, vision: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataConfig(str(chipped), image_size=SIZE, limit_bad=0.2)
    loss = TokenizerLossConfig(l1=1.0, perceptual=0.0)
    recipe = tokenizer_recipe(chipped, tmp_path / "tokenizer", data=data, loss=loss)
    train(TokenizerTask(recipe), recipe.train, recipe=recipe)
    said = r"Skipped 1 bad of 10 samples in .*chipped: '3\.png' \(it is not a picture.*\)\."
    assert re.search(said, capsys.readouterr().out)
    second = generator_recipe(chipped, vision, tmp_path / "generator", 1, data=data)
    run_generator(second)
    assert re.search(said, capsys.readouterr().out)
    strict = replace(recipe, data=replace(data, limit_bad=0.0), train=schedule(tmp_path / "third"))
    with pytest.raises(DataError, match="more than 0%"):
        train(TokenizerTask(strict), strict.train, recipe=strict)
    with pytest.raises(ConfigError, match=r"data\.limit_bad must be in \[0, 1\], not 2"):
        DataConfig(str(chipped), limit_bad=2)


def test_dead_codes_are_revived(plain: Path, tmp_path: Path) -> None:
    run_tokenizer(tokenizer_recipe(plain, tmp_path, 4))
    revived = [line["metrics"]["revived"] for line in log_of(tmp_path)]
    assert revived[0] == 0 and max(revived) > 32  # after two batches without use
    model = ConvTokenizer.from_pretrained(tmp_path / "final")
    assert len(model.quantizer.codebook.unique(dim=0)) > 60  # no two codes were given one vector


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_revived_codes_have_neither_moments_nor_an_average(
    plain: Path, tmp_path: Path, optimizer: Any
) -> None:
    train_config = schedule(tmp_path, optimizer=optimizer)
    task = TokenizerTask(tokenizer_recipe(plain, tmp_path, train=train_config))
    state = TrainState(task, train_config, make_accelerator(train_config))
    codebook = task.model.quantizer.codebook
    assert isinstance(codebook, torch.nn.Parameter)
    train_step(state, train_config)
    moments = state.optimizers["model"].state[codebook]
    of_codes = [m for m in moments.values() if torch.is_tensor(m) and m.shape == codebook.shape]
    for moment in of_codes:
        moment.fill_(1.0)  # as if every code had been used long ago
    state.ema.parameters["quantizer.codebook"].fill_(9.0)
    train_step(state, train_config)
    rows = task.renewed["quantizer.codebook"]
    kept = torch.ones(len(codebook), dtype=torch.bool)
    kept[rows] = False
    assert 32 < len(rows) < len(codebook) and len(of_codes) == 2
    for moment in of_codes:
        assert not moment[rows].any() and moment[kept].all()
    average = state.ema.parameters["quantizer.codebook"]
    assert torch.equal(average[rows], codebook[rows])
    assert not torch.equal(average[kept], codebook[kept])


def test_a_codebook_that_collapses_is_told(
    pictures: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = {"steps": 4, "model": sizes(replace(VQ, revive_after=0))}
    run_tokenizer(tokenizer_recipe(plain, tmp_path / "collapsed", **calm))
    told = capsys.readouterr().out
    assert told.count("Warning: Only ") == 1  # at the end of a window, not at every step
    assert "of 64 codes were used in the last 2 batches" in told
    run_tokenizer(tokenizer_recipe(pictures, tmp_path / "healthy", **calm))
    assert "Warning" not in capsys.readouterr().out


def test_codes_start_at_encoder_outputs(pictures: Path, tmp_path: Path) -> None:
    task = TokenizerTask(tokenizer_recipe(pictures, tmp_path))
    batch = next(task.batches(0, 0))
    features = task.model.features(batch.pixels).detach().reshape(-1, 4)
    task.losses(batch, 0, "model")
    codes = task.model.quantizer.codebook.detach()  # type: ignore[union-attr]
    assert bool((codes[:, None] - features).abs().sum(-1).amin(1).max() < 1e-6)


def test_a_resumed_tokenizer_run_ends_with_the_same_bits(
    pictures: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for steps in (3, 6):
        run_tokenizer(tokenizer_recipe(pictures, out, steps))
    assert same(out / "final", trained / "final")
    keep = ("step", "losses", "metrics", "eval")
    lines = [[{k: line.get(k) for k in keep} for line in log_of(o)] for o in (out, trained)]
    assert lines[0] == lines[1]
    run_tokenizer(
        tokenizer_recipe(pictures, tmp_path / "seed", train=schedule(tmp_path / "seed", seed=1))
    )
    assert not same(tmp_path / "seed" / "final", trained / "final")


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_frozen_codes_stay_while_the_decoder_learns(
    pictures: Path, tmp_path: Path, update: Any
) -> None:
    model = sizes(replace(VQ, update=update))
    first = run_tokenizer(tokenizer_recipe(pictures, tmp_path / "first", 3, model=model))
    idle = ConvTokenizer.from_pretrained(first)
    idle.quantizer.idle.fill_(9)  # due to be revived, were they not frozen
    idle.save_pretrained(first)
    second = run_tokenizer(
        tokenizer_recipe(
            pictures, tmp_path / "second", 5, model=model, init=str(first), freeze_codes=True
        )
    )
    before, after = ConvTokenizer.from_pretrained(first), ConvTokenizer.from_pretrained(second)
    assert before.fingerprint == after.fingerprint
    old, new = before.state_dict(), after.state_dict()
    for name in old:
        learns = name.startswith(("decoder.", "from_code."))
        assert torch.equal(old[name], new[name]) != learns, name
    assert not {"commitment", "codebook"} & set(log_of(tmp_path / "second")[0]["losses"])


def test_training_goes_on_from_a_tokenizer(pictures: Path, trained: Path, tmp_path: Path) -> None:
    init = str(trained / "final")
    task = TokenizerTask(tokenizer_recipe(pictures, tmp_path, init=init))
    assert task.model.fingerprint == ConvTokenizer.from_pretrained(init).fingerprint
    task.losses(next(task.batches(0, 0)), 0, "model")  # the first step draws no new codes
    assert task.model.fingerprint == ConvTokenizer.from_pretrained(init).fingerprint
    with pytest.raises(ConfigError, match="has other sizes than `model`"):
        TokenizerTask(tokenizer_recipe(pictures, tmp_path, init=init, model=sizes(FSQ)))


def test_tokenizer_recipes_that_make_no_sense(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="freeze_codes needs init"):
        tokenizer_recipe(pictures, tmp_path, freeze_codes=True)
    with pytest.raises(ConfigError, match="usage_window must be at least 1"):
        tokenizer_recipe(pictures, tmp_path, usage_window=0)
    small = DataConfig(str(pictures), str(pictures), 8)
    with pytest.raises(ConfigError, match="SSIM, which needs pictures of 11 pixels"):
        tokenizer_recipe(pictures, tmp_path, data=small)
    odd = DataConfig(str(pictures), None, 18)
    with pytest.raises(UserError, match="18x18 does not fit this tokenizer"):
        run_tokenizer(tokenizer_recipe(pictures, tmp_path, data=odd))


def test_a_batch_of_pictures_goes_to_the_device_that_the_loop_asks_for() -> None:
    from accelerate.utils import send_to_device

    from mmgen.data.dataset import Batch

    batch = Batch(torch.zeros(2, 3, 4, 4), ["a", "b"], ["1", "2"])
    moved = send_to_device(batch, torch.device("meta"))
    assert moved.pixels.device.type == "meta" and moved.captions == ["a", "b"]
