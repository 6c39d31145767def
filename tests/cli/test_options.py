"""The options of each command are frozen: what scripts use does not change by accident.

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
    words = (
        "/".join(sorted([*each.opts, *each.secondary_opts]))
        if each.param_type_name == "option"
        else (each.metavar or str(each.name).upper())
        for each in command.params
    )
    yield " ".join([name, *(word for word in words if word != "--help")])


def listing() -> str:
    from mmgen.cli import app

    return "\n".join(lines(typer.main.get_command(app), "mmgen")) + "\n"


def test_options_are_those_that_are_listed() -> None:
    assert listing() == LISTED.read_text(encoding="utf-8")


if __name__ == "__main__":
    LISTED.write_text(listing(), encoding="utf-8")
