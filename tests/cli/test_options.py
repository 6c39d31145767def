"""Options of each command and their defaults are frozen: scripts rely on them.

`python tests/cli/test_options.py` writes `options.txt` anew; its diff is then reviewed like code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

LISTED = Path(__file__).with_name("options.txt")


def lines(command: Any, name: str) -> Iterator[str]:
    """Each command with its arguments and options, depth first."""
    if hasattr(command, "commands"):
        for part, own in sorted(command.commands.items()):
            yield from lines(own, f"{name} {part}")
        return
    words = [word_of(each) for each in command.params if "--help" not in each.opts]
    yield " ".join([name, *words])


def word_of(parameter: Any) -> str:
    """A parameter as it is listed: an option has its default, if that is one, behind a `=`."""
    if parameter.param_type_name != "option":
        return str(parameter.metavar or str(parameter.name).upper())
    names = "/".join(sorted([*parameter.opts, *parameter.secondary_opts]))
    default = parameter.default
    return names if default is None or default is False else f"{names}={default}"


def listing() -> str:
    from mmgen.cli import app

    return "\n".join(lines(typer.main.get_command(app), "mmgen")) + "\n"


def test_options_are_those_that_are_listed() -> None:
    assert listing() == LISTED.read_text(encoding="utf-8")


if __name__ == "__main__":
    LISTED.write_text(listing(), encoding="utf-8")
