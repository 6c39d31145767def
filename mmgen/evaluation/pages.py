"""The three sheets of a card, their pictures chosen by rule and seed, none by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from mmgen.data.emoji import Item, all_items
from mmgen.evaluation.asking import PROMPT, Ask, Drawn, fresh_asks, pick, plain_asks
from mmgen.evaluation.measure import Bench
from mmgen.evaluation.sheets import Block, Cell, Row, draw_blocks

T = TypeVar("T")

# The concepts of `styles.png` and `units.png`, whatever becomes of them.
SHOWN = (
    "a red apple",
    "a grinning cat",
    "a rocket",
    "a rainbow",
    "a pizza",
    "a house",
    "a guitar",
    "a palm tree",
)
STYLES = ("twemoji", "noto", "blob", "flat", "3d", "ink")

_SEEDS = 3  # pictures of a prompt
_ENDS, _ACROSS = 12, 4  # pictures in the blocks of the best and the worst, and in a row
_FIRST = 100_000_000  # seeds of the sheets, away from those of the figures
_STREAM = 50  # numbers of the generators that choose rows


def results_page(bench: Bench, drawn: dict[str, Drawn]) -> Image.Image:
    """Prompts with pictures and their nearest training pictures; the best and the worst.

    Args:
        bench: pipeline and yardstick.
        drawn: sets of the figures; the best and the worst come from "train".
    """
    seed = bench.settings.seed
    blocks = []
    for number, (name, (title, _)) in enumerate(_BLOCKS.items()):
        asks = _asks(bench, name, number)
        if asks:
            how = f"Chosen at random with seed {seed}; {_SEEDS} pictures of each prompt. {_BESIDE}"
            blocks.append(Block(title, how, _rows(bench, bench.look(asks, f"results: {name}"))))
    blocks += _ends(bench, drawn["train"])
    return draw_blocks(blocks)


def styles_page(bench: Bench) -> Image.Image:
    """The same concepts in every style, all with the same seed."""
    items = _shown_items()
    asks = [
        Ask(PROMPT.format(phrase=phrase, style=style), _FIRST, items[phrase, style], style)
        for phrase in SHOWN
        for style in STYLES
    ]
    pictures, _ = bench.draw(asks, "styles.png")
    cells = [
        Cell([picture], ["" if ask.item.split == "train" else "this pair was held out"])
        for ask, picture in zip(asks, pictures)
    ]
    rows = []
    for phrase, row in zip(SHOWN, _split(cells, len(STYLES))):
        unseen = items[phrase, STYLES[0]].split == "test_concept"
        plain = [Cell(cell.pictures) for cell in row]
        note = "a concept that training never saw" if unseen else ""
        rows.append(Row(phrase, plain if unseen else row, note))
    how = f"Prompts '{PROMPT.format(phrase='PHRASE', style='STYLE')}', first picture of each."
    return draw_blocks([Block("Styles", how, rows, STYLES)])


def units_page(bench: Bench, units: dict[str, dict[str, object]]) -> Image.Image:
    """The same prompts and seeds by every unit of the checkpoint.

    Args:
        bench: pipeline.
        units: figures of the units, for their numbers of steps.
    """
    items = _shown_items()
    chosen = [(phrase, STYLES[i % len(STYLES)]) for i, phrase in enumerate(SHOWN)]
    asks = [
        Ask(PROMPT.format(phrase=phrase, style=style), _FIRST, items[phrase, style], style)
        for phrase, style in chosen
    ]
    columns = [bench.draw(asks, f"units.png: {unit}", unit)[0] for unit in units]
    rows = [
        Row(ask.prompt, [Cell([column[i]]) for column in columns]) for i, ask in enumerate(asks)
    ]
    headings = tuple(f"{name}, {unit['steps']} steps" for name, unit in units.items())
    note = "The same weights, prompts and seeds; only the unit that is decided at a time differs."
    return draw_blocks([Block("Units", note, rows, headings)])


_BESIDE = (
    "Beside each: the nearest of all training pictures, with the cosine of their features. "
    "rank: place of the concept asked for among all concepts; 1 is right."
)
_BLOCKS = {  # titles and rows
    "train": ("Trained pairs of concept and style", 12),
    "fresh": ("Fresh wordings of trained pairs", 6),
    "test_pair": ("Held-out pairs: concept and style were trained, not together", 4),
    "test_concept": ("Held-out concepts: training never saw these things", 4),
}


def _asks(bench: Bench, name: str, number: int) -> list[Ask]:
    """The prompts of a block, each several times."""
    generator = np.random.default_rng((bench.settings.seed, _STREAM + number))
    split = "train" if name == "fresh" else name
    items, count = [bench.real.items[i] for i in bench.real.places(split)], _BLOCKS[name][1]
    if name == "train":  # the same number of each style
        each = count // len(STYLES)
        chosen: list[Item] = []
        for style in STYLES:
            chosen += pick([item for item in items if item.style == style], each, generator)
    else:
        chosen = pick(items, count, generator)
    first = _FIRST + number * 1000
    asks = fresh_asks(chosen, first) if name == "fresh" else plain_asks(chosen, first)
    return [
        Ask(ask.prompt, ask.seed + 100 * n, ask.item, ask.style)
        for ask in asks
        for n in range(_SEEDS)
    ]


def _rows(bench: Bench, drawn: Drawn) -> list[Row]:
    cells = _cells(bench, drawn)
    return [Row(drawn.asks[i * _SEEDS].prompt, row) for i, row in enumerate(_split(cells, _SEEDS))]


def _cells(bench: Bench, drawn: Drawn) -> list[Cell]:
    """Each picture beside the nearest training picture."""
    ranks, _ = bench.judge.ranks(drawn)
    cosines, places = bench.judge.nearest(drawn.features)
    return [
        Cell(
            [picture, bench.real.pictures[place]],
            [f"rank {rank + 1}", f"{cosine:.2f} to {_name(bench.real.items[place])}"],
        )
        for picture, place, rank, cosine in zip(drawn.pictures, places, ranks, cosines)
    ]


def _ends(bench: Bench, drawn: Drawn) -> list[Block]:
    """The best and the worst of a set by rank, then by cosine to the concept asked for."""
    ranks, cosines = bench.judge.ranks(drawn)
    order = np.lexsort((-cosines, ranks))
    cells = _cells(bench, drawn)
    for ask, cell in zip(drawn.asks, cells):
        cell.notes.insert(0, ask.prompt)
    blocks = []
    ends = {"best": order[:_ENDS], "worst": order[::-1][:_ENDS]}
    for word, places in ends.items():
        rows = [Row("", [cells[i] for i in row]) for row in _split(places.tolist(), _ACROSS)]
        note = (
            f"Of the {len(order)} pictures of trained pairs behind the figures, ordered by the "
            f"rank of the concept asked for, then by the cosine to it. {_BESIDE}"
        )
        blocks.append(Block(f"The {len(places)} {word} by concept score", note, rows))
    return blocks


def _shown_items() -> dict[tuple[str, str], Item]:
    found = {(item.concept.phrase, item.style): item for item in all_items()}
    return {(phrase, style): found[phrase, style] for phrase in SHOWN for style in STYLES}


def _name(item: Item) -> str:
    return f"{item.concept.label}, {item.style}"


def _split(things: Sequence[T], count: int) -> list[list[T]]:
    return [list(things[i : i + count]) for i in range(0, len(things), count)]
