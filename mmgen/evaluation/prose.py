"""Markdown by hand: tables, and prose filled to the width of a line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 100
_AS_IT_IS = ("|", "#", "!", "<", "---", "```")


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; cells are written with `str`."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def filled(text: str) -> str:
    """Fill paragraphs and list items of Markdown; tables, headings, code and HTML stay."""
    done, fenced = [], False
    for part in text.split("\n\n"):
        plain = fenced or part.startswith(_AS_IT_IS)
        done.append(part if plain else "\n".join(map(_filled, re.split(r"\n(?=- )", part))))
        fenced ^= len(re.findall(r"^```", part, re.MULTILINE)) % 2 == 1
    return "\n\n".join(done)


def _filled(paragraph: str) -> str:
    return textwrap.fill(
        " ".join(paragraph.split()),
        WIDTH,
        subsequent_indent="  " if paragraph.startswith("- ") else "",
        break_long_words=False,
        break_on_hyphens=False,
    )
