"""The `mmgen` command. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import re
import sys

import typer
from typer.exceptions import TyperException

from mmgen.cli import (
    bench,
    caption,
    data,
    doctor,
    edit,
    evaluating,
    experiment,
    exporting,
    importing,
    models,
    orders,
    replay,
    sample,
    score,
    show,
    tokenizer,
    train,
)
from mmgen.errors import UserError

# What the parser of options says of values, and what we do.
_PARSER = (
    (r"Input should be greater than or equal to (\S+)", r"give \1 or more"),
    (r"Input should be a valid integer\b.*", "give a whole number"),
    (r"Input should be a valid number\b.*", "give a number"),
)
INTERRUPTED = 130  # exit code: 128 and the number of SIGINT

app = typer.Typer(
    name="mmgen",
    help="Draw pictures from text, train on your own, look inside.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("sample")(sample.sample)
app.command("edit")(edit.edit)
app.command("caption")(caption.caption)
app.command("score")(score.score)
app.command("replay")(replay.replay)
app.command("train")(train.train)
app.add_typer(data.app, name="data")
app.add_typer(tokenizer.app, name="tokenizer")
app.command("import")(importing.import_)
app.add_typer(exporting.app, name="export")
app.command("models")(models.models)
app.command("show")(show.show)
app.add_typer(bench.app, name="bench")
app.add_typer(evaluating.app, name="eval")
app.command("experiment")(experiment.experiment)
app.command("orders")(orders.orders)
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Show the version and leave."),
) -> None:
    """Draw pictures from text, train on your own, look inside."""
    if version:
        from mmgen import __version__

        typer.echo(__version__)
        raise typer.Exit()


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 2."""
    # Nothing here parallelises Python threads around a fork; without this the text tokenizer warns.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = app(prog_name="mmgen", standalone_mode=False)
    except TyperException as error:
        print(_sentence(error), file=sys.stderr)
        sys.exit(2)
    except UserError as error:
        print(f"mmgen: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        why = f"{error.strerror}; check the path and its permissions"
        print(f"mmgen: Cannot use {error.filename}: {why}.", file=sys.stderr)
        sys.exit(2)
    if code == INTERRUPTED:  # typer made that of Ctrl-C
        raise KeyboardInterrupt
    sys.exit(code)


def _sentence(error: TyperException) -> str:
    """What the option parser found, in one sentence like all other mistakes."""
    said: str = error.format_message()
    if said.startswith("Usage:"):  # a group without a command: its help
        return said
    said = " ".join(said.split())
    for told, ours in _PARSER:
        said = re.sub(told, ours, said)
    if said.endswith("?"):  # it has made a proposal
        return f"mmgen: {said}"
    context = getattr(error, "ctx", None)  # only of wrong usage
    where = context.command_path if context else "mmgen"
    return f"mmgen: {said.rstrip('.')}; see `{where} --help`."
