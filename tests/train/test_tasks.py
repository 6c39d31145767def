"""The two tasks through the real loop on a tiny data set: what they leave, resume, refuse."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mmgen.errors import CheckpointError, ConfigError, DataError, UserError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.unified import Unit
from mmgen.pipeline import Pipeline, SamplingDefaults
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.discriminator import DiscriminatorConfig
from mmgen.tokenizers_vis.losses import TokenizerLossConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig, VQConfig
from mmgen.train import generator_task
from mmgen.train.datasets import DataConfig
from mmgen.train.generator_task import GeneratorRecipe, GeneratorTask, TextConfig
from mmgen.train.loop import train
from mmgen.train.recipe import TrainConfig
from mmgen.train.tokenizer_task import TokenizerRecipe, TokenizerTask
from mmgen.train.tokens import TokenDataset, cached_tokens

SIZE, COUNT = 16, 10
COLOURS = ("red", "green", "blue", "white", "black")
FSQ = FSQConfig(levels=(4, 4, 3))
VQ = VQConfig(codebook_size=64, channels=4, revive_after=2)


def sizes(quantizer: Any) -> ConvTokenizerConfig:
    return ConvTokenizerConfig(
        quantizer, 4, (8,), 1, 1, attention_levels=(), z_channels=8, norm_groups=4
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    for i in range(COUNT):
        picture = Image.new("RGB", (SIZE, SIZE), COLOURS[i % 5])
        picture.paste("grey", (i, 2, i + 4, 9))
        picture.save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a {COLOURS[i % 5]} thing number {i}", encoding="utf-8")
    return folder


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


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One colour, so that nearly all codes die."""
    folder = tmp_path_factory.mktemp("data") / "plain"
    folder.mkdir()
    for i in range(COUNT):
        Image.new("RGB", (SIZE, SIZE), "red").save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("red")
    return folder


@pytest.fixture(scope="module")
def chipped(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures, one of them broken."""
    folder = tmp_path_factory.mktemp("data") / "chipped"
    shutil.copytree(pictures, folder)
    (folder / "3.png").write_text("no picture")
    return folder


# -- the visual tokenizer ----------------------------------------------------------------------


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


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of six steps without a break."""
    out = tmp_path_factory.mktemp("runs") / "tokenizer"
    run_tokenizer(tokenizer_recipe(pictures, out))
    return out


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


# -- the generator -----------------------------------------------------------------------------


UNITS = (
    Unit("neighbor", "neighbor", "neighbors", 2.0),
    Unit("token", "raster", "shift"),
    Unit("any", "random", "self"),
)


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = ConvTokenizer(sizes(FSQ))
    with torch.no_grad():
        model.to_code.weight *= 20  # else all pictures have the same codes
    folder = tmp_path_factory.mktemp("vision")
    model.save_pretrained(folder)
    return folder


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


@pytest.fixture(scope="module")
def generated(pictures: Path, vision: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of six steps without a break."""
    out = tmp_path_factory.mktemp("runs") / "generator"
    run_generator(generator_recipe(pictures, vision, out))
    return out


def test_a_generator_run_leaves_a_pipeline(generated: Path, vision: Path) -> None:
    pipe = Pipeline.from_pretrained(generated / "final")
    assert pipe.info.name == "tiny" and pipe.info.image_size == SIZE
    assert pipe.info.licence == "CC0" and pipe.info.sampling.guidance_scale == 1.5
    assert pipe.info.training == {"steps": 6, "batch_size": 4}
    assert pipe.vision.fingerprint == ConvTokenizer.from_pretrained(vision).fingerprint
    vectors = pipe.vision.embed(torch.arange(48))
    assert torch.allclose(pipe.transformer.code_vectors, vectors / vectors.std())
    assert pipe.transformer.config.units == UNITS
    picture = pipe("a red thing number 3", seed=1).images[0]
    assert picture.size == (SIZE, SIZE)
    assert isinstance(pipe.caption(picture)[0], str)


def test_a_generator_run_tells_its_losses(generated: Path) -> None:
    lines = log_of(generated)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    kinds = Counter(name for line in lines for name in line["losses"])
    assert sum(kinds.values()) == 6 and set(kinds) <= {"image", "caption"} and kinds["image"]
    for line in lines:
        told = {f"loss_{unit.name}" for unit in UNITS} & set(line["metrics"])
        assert len(told) == ("image" in line["losses"])
    scores = lines[-1]["eval"]
    assert set(scores) == {"val_neighbor", "val_token", "val_any", "val_caption"}
    assert all(0 < value < 10 for value in scores.values())
    with Image.open(generated / "previews" / "step-6.png") as sheet:
        assert sheet.width > 2 * 2 * SIZE and sheet.height > 3 * 2 * SIZE


def test_a_resumed_generator_run_ends_with_the_same_bits(
    pictures: Path, vision: Path, generated: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for steps in (3, 6):
        final = run_generator(generator_recipe(pictures, vision, out, steps))
    assert same(final, generated / "final")
    for name in ("text/tokenizer.json", "pipeline.json"):
        assert (final / name).read_bytes() == (generated / "final" / name).read_bytes()
    changed = generator_recipe(pictures, vision, tmp_path / "seed", 3)
    changed = replace(changed, train=replace(changed.train, seed=1))
    run_generator(changed)
    assert not same(tmp_path / "seed" / "final", final)


def test_the_loss_falls(pictures: Path, vision: Path, tmp_path: Path) -> None:
    recipe = generator_recipe(pictures, vision, tmp_path, 30, caption_share=0.0)
    recipe = replace(recipe, train=replace(recipe.train, eval_every=0, preview_every=0))
    run_generator(recipe)
    losses = [line["losses"]["image"] for line in log_of(tmp_path)]
    assert 0 < np.mean(losses[-6:]) < np.mean(losses[:3]) - 0.5


def test_a_tokenizer_with_a_learned_codebook_serves_too(
    pictures: Path, trained: Path, tmp_path: Path
) -> None:
    recipe = generator_recipe(pictures, trained / "final", tmp_path, 3, caption_share=0.0)
    final = run_generator(recipe)
    model = Pipeline.from_pretrained(final).transformer
    codebook = ConvTokenizer.from_pretrained(trained / "final").quantizer.codebook
    assert torch.allclose(model.code_vectors, codebook / codebook.std())  # not trained on


def test_units_and_directions_are_drawn_by_weight_from_the_step(
    pictures: Path, vision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = GeneratorTask(generator_recipe(pictures, vision, tmp_path))
    seen: list[tuple[str, int, bool]] = []

    def loss(batch, unit, shuffle, *, captioning):  # type: ignore[no-untyped-def]
        seen.append((unit.name, shuffle, captioning))
        return torch.zeros(())

    monkeypatch.setattr(task, "_loss", loss)
    for step in range(2000):
        task.losses({}, step, "model")
    once = list(seen)
    for step in (0, 7, 1999):  # the same in every process and accumulated batch
        task.losses({}, step, "model")
    assert seen[2000:] == [once[0], once[7], once[1999]]
    names = Counter(name for name, _, captioning in once if not captioning)
    share = {name: count / names.total() for name, count in names.items()}
    assert abs(share["neighbor"] - 0.5) < 0.05
    assert abs(share["token"] - 0.25) < 0.05 and abs(share["any"] - 0.25) < 0.05
    assert abs(sum(captioning for *_, captioning in once) / 2000 - 0.3) < 0.04
    assert len({shuffle for _, shuffle, _ in once}) > 1990  # a fresh permutation each time


def test_training_starts_from_a_pipeline(
    plain: Path, vision: Path, generated: Path, tmp_path: Path
) -> None:
    init = str(generated / "final")
    recipe = generator_recipe(plain, vision, tmp_path, init=init)
    task = GeneratorTask(recipe)  # on other captions, whose own text tokenizer would differ
    pipe = Pipeline.from_pretrained(init)
    assert task.model.fingerprint == pipe.transformer.fingerprint and task.model.training
    assert task.text.fingerprint == pipe.text.fingerprint
    lighter = tuple(replace(unit, weight=3.0) for unit in recipe.units)
    looser = replace(recipe.backbone, dropout=0.1)
    changed = GeneratorTask(replace(recipe, units=lighter, backbone=looser)).model
    assert changed.config.units == lighter and changed.config.backbone.dropout == 0.1
    for a, b in zip(changed.parameters(), pipe.transformer.parameters()):
        assert torch.equal(a, b)
    wider = replace(recipe, backbone=BackboneConfig(width=64, depth=2, heads=2))
    with pytest.raises(CheckpointError, match="has other sizes or units"):
        GeneratorTask(wider)
    with pytest.raises(CheckpointError, match="has other sizes or units"):
        GeneratorTask(replace(recipe, units=UNITS[:2]))
    torch.manual_seed(5)
    ConvTokenizer(sizes(FSQ)).save_pretrained(tmp_path / "other")
    other = replace(recipe, tokenizer=str(tmp_path / "other"), tokens=str(tmp_path / "new"))
    with pytest.raises(CheckpointError, match=r"codes of another visual tokenizer; .*vision"):
        GeneratorTask(other)
    assert not (Path(init) / "tokens").exists()


def test_tokens_are_encoded_once_for_several_runs(
    pictures: Path, vision: Path, generated: Path, tmp_path: Path
) -> None:
    shared = generated / "tokens"
    before = sorted((path, path.stat().st_mtime_ns) for path in shared.rglob("*"))
    run_generator(generator_recipe(pictures, vision, tmp_path / "run", 1, tokens=str(shared)))
    assert sorted((path, path.stat().st_mtime_ns) for path in shared.rglob("*")) == before
    assert not (tmp_path / "run" / "tokens").exists()


def test_a_run_of_another_text_tokenizer_is_not_continued(
    pictures: Path, vision: Path, generated: Path, tmp_path: Path
) -> None:
    recipe = generator_recipe(pictures, vision, tmp_path, tokens=str(generated / "tokens"))
    task = GeneratorTask(recipe)
    task.load_state(task.state())
    with pytest.raises(CheckpointError, match="text tokenizer came out differently"):
        task.load_state({})
    saved = task.state()
    saved["text"][0] ^= 1
    with pytest.raises(CheckpointError, match="text tokenizer came out differently"):
        task.load_state(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"caption_share": 1.0}, "caption_share must be in"),
        ({"caption_share": -0.1}, "caption_share must be in"),
        ({"units": ()}, "units needs at least one entry"),
        ({"units": (replace(UNITS[0], weight=0.0),)}, "each with a weight above 0"),
        ({"units": (UNITS[0], UNITS[0])}, "units needs"),
        ({"units": (Unit("x", "raster", "neighbors"),)}, "goes with order 'neighbor'"),
        ({"units": (Unit("x", "scale:1,2,4", "self"),)}, "draws continuous latents"),
        ({"units": (Unit("x", "rasta", "shift"),)}, "Unknown order 'rasta'"),
        ({"backbone": BackboneConfig(width=32, heads=4)}, "Heads of 8 channels"),
    ],
)
def test_generator_recipes_that_make_no_sense(
    pictures: Path, vision: Path, generated: Path, tmp_path: Path, changes: Any, message: str
) -> None:
    tokens = str(generated / "tokens")
    with pytest.raises(ConfigError, match=message):
        run_generator(generator_recipe(pictures, vision, tmp_path, 1, tokens=tokens, **changes))


def test_texts_need_room_for_a_word() -> None:
    with pytest.raises(ConfigError, match="max_length must be at least 3"):
        TextConfig(max_length=2)


def test_one_process_of_a_machine_encodes_and_the_others_wait(
    pictures: Path, vision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that encode into one folder would fail over each other's files."""
    seen: list[str] = []

    class Turns:
        device = torch.device("cpu")

        @contextmanager
        def local_main_process_first(self) -> Iterator[None]:
            seen.append("turn")
            yield
            seen.append("over")

    def encode(*words: Any, **more: Any) -> TokenDataset:
        seen.append(words[2].name)
        return cached_tokens(*words, **more)

    monkeypatch.setattr(generator_task, "make_accelerator", lambda config: Turns())
    monkeypatch.setattr(generator_task, "cached_tokens", encode)
    GeneratorTask(generator_recipe(pictures, vision, tmp_path))
    assert seen == ["turn", "train", "over", "turn", "val", "over"]


def test_a_batch_of_pictures_goes_to_the_device_that_the_loop_asks_for() -> None:
    from accelerate.utils import send_to_device

    from mmgen.data.dataset import Batch

    batch = Batch(torch.zeros(2, 3, 4, 4), ["a", "b"], ["1", "2"])
    moved = send_to_device(batch, torch.device("meta"))
    assert moved.pixels.device.type == "meta" and moved.captions == ["a", "b"]
