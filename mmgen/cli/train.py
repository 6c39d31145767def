"""`mmgen train`: run a recipe, one's own or one made for somebody's pictures."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from mmgen.cli.options import CaptionColumn, ImageColumn
from mmgen.errors import ConfigError
from mmgen.progress import progress_of

# What a tokenizer that is trained first shares with its generator: where pictures come from, and
# how the machine works. A tokenizer reads no captions.
SHARED = ("data.", "train.mixed_precision", "train.seed", "train.threads", "train.trackers")
OF_CAPTIONS = ("data.caption_column", "data.drop_caption")


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A YAML file, or the name of a shipped recipe; generator or tokenizer with --data "
            "makes one for your pictures.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Changes to the recipe, such as train.steps=1000."
        ),
    ] = None,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Your pictures, with captions for a generator: a folder, .tar or .parquet files, "
            "or a folder of HuggingFace's save_to_disk.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="How large: tiny, small (default) or medium.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Pixels a side; default: what the tokenizer was made for.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Visual tokenizer of a generator: a folder, a pipeline's name, or `train` to "
            "train one first. Default: the shipped one where the size fits it.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Go on from this pipeline or tokenizer, such as emoji-64.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the run; default: runs/NAME-generator, or "
            "runs/NAME-generator-tuned with --from.",
        ),
    ] = None,
    allow_bad: Annotated[
        float | None,
        typer.Option(help="Share of pictures that may be bad; default: 0.01 (one in a hundred)."),
    ] = None,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show the whole recipe and leave.")
    ] = False,
    save_recipe: Annotated[
        Path | None, typer.Option(help="Write the whole recipe to this YAML file and leave.")
    ] = None,
) -> None:
    """Train a tokenizer or a generator. The same command run again goes on where it stopped."""
    wishes = {
        "model": model,
        "size": size,
        "tokenizer": tokenizer,
        "start": start,
        "out": out,
        "allow_bad": allow_bad,
        "columns": _columns(image_column, caption_column),
    }
    given = {name: value for name, value in wishes.items() if value is not None}
    words = overrides or []
    from mmgen.train.tasks import TASKS

    if recipe in TASKS and not Path(recipe).is_file():
        first, checked = _started(recipe, data, given, words)
    else:
        _refuse_data(recipe, data, given)
        first, checked = None, _read(recipe, words)
    if print_config or save_recipe:
        _show(first, checked, print_config, save_recipe)
        return
    runs = [each for each in (first, checked) if each is not None]
    _refuse_folders(runs)
    if data is not None:
        typer.echo(_plan(checked, first))
    for each in runs:
        folder = _run(each)
    if data is not None:
        typer.echo(_next_line(checked, folder))


def _read(recipe: str, words: list[str]) -> Any:
    """The recipe of a file, or a shipped one."""
    with progress_of("Loading"):
        from mmgen.train.tasks import load_any

        return load_any(recipe, words)


def _started(task: str, data: str | None, given: dict[str, Any], words: list[str]) -> Any:
    """A recipe made for somebody's pictures, and before it that of its tokenizer or None."""
    if data is None:
        raise ConfigError(f"`mmgen train {task}` needs pictures; add --data FOLDER.")
    for word in words:
        if word.partition("=")[0].strip() == "data.image_size":
            raise ConfigError(f"'{word}': a recipe is made for a size; use --size N instead.")
    with progress_of("Looking at the data"):
        from mmgen.train.starting import Wish, generator_recipes, tokenizer_recipe

        wish = Wish(data, **given)
        first = None
        if task == "tokenizer":
            made: Any = tokenizer_recipe(wish)
        else:
            first, made = generator_recipes(wish)
    if first is not None:
        first = _changed(first, [word for word in words if _is_shared(word)])
    return first, _changed(made, words)


def _is_shared(word: str) -> bool:
    """Whether an override is also meant for the tokenizer that is trained first."""
    return word.strip().startswith(SHARED) and not word.strip().startswith(OF_CAPTIONS)


def _changed(recipe: Any, words: list[str]) -> Any:
    """A recipe with its overrides."""
    from mmgen.config import from_dict, to_dict
    from mmgen.train.recipe import override

    plain = to_dict(recipe)
    for word in words:
        plain = override(plain, word)
    return from_dict(type(recipe), plain, "")


def _refuse_data(recipe: str, data: str | None, given: dict[str, Any]) -> None:
    if data is not None or given:
        raise ConfigError(
            f"--data and what goes with it make a recipe of their own; write `mmgen train "
            f"generator --data ...`, or change {recipe} by words such as data.train=PATH."
        )


def _columns(picture: str | None, caption: str | None) -> Any:
    from mmgen.data.tables import Columns

    return Columns(picture, caption) if picture or caption else None


def _show(first: Any, checked: Any, print_config: bool, save_recipe: Path | None) -> None:
    """Print the recipe or write it to a file, with what must run before it."""
    from mmgen.files import write_text
    from mmgen.train.recipe import dump

    if print_config:
        before = f"# First the tokenizer, into {first.train.out}.\n" if first else ""
        typer.echo(before + dump(checked), nl=False)
    if save_recipe is None:
        return
    files = {save_recipe: checked}
    if first is not None:
        files = {save_recipe.with_stem(f"{save_recipe.stem}-tokenizer"): first, **files}
    for file, each in files.items():
        write_text(file, dump(each))
    typer.echo("".join(f"mmgen train {shlex.quote(str(file))}\n" for file in files), nl=False)


def _refuse_folders(recipes: list[Any]) -> None:
    """Refuse run folders of other recipes, or past their steps, before anything is said."""
    from mmgen.train.checkpoint import refuse_finished, refuse_other

    for recipe in recipes:
        refuse_other(Path(recipe.train.out), recipe)
        refuse_finished(Path(recipe.train.out), recipe.train.steps)


def _run(recipe: Any) -> Path:
    from mmgen.train.tasks import run

    return run(recipe)


def _plan(recipe: Any, first: Any) -> str:
    """One line: what was chosen."""
    train, data = recipe.train, recipe.data
    pieces = [f"{data.image_size}x{data.image_size} pixels"]
    if recipe.task == "generator":
        made = f"of {recipe.tokenizer}"
        if first is not None:
            made = f"trained first in {first.train.steps} steps of {first.train.batch_size}"
        pieces.append(f"tokenizer {made}")
    pieces.append(f"{train.steps} steps of {train.batch_size} pictures into {train.out}")
    return (
        f"A {recipe.task} for {data.train}: {', '.join(pieces)}; previews in {train.out}/previews."
    )


def _next_line(recipe: Any, folder: Path) -> str:
    """The command that looks at the result."""
    model = shlex.quote(str(folder))
    if recipe.task == "tokenizer":
        return f"mmgen tokenizer check {model} {shlex.quote(recipe.data.train)}"
    prompt = recipe.preview_prompts[0] if recipe.preview_prompts else ""
    return f"mmgen sample {shlex.quote(prompt)} --model {model}"
