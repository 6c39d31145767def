"""Contact sheets of a card: rows of pictures with a text on the left and small print below."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from mmgen.evaluation.features import Pictures
from mmgen.pen import FAINT, INK, PAPER, Pen

SIDE = 96  # pixels of a shown picture
_GAP, _PAIR = 18, 4  # between cells, and between the pictures of a cell
_MARGIN, _LABEL = 16, 190
_LINE = 12
_SMALL, _PLAIN, _TITLE = 9.5, 11.5, 15.0


@dataclass
class Cell:
    """Pictures (H, W, 3) uint8 that belong together, and lines of small print below them."""

    pictures: list[Pictures]
    notes: list[str] = field(default_factory=list)


@dataclass
class Row:
    """Cells with a text on their left."""

    label: str
    cells: list[Cell]
    note: str = ""


@dataclass
class Block:
    """Rows of the same shape under a title, a sentence on how they were chosen, and headings."""

    title: str
    note: str
    rows: list[Row]
    headings: tuple[str, ...] = ()


def draw_blocks(blocks: list[Block]) -> Image.Image:
    """Lay blocks below each other on white."""
    drawn = [_draw(block) for block in blocks]
    sheet = Image.new("RGB", (max(i.width for i in drawn), sum(i.height for i in drawn)), PAPER)
    top = 0
    for image in drawn:
        sheet.paste(image, (0, top))
        top += image.height
    return sheet


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Cut a text into lines of whole words; a word wider than the line stays whole."""
    lines: list[str] = []
    for word in plain(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _length(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def plain(text: str) -> str:
    """Take off accents: the pen's font draws ASCII."""
    letters = unicodedata.normalize("NFKD", text).replace("\u2019", "'")
    letters = "".join(c for c in letters if not unicodedata.combining(c))
    return letters.encode("ascii", "replace").decode("ascii")


def _draw(block: Block) -> Image.Image:
    shown = max(len(cell.pictures) for row in block.rows for cell in row.cells)
    cell_width = shown * SIDE + (shown - 1) * _PAIR
    columns = max(len(row.cells) for row in block.rows)
    left = _MARGIN + (_LABEL if any(row.label for row in block.rows) else 0)
    width = left + columns * (cell_width + _GAP) - _GAP + _MARGIN
    about = wrapped(block.note, _PLAIN, width - 2 * _MARGIN)
    top = 40 + 15 * len(about) + (20 if block.headings else 4)
    heights = [_row_height(row, cell_width) for row in block.rows]
    pen = Pen(width, top + sum(heights) + 8)
    pen.write((_MARGIN, 22), plain(block.title), _TITLE, INK, "lm")
    for i, line in enumerate(about):
        pen.write((_MARGIN, 42 + 15 * i), line, _PLAIN, FAINT, "lm")
    for i, heading in enumerate(block.headings):
        middle = left + i * (cell_width + _GAP) + cell_width / 2
        pen.write((middle, top - 11), plain(heading), _PLAIN, INK)
    pasted: list[tuple[Image.Image, tuple[int, int]]] = []
    for row, height in zip(block.rows, heights):
        pasted += _draw_row(pen, row, left, top, cell_width)
        top += height
    sheet = pen.picture()
    for image, place in pasted:
        sheet.paste(image, place)
    return sheet


def _draw_row(
    pen: Pen, row: Row, left: int, top: int, cell_width: int
) -> list[tuple[Image.Image, tuple[int, int]]]:
    """Write a row's texts; return its pictures with their places."""
    label = wrapped(row.label, _PLAIN, _LABEL - 14)
    note = wrapped(row.note, _SMALL, _LABEL - 14)
    y = top + SIDE / 2 - (15 * len(label) + _LINE * len(note)) / 2 + 7
    for line in label:
        pen.write((_MARGIN, y), line, _PLAIN, INK, "lm")
        y += 15
    for line in note:
        pen.write((_MARGIN, y), line, _SMALL, FAINT, "lm")
        y += _LINE
    pasted = []
    for i, cell in enumerate(row.cells):
        start = left + i * (cell_width + _GAP)
        for n, picture in enumerate(cell.pictures):
            place = (start + n * (SIDE + _PAIR), top)
            pen.box((place[0] - 1, top - 1, place[0] + SIDE + 1, top + SIDE + 1), "#e2e4e8")
            pasted.append((_enlarged(picture), place))
        for n, line in enumerate(_lines(cell, cell_width)):
            middle = (start + cell_width / 2, top + SIDE + 9 + _LINE * n)
            pen.write(middle, line, _SMALL, FAINT)
    return pasted


def _lines(cell: Cell, width: int) -> list[str]:
    return [line for note in cell.notes for line in wrapped(note, _SMALL, width + _GAP - 6)]


def _row_height(row: Row, cell_width: int) -> int:
    notes = max(len(_lines(cell, cell_width)) for cell in row.cells)
    words = len(wrapped(row.label, _PLAIN, _LABEL - 14)) + len(
        wrapped(row.note, _SMALL, _LABEL - 14)
    )
    return max(SIDE + 4 + _LINE * notes, 15 * words) + 10


def _enlarged(picture: Pictures) -> Image.Image:
    image = Image.fromarray(np.asarray(picture))
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _length(text: str, size: float) -> float:
    return Pen(1, 1).write((0, 0), text, size, INK, "lm")
