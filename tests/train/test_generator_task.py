"""The generator task through the real loop on a tiny data set: what it leaves, resumes, refuses."""

from __future__ import annotations

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
from tiny_runs import (
    FSQ,
    SIZE,
    UNITS,
    generator_recipe,
    log_of,
    run_generator,
    same,
    sizes,
)

from mmgen.errors import CheckpointError, ConfigError
from mmgen.models.backbone import BackboneConfig, Block
from mmgen.models.unified import Unit
from mmgen.pipeline import Pipeline
from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.train import generator_task
from mmgen.train.generator_task import GeneratorTask, TextConfig
from mmgen.train.tokens import TokenDataset, cached_tokens


@pytest.fixture(scope="module")
def generated(pictures: Path, vision: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of six steps without a break."""
    out = tmp_path_factory.mktemp("runs") / "generator"
    run_generator(generator_recipe(pictures, vision, out))
    return out


def test_compiled_blocks_learn_the_same(
    generated: Path, pictures: Path, vision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = generator_recipe(pictures, vision, tmp_path / "compiled")
    compiled: list[bool | None] = []
    monkeypatch.setattr(Block, "compile", lambda _, dynamic=None: compiled.append(dynamic))
    run_generator(replace(recipe, train=replace(recipe.train, compile=True)))
    assert compiled == [True] * recipe.backbone.depth  # each block, for rows of any number
    assert same(generated, tmp_path / "compiled")


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


def test_every_entity_of_next_x_is_a_unit(pictures: Path, vision: Path, tmp_path: Path) -> None:
    orders = ("raster", "cell:2", "subsample:2", "interlace:1,2,4", "whole", "locality")
    units = tuple(Unit(f"x{i}", order, "self") for i, order in enumerate(orders))
    recipe = generator_recipe(pictures, vision, tmp_path, 18, units=units, caption_share=0.0)
    recipe = replace(recipe, train=replace(recipe.train, eval_every=18, preview_every=0))
    final = run_generator(recipe)
    told = [line["metrics"] for line in log_of(tmp_path)]
    assert {name for each in told for name in each if name.startswith("loss_x")} == {
        f"loss_{unit.name}" for unit in units
    }
    assert {f"val_{unit.name}" for unit in units} < set(log_of(tmp_path)[-1]["eval"])
    pipe = Pipeline.from_pretrained(final)
    for unit, steps in zip(units, (16, 4, 4, 3, 1, 4)):
        drawn = list(pipe.stream("a red thing", unit=unit.name, seed=1))
        assert len(drawn) == steps and drawn[-1].done.all()


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
    batch, seen = {"codes": torch.zeros(4, 1, 2, 2)}, list[tuple[str, int, bool]]()

    def loss(_, unit, shuffle, *, captioning, training=False):  # type: ignore[no-untyped-def]
        assert training != captioning
        seen.append((unit.name, shuffle, captioning))
        return torch.zeros(())

    monkeypatch.setattr(task, "_loss", loss)
    for step in range(2000):
        task.losses(batch, step, "model")
    once = list(seen)
    for step in (0, 7, 1999):  # the same in every process and accumulated batch
        task.losses(batch, step, "model")
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
        ({"units": (Unit("x", "scale:1,2,4", "self"),)}, "coarse levels of continuous latents"),
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
        device, num_processes = torch.device("cpu"), 1

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
