"""What can be trained, by the name that a recipe gives it; each is imported once it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmgen.errors import ConfigError, suggestion
from mmgen.train.recipe import load_recipe, read_recipe

TASKS = ("tokenizer", "generator")


def classes_of(task: str) -> tuple[Any, Any]:
    """The recipe and the task of that name."""
    if task == "tokenizer":
        from mmgen.train.tokenizer_task import TokenizerRecipe, TokenizerTask

        return TokenizerRecipe, TokenizerTask
    from mmgen.train.generator_task import GeneratorRecipe, GeneratorTask

    return GeneratorRecipe, GeneratorTask


def load_any(source: str | Path, overrides: Sequence[str] = ()) -> Any:
    """The recipe of any task, from a file or a shipped one.

    Raises:
        ConfigError: it is of no task, or as in `load_recipe`.
    """
    task = str(read_recipe(source, overrides).get("task"))
    if task not in TASKS:
        raise ConfigError(f"recipe {source}: task cannot be '{task}'{suggestion(task, TASKS)}")
    return load_recipe(source, classes_of(task)[0], overrides)


def run(recipe: Any) -> Path:
    """Train by a recipe, going on where its run stopped; returns the folder of the result."""
    from mmgen.train.checkpoint import refuse_finished
    from mmgen.train.loop import train

    refuse_finished(Path(recipe.train.out), recipe.train.steps)
    _, task_class = classes_of(recipe.task)
    folder: Path = train(task_class(recipe), recipe.train, recipe=recipe)
    return folder
