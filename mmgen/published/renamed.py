"""Tensors under our names that know what the file called them, so that messages can say it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product, zip_longest

from torch import Tensor

Target = str | Callable[[re.Match[str]], str] | None
Compiled = Sequence[tuple[re.Pattern[str], Target]]
NEIGHBOURS = 24  # names beside which a missing one is looked for


def ruled(key: str, rules: Compiled) -> tuple[bool, str | None]:
    """Whether a rule knows an official key, and our name of it; None if it is not needed."""
    for pattern, target in rules:
        if match := pattern.fullmatch(key):
            if target is None:
                return True, None
            return True, match.expand(target) if isinstance(target, str) else target(match)
    return False, None


class Renamed(dict[str, Tensor]):
    """Tensors by our names; made by `keymap.rename`.

    Args:
        tensors: by official key, or what an earlier `rename` made of them.
        rules: that give them our names.
    """

    def __init__(self, tensors: Mapping[str, Tensor], rules: Compiled) -> None:
        super().__init__()
        before = tensors if isinstance(tensors, Renamed) else None
        self._earlier: dict[str, str] = before._keys if before else {}
        self._rules: list[Compiled] = [*(before._rules if before else ()), rules]
        self._keys: dict[str, str] = {}  # our name -> official key

    def take(self, name: str, key: str, tensor: Tensor) -> None:
        """Put a tensor under our name, with the key that it had."""
        self[name] = tensor
        self._keys[name] = self._earlier.get(key, key)

    def official(self, name: str) -> str:
        """The official key of one of our names, also of one that is missing; else our name."""
        return self._keys.get(name) or self._guess(name) or name

    def _guess(self, missing: str) -> str | None:
        """The likeliest official key that would have become `missing`.

        It differs in one word from a key that is there, or a rule spells it out.
        """
        words = missing.split(".")
        near = sorted(self._keys.items(), key=lambda item: _unlike(item[0].split("."), words))
        keys = [key.split(".") for _, key in near]
        spelled = (key for rule, _ in self._rules[0] for key in _spelled(rule.pattern, words))
        found = [key for key in spelled if self._ours(key) == missing]
        found += [key for key in _variants(keys, NEIGHBOURS) if self._ours(key) == missing]
        # Several may lead there where rules are generous: the one whose ends occur elsewhere.
        there = {end for key in keys for end in _ends(key)}
        likeness = {key: len(there.intersection(_ends(key.split(".")))) for key in found}
        return max(likeness, key=likeness.__getitem__, default=None)

    def _ours(self, key: str) -> str | None:
        name: str | None = key
        with contextlib.suppress(LookupError, ValueError):  # rules know no made-up keys
            for rules in self._rules:
                name = None if name is None else ruled(name, rules)[1]
            return name
        return None


def _unlike(own: list[str], words: list[str]) -> int:
    return abs(len(own) - len(words)) + sum(a != b for a, b in zip(own, words))


def _variants(keys: list[list[str]], first: int) -> Iterator[str]:
    """Keys that differ from one of the `first` ones in a word that others have at its place."""
    places = [dict.fromkeys(words) for words in zip_longest(*keys, fillvalue="")]
    for key in keys[:first]:
        for i in range(len(key)):
            for word in places[i]:
                yield ".".join((*key[:i], word, *key[i + 1 :]))


def _ends(key: list[str]) -> list[tuple[str, ...]]:
    """The first and the last words of a key, one to all of them, whatever their numbers."""
    words = ["#" if word.isdigit() else word for word in key]
    last = [(*words[i:], "end") for i in range(len(words))]
    return last + [tuple(words[:i]) for i in range(1, len(words))]


def _spelled(pattern: str, words: Sequence[str]) -> list[str]:
    """The keys that a pattern spells out, with the numbers among some words."""
    numbers = "|".join(word for word in words if word.isdigit())
    pattern = pattern.replace(r"(\d+)", f"({numbers or 0})").replace(r"(\w+)", "(weight|bias)")
    pieces = re.split(r"\((?:\?:)?([\w|]+)\)", pattern)  # every other one lists alternatives
    choices = [piece.split("|") if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return [re.sub(r"\\(.)", r"\1", "".join(choice)) for choice in product(*choices)]
