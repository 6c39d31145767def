"""What README and docs ask a reader to run: fenced blocks, their commands, their marks.

A block runs unless the line above its fence says why not: `<!-- not run: REASON -->`. What is not
run is still parsed: options must exist, imports must resolve.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
REASONS = ("needs published weights", "needs the network", "needs a card", "takes minutes")
_MARK = re.compile(r"<!-- not run: (.*) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Args:
        page: its file. `line`: of the opening fence, from 1.
        language: behind the fence, "" for commands.
        text: between the fences.
        reason: why it is not run; None: it is.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command line; comments and continued lines are read as a shell does."""
        lines = self.text.replace("\\\n", " ").splitlines()
        words = (shlex.split(line, comments=True) for line in lines)
        return [each for each in words if each]


def blocks_of(page: Path) -> list[Block]:
    """All blocks that a reader may run: Python and command lines, no drawings or data."""
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if opened is None:
            opened = number
            continue
        language = lines[opened].strip().removeprefix("```")
        text = "\n".join(lines[opened + 1 : number])
        mark = _MARK.fullmatch(lines[opened - 1].strip()) if opened else None
        block = Block(page, opened + 1, language, text, mark and mark[1])
        if language == "python" or (language in ("", "sh", "bash") and _is_commands(text)):
            found.append(block)
        opened = None
    return found


def _is_commands(text: str) -> bool:
    return any(
        re.match(r"(mmgen|pip|python3?|accelerate|git) ", line) for line in text.splitlines()
    )
