"""`mmgen train`: run a recipe."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmgen.errors import ConfigError, suggestion
from mmgen.progress import progress_of

TASKS = ("tokenizer", "generator")


def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Changes to the recipe, such as train.steps=1000."
        ),
    ] = None,
    *,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show the whole recipe and leave.")
    ] = False,
) -> None:
    """Train a tokenizer or a generator. The same command run again goes on where it stopped."""
    from mmgen.train.recipe import dump, load_recipe, read_recipe

    words = overrides or []
    task = str(read_recipe(recipe, words).get("task"))
    if task not in TASKS:
        raise ConfigError(f"recipe {recipe}: task cannot be '{task}'{suggestion(task, TASKS)}")
    with progress_of("Loading"):
        recipe_class, task_class = _classes(task)
    checked = load_recipe(recipe, recipe_class, words)
    if print_config:
        typer.echo(dump(checked), nl=False)
        return
    from mmgen.train.loop import train as run

    run(task_class(checked), checked.train, recipe=checked)


def _classes(task: str) -> tuple[Any, Any]:
    """The recipe and the task of that name; training is imported here, once it is needed."""
    if task == "tokenizer":
        from mmgen.train.tokenizer_task import TokenizerRecipe, TokenizerTask

        return TokenizerRecipe, TokenizerTask
    from mmgen.train.generator_task import GeneratorRecipe, GeneratorTask

    return GeneratorRecipe, GeneratorTask
