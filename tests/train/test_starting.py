"""Recipes that follow from somebody's pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import FSQ, SIZE, run_generator, run_tokenizer, same, sizes, tokenizer_recipe

from mmgen.errors import ConfigError, DataError
from mmgen.pipeline import Pipeline
from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.train import starting
from mmgen.train.datasets import DataConfig, open_held_out, open_train
from mmgen.train.generator_task import GeneratorRecipe, GeneratorTask
from mmgen.train.recipe import dump, load_recipe
from mmgen.train.starting import MODELS, Wish, generator_recipes
from mmgen.train.starting import tokenizer_recipe as started_tokenizer
from mmgen.train.tokenizer_task import TokenizerTask


def folder_of(count: int, folder: Path) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (4, 4), (i % 256, i // 256, 0)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"thing {i}")
    return folder


def test_the_recipe_is_an_ordinary_one(pictures: Path, tmp_path: Path) -> None:
    first, recipe = generator_recipes(Wish(str(pictures)))
    assert first is None and recipe.tokenizer == "emoji-64" and recipe.init is None
    assert recipe.train.out == "runs/pictures-generator" and recipe.name == "pictures"
    assert recipe.data.image_size == 64 and recipe.backbone == MODELS["small"].backbone
    (tmp_path / "r.yaml").write_text(dump(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "r.yaml", GeneratorRecipe) == recipe


def test_steps_follow_the_number_of_pictures(tmp_path: Path) -> None:
    few = generator_recipes(Wish(str(folder_of(40, tmp_path / "few"))))[1].train
    many = generator_recipes(Wish(str(folder_of(3000, tmp_path / "many"))))[1].train
    assert (few.batch_size, few.steps) == (16, 500)
    assert (many.batch_size, many.steps) == (32, 1406)
    assert few.preview_every == 100 and many.eval_every == 281
    _, one = generator_recipes(Wish(str(folder_of(1, tmp_path / "one"))))
    assert (one.train.batch_size, one.data.held_out) == (1, 0.0)


def test_prompts_and_their_length_come_from_the_captions(tmp_path: Path) -> None:
    folder = folder_of(40, tmp_path / "few")
    recipe = generator_recipes(Wish(str(folder)))[1]
    assert len(set(recipe.preview_prompts)) == 4
    assert all(prompt.startswith("thing ") for prompt in recipe.preview_prompts)
    assert recipe == generator_recipes(Wish(str(folder)))[1]
    (folder / "0.txt").write_text("red 0")
    for i in range(1, 40):
        (folder / f"{i}.png").write_bytes(b"" if i % 2 else b"text")
    assert generator_recipes(Wish(str(folder)))[1].preview_prompts == ("red 0",)


def test_prompts_of_regular_captions_differ(tmp_path: Path) -> None:
    folder = folder_of(40, tmp_path / "few")
    for i, file in enumerate(sorted(folder.glob("*.txt"))):
        file.write_text(f"{['red', 'blue', 'green', 'black'][i // 10]} {i % 10}")
    regular = generator_recipes(Wish(str(folder)))[1].preview_prompts
    assert len({prompt.split()[1] for prompt in regular}) > 2  # not every tenth


def test_long_captions_are_cut_for_prompts(tmp_path: Path) -> None:
    folder = folder_of(40, tmp_path / "few")
    recipe = generator_recipes(Wish(str(folder)))[1]
    assert recipe.text.max_length == 16
    for file in folder.glob("*.txt"):
        file.write_text("تفاحة حمراء 🍎\non  a plate " * 40)
    long = generator_recipes(Wish(str(folder)))[1]
    assert long.text.max_length == 64
    (prompt,) = long.preview_prompts
    assert len(prompt) <= 100 and "\n" not in prompt and "🍎 on a plate" in prompt


def test_the_tokenizer_is_the_shipped_one_where_its_size_fits(
    pictures: Path, vision: Path, tmp_path: Path
) -> None:
    data = str(pictures)
    for size, trained in ((64, False), (128, False), (16, True), (32, False), (256, True)):
        first, recipe = generator_recipes(Wish(data, size=size))
        assert (first is not None) == trained
        assert recipe.data.image_size == size
        if first is not None:
            assert recipe.tokenizer == "runs/pictures-generator/tokenizer/final"
            assert first.train.out == "runs/pictures-generator/tokenizer"
            assert first.data.image_size == size and 8 <= size // first.model.stride <= 16
    assert generator_recipes(Wish(data, tokenizer="train"))[0] is not None
    assert generator_recipes(Wish(data, size=SIZE, tokenizer=str(vision)))[1].tokenizer == str(
        vision
    )
    with pytest.raises(ConfigError, match="takes multiples of 4 pixels a side, 64 at most, not 66"):
        generator_recipes(Wish(data, size=66, tokenizer=str(vision)))
    with pytest.raises(ConfigError, match="No tokenizer is made for 77 pixels"):
        generator_recipes(Wish(data, size=77))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"model": "smal"}, "no size 'smal'; did you mean 'small'"),
        ({"start": "emoji-64", "model": "tiny"}, "--from brings its own model"),
        ({"start": "emoji-64", "size": 64}, "--from brings its own size"),
        ({"start": "emoji-64", "tokenizer": "train"}, "--from brings its own tokenizer"),
        ({"size": 0}, "--size is 0"),
        ({"allow_bad": 5.0}, "--allow-bad is 5"),
    ],
)
def test_wishes_that_make_no_sense(wish: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Wish("x", **wish)  # type: ignore[arg-type]


def test_a_size_of_no_tokenizer_names_those_that_work(pictures: Path) -> None:
    with pytest.raises(ConfigError, match="give 64, which the shipped one has learned, or 16, 32"):
        generator_recipes(Wish(str(pictures), size=63))


def test_held_out_pictures_are_never_trained_on(pictures: Path, tmp_path: Path) -> None:
    config = DataConfig(str(pictures), image_size=SIZE, held_out=0.25)
    train, held = open_train(config).source.keys, open_held_out(config).source.keys
    assert sorted(train + held) == sorted(path.name for path in pictures.glob("*.png"))
    assert len(held) == 2 and open_held_out(config).source.keys == held
    assert open_held_out(replace(config, held_out=0.0)) is None
    with pytest.raises(ConfigError, match="both name pictures"):
        replace(config, val=str(pictures))
    with pytest.raises(ConfigError, match="held_out must be in"):
        replace(config, held_out=1.0)
    with pytest.raises(DataError, match="too few to hold some out"):
        open_train(replace(config, train=str(folder_of(1, tmp_path / "one"))))


def test_a_bad_picture_counts_the_same_among_the_held_out(pictures: Path, tmp_path: Path) -> None:
    folder = folder_of(40, tmp_path / "few")
    config = DataConfig(str(folder), image_size=4, held_out=0.05, limit_bad=0.05)
    held = open_held_out(config)
    (folder / held.source.keys[0]).write_text("no picture")
    batch = next(open_held_out(config).epoch(0, 2, seed=0))
    assert set(batch.keys) == {held.source.keys[1]}


def test_a_pipeline_is_tuned_by_its_name_or_folder(
    pictures: Path, vision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, recipe = generator_recipes(Wish(str(pictures), start="emoji-64"))
    assert (recipe.init, recipe.tokenizer, recipe.data.image_size) == ("emoji-64", "emoji-64", 64)
    assert recipe.backbone.width == 224 and recipe.units[0].name == "neighbor"
    small = starting.Size(MODELS["tiny"].backbone, 16, (32, 64), 1e-3)
    monkeypatch.setitem(starting.MODELS, "tiny", small)
    wish = Wish(str(pictures), "tiny", SIZE, str(vision), out=str(tmp_path / "one"))
    _, fresh = generator_recipes(wish)
    final = run_generator(replace(fresh, train=replace(fresh.train, steps=2)))
    wish = Wish(str(pictures), start=str(final), out=str(tmp_path / "two"))
    _, tuned = generator_recipes(wish)
    task = GeneratorTask(tuned)
    pipe = Pipeline.from_pretrained(final)
    assert task.model.fingerprint == pipe.transformer.fingerprint
    assert task.text.fingerprint == pipe.text.fingerprint
    assert task.val_set is not None and len(task.val_set) == 1


def test_tokenizers_need_no_captions(tmp_path: Path, pictures: Path) -> None:
    bare = folder_of(9, tmp_path / "bare")
    for file in bare.glob("*.txt"):
        file.unlink()
    recipe = started_tokenizer(Wish(str(bare), "tiny", 16))
    assert recipe.model.stride == 2 and recipe.data.held_out == 0.05
    task = TokenizerTask(tokenizer_recipe(bare, tmp_path / "run", data=recipe.data))
    assert next(task.batches(0, 0)).captions == [""] * 4
    with pytest.raises(DataError, match="holds no captions"):
        generator_recipes(Wish(str(bare)))
    with pytest.raises(ConfigError, match="--tokenizer is for a generator"):
        started_tokenizer(Wish(str(bare), tokenizer="train"))


def test_a_tokenizer_goes_on_from_another(pictures: Path, tmp_path: Path) -> None:
    ConvTokenizer(sizes(FSQ)).save_pretrained(tmp_path / "vision")
    recipe = started_tokenizer(Wish(str(pictures), start=str(tmp_path / "vision")))
    assert recipe.model == sizes(FSQ) and recipe.init == str(tmp_path / "vision")
    sized = started_tokenizer(Wish(str(pictures), start=str(tmp_path / "vision"), size=SIZE))
    assert sized.data.image_size == SIZE
    data = DataConfig(str(pictures), image_size=SIZE)
    plain = tokenizer_recipe(pictures, tmp_path / "run", 1, model=recipe.model, data=data)
    final = run_tokenizer(replace(plain, init=recipe.init))
    assert not same(final, tmp_path / "vision")
    shipped = started_tokenizer(Wish(str(pictures), start="emoji-64"))
    assert shipped.data.image_size == 64 and shipped.model.stride == 8
