"""From an experiment to the recipes of its runs; variants differ in what is declared alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.config import from_dict, to_dict
from mmgen.errors import ConfigError
from mmgen.experiments.settings import Experiment, Variant
from mmgen.train.generator_recipe import GeneratorRecipe
from mmgen.train.recipe import changed, flatten, read_recipe

SAMPLES = "samples"  # the name, in `differ`, of how many pictures and clips are seen


@dataclass(frozen=True)
class Run:
    """One training of a variant.

    Args:
        variant: its name. `seed`: of the training.
        recipe: everything that it is trained with.
    """

    variant: str
    seed: int
    recipe: GeneratorRecipe

    @property
    def folder(self) -> Path:
        """Where it is trained."""
        return Path(self.recipe.train.out)

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{self.variant}, seed {self.seed}"


def runs_of(experiment: Experiment) -> list[Run]:
    """The runs of an experiment, all variants with the first seed, then with the next.

    Raises:
        ConfigError: a recipe is wrong, or variants differ in what must be equal.
    """
    base = _base(experiment)
    recipes = {
        (variant.name, seed): _recipe(experiment, base, variant, seed)
        for seed in experiment.seeds
        for variant in experiment.variants
    }
    if experiment.clips is not None:
        for (name, _), recipe in recipes.items():
            if recipe.clips is None:
                raise ConfigError(
                    f"Clips are measured, and variant '{name}' learns none; give its recipe the "
                    "key clips, or leave out clips of the experiment."
                )
    refuse_unequal({name: recipes[name, experiment.seeds[0]] for name, _ in recipes}, experiment)
    return [Run(name, seed, recipe) for (name, seed), recipe in recipes.items()]


def refuse_unequal(recipes: Mapping[str, GeneratorRecipe], experiment: Experiment) -> None:
    """Refuse variants that differ in a key which `differ` does not name.

    Raises:
        ConfigError: the first such key, with two variants and their values.
    """
    for key, values in differences(recipes).items():
        if not any(key == word or key.startswith(f"{word}.") for word in experiment.differ):
            (first, a), (other, b) = _two(values)
            raise ConfigError(
                f"The variants '{first}' and '{other}' differ in {key} ({_short(a)} and "
                f"{_short(b)}), so their figures would not compare; make it equal, or declare it "
                f"with differ: [{', '.join((*experiment.differ, key))}]."
            )


def differences(recipes: Mapping[str, GeneratorRecipe]) -> dict[str, dict[str, Any]]:
    """Keys in which variants differ, and pictures and clips seen, each with the value of every one.

    What an experiment sets itself (folders, names) does not count.
    """
    flat = {name: flatten(to_dict(recipe)) for name, recipe in recipes.items()}
    for name, recipe in recipes.items():
        flat[name] = {k: v for k, v in flat[name].items() if k not in ("name", "train.out")}
        flat[name].pop("tokens")  # follows from the tokenizer and the data
        flat[name][SAMPLES] = samples(recipe)
    keys = dict.fromkeys(key for each in flat.values() for key in each)
    table = {key: {name: each.get(key) for name, each in flat.items()} for key in keys}
    return {
        key: values
        for key, values in table.items()
        if any(value != next(iter(values.values())) for value in values.values())
    }


def samples(recipe: GeneratorRecipe) -> dict[str, int]:
    """Pictures and clips that a run sees, each as often as it is seen; of clips on average."""
    train, clips = recipe.train, recipe.clips
    steps = train.steps * train.accumulation
    if clips is None:
        return {"pictures": steps * train.batch_size, "clips": 0}
    moving = round(steps * clips.share)
    return {
        "pictures": (steps - moving) * train.batch_size,
        "clips": moving * (clips.batch_size or train.batch_size),
    }


def _base(experiment: Experiment) -> dict[str, Any]:
    source = experiment.recipe
    data = read_recipe(source) if isinstance(source, str) else source
    task = data.get("task", "generator")
    if task != "generator":
        raise ConfigError(f"An experiment compares generators; the task of its recipe is '{task}'.")
    return _with(data, experiment.change)


def _recipe(
    experiment: Experiment, base: dict[str, Any], variant: Variant, seed: int
) -> GeneratorRecipe:
    out = Path(experiment.out)
    data = _with(base, variant.change)
    own = {
        "name": variant.name,
        "train.out": str(out / "runs" / f"{variant.name.replace(' ', '-')}-seed-{seed}"),
        "train.seed": seed,
    }
    data = _with(data, own)
    if data.get("tokens") is None:  # all variants of one tokenizer and one set of data share them
        read = [data.get(key) for key in ("tokenizer", "data", "clips")]
        hashed = hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:8]
        data = _with(data, {"tokens": str(out / "tokens" / hashed)})
    return from_dict(GeneratorRecipe, data, f"the recipe of variant '{variant.name}'")


def _with(data: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for path, value in changes.items():
        data = changed(data, path, value)
    return data


def _two(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The first variant, and the first that differs from it."""
    first = next(iter(values.items()))
    other = next(item for item in values.items() if item[1] != first[1])
    return [first, other]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
