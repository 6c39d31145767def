"""UCF-101's classes in LLaMA-2's words, which NBP's class-conditional weights read (nbp.md 11).

The ids stand in `ucf101.tsv`, so that no tokenizer is needed.
"""

from __future__ import annotations

import re
from importlib import resources

WORDS = 32000  # of the tokenizer
PAD = 2


def class_texts(count: int) -> dict[str, tuple[int, ...]]:
    """Texts of the classes in the order of their labels, such as "apply eye makeup".

    Args:
        count: words of each text; shorter ones are padded on the right, longer ones cut.
    """
    table = (resources.files("mmgen.published") / "ucf101.tsv").read_text(encoding="utf-8")
    texts = {}
    for line in table.splitlines()[1:]:
        name, ids = line.split("\t")
        words = [*map(int, ids.split()), *[PAD] * count]
        texts[re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()] = tuple(words[:count])
    return texts
