"""Recipes: YAML, overrides, unknown keys, what may change between two commands."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_task import TinyRecipe, tiny_config

from mmgen.errors import ConfigError
from mmgen.train.recipe import (
    TrainConfig,
    difference,
    dump,
    fingerprint,
    load_recipe,
    override,
    parse_yaml,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_dump_loads_back(tmp_path: Path) -> None:
    recipe = TinyRecipe(
        tiny_config(
            tmp_path, learning_rate=1e-5, clip_norm=None, trackers=("tensorboard",), threads=None
        ),
        names={"no": "1e-4", "1:30": "yes", "ü\x85": "💡 '\n: #"},
    )
    assert load_recipe(write(tmp_path, dump(recipe)), TinyRecipe) == recipe


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(TEXTS, TEXTS, max_size=4))
@example(
    {
        "no": "0o7",
        "~": "null",
        "2001-01-01": "1_000",
        "": " ",
        "<<": "=",
        "a\ufeff": "b\x85c\u2028\u2029d",
    }
)
def test_any_text_survives_dumping(names: dict[str, str]) -> None:
    recipe = TinyRecipe(TrainConfig(steps=1, out="x"), names=names)
    assert parse_yaml(dump(recipe), "test")["names"] == names


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab_-é", min_size=1, max_size=6), min_size=1, max_size=3), VALUES)
def test_override_sets_exactly_that_key(keys: list[str], value: object) -> None:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
    expected = parse_yaml(text, "test")
    before = {"TRAIN": {"steps": 1, "seed": 2}, "LIST": [1]}
    after = override(before, f"{'.'.join(['TRAIN', *keys, 'X'])}={text}")
    place: object = after
    for key in ["TRAIN", *keys, "X"]:
        assert isinstance(place, dict)
        place = place[key]
    assert place == expected
    assert before == {"TRAIN": {"steps": 1, "seed": 2}, "LIST": [1]}
    assert after["LIST"] == [1]
    kept = {"steps": 1, "seed": 2}
    assert {k: v for k, v in after["TRAIN"].items() if k != keys[0]} == kept


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("true", True),
        ("1e-4", 1e-4),
        ("2:30", "2:30"),
        ("010", "010"),
        ("0x1F", 31),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("null", None),
        ("", None),
        ("-.inf", float("-inf")),
        ("[row:1, neighbor]", ["row:1", "neighbor"]),
        ("a=b", "a=b"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert override({}, f"key={text}") == {"key": value}


@pytest.mark.parametrize("word", ["steps", "=3", "a..b=1", ".a=1", "a.=1", " =1", ""])
def test_word_that_is_no_override(word: str) -> None:
    with pytest.raises(ConfigError, match="write key=value"):
        override({}, word)


def test_override_through_a_scalar_names_it() -> None:
    with pytest.raises(ConfigError, match=r"train\.steps is not a mapping"):
        override({"train": {"steps": 3}}, "train.steps.more=1")


def test_override_of_a_missing_section_creates_it() -> None:
    assert override({"train": None}, "train.seed=4") == {"train": {"seed": 4}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  steps: 3\n  out: a\n  setps: 4\n", "did you mean 'steps'"),
        ("train: {steps: 3, out: a}\nwidht: 4\n", "did you mean 'width'"),
        ("width: 3\n", "needs the key 'train'"),
        ("train: {steps: three, out: a}\n", r"train\.steps must be of type int"),
        ("train: {steps: 3, out: a, mixed_precision: bf61}\n", "did you mean 'bf16'"),
        ("train:\n  steps: 3\n  steps: 4\n", "line 3: the key 'steps' stands twice"),
        ("train:\n  steps: [3\n", "line 3"),
        ("width: 3\n\tdepth: 2\n", "line 2"),
        ("width: !!python/object/apply:os.system [ls]\n", "line 1"),
        ("- 1\n- 2\n", "must be a mapping"),
        ("a: *b\n", "line 1.*undefined alias"),
        ("a: \x00\n", "not readable YAML"),
        ("[" * 1000, "nested too deeply"),
        ("{[1]: 2}", "line 1"),
    ],
)
def test_bad_recipe_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(write(tmp_path, text), TinyRecipe)
    assert "\n" not in str(caught.value)


def test_override_with_unknown_key_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {steps: 3, out: a}\n")
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        load_recipe(path, TinyRecipe, ["train.learning_rat=1e-4"])
    changed = load_recipe(path, TinyRecipe, ["train.learning_rate=1e-4", "width=2"])
    assert (changed.train.learning_rate, changed.width) == (1e-4, 2)


def test_recipe_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no recipe 'nowhere'"):
        load_recipe("nowhere", TinyRecipe)
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_recipe(path, TinyRecipe)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"min_learning_rate": 1.0},
        {"ema_decay": 1.0},
        {"betas": (0.9, 1.0)},
        {"clip_norm": 0.0},
        {"keep_last": 0},
        {"threads": 0},
        {"out": " "},
        {"eval_every": -1},
    ],
)
def test_values_out_of_range(wrong: dict[str, object]) -> None:
    values = {"steps": 1, "out": "x"} | wrong
    with pytest.raises(ConfigError, match=re.escape(next(iter(wrong)))):
        TrainConfig(**values)  # type: ignore[arg-type]


FREE = {
    "steps": 9,
    "out": "z",
    "log_every": 7,
    "eval_every": 7,
    "preview_every": 7,
    "save_every": 7,
    "keep_last": 7,
    "threads": 7,
    "trackers": ("aim",),
}
BINDING = {
    "batch_size": 7,
    "accumulation": 7,
    "optimizer": "muon",
    "learning_rate": 0.5,
    "min_learning_rate": 1e-5,
    "warmup_steps": 7,
    "cooldown": "constant",
    "betas": (0.5, 0.5),
    "weight_decay": 0.5,
    "clip_norm": None,
    "mixed_precision": "bf16",
    "compile": True,
    "ema_decay": 0.5,
    "seed": 7,
}


def test_which_keys_may_change_between_commands() -> None:
    assert {f.name for f in dataclasses.fields(TrainConfig)} == FREE.keys() | BINDING.keys()
    base = TrainConfig(steps=1, out="x")
    for key, value in (FREE | BINDING).items():
        other = dataclasses.replace(base, **{key: value})
        free = key in FREE
        for old, new in ((base, other), (TinyRecipe(base), TinyRecipe(other))):
            found = difference(old, new)
            assert (found is None) == free == (fingerprint(old) == fingerprint(new)), key
            assert free or key in str(found)
    assert "width is 8 there and 3 here" in str(
        difference(TinyRecipe(base), TinyRecipe(base, width=3))
    )


@dataclasses.dataclass(frozen=True)
class Part:
    size: int = 1
    colour: str = "red"


@dataclasses.dataclass(frozen=True)
class Grown:
    """`TinyRecipe` as a later version might have it."""

    train: TrainConfig
    width: int = 8
    parts: tuple[Part, ...] = (Part(),)
    title: str = ""
    FREE: ClassVar[frozenset[str]] = frozenset({"title"})


def test_a_key_that_a_later_version_adds_leaves_running_runs_alone() -> None:
    base = TrainConfig(steps=1, out="x")
    assert fingerprint(Grown(base)) == fingerprint(TinyRecipe(base))
    small, red = Grown(base, parts=(Part(2),)), Grown(base, parts=(Part(2, "red"),))
    assert fingerprint(small) == fingerprint(red) != fingerprint(Grown(base))
    blue = Grown(base, parts=(Part(2, "blue"),))
    assert fingerprint(blue) != fingerprint(small) and "parts" in str(difference(small, blue))
    assert fingerprint(Grown(base, title="a")) == fingerprint(Grown(base, title="b"))
    assert difference(Grown(base, title="a"), Grown(base, title="b")) is None
