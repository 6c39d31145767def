"""Published checkpoints, as far as they are known. Imports no PyTorch: `mmgen models` is quick.

They lie in `catalogue.tsv`, one a line; an empty field was not stated anywhere.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from mmgen.errors import UserError, suggestion

# Systems whose files `mmgen import` reads.
SYSTEMS = (
    *("emu3", "ibq", "kl16", "larp", "llamagen", "nar", "nbp", "open-magvit2", "seed", "xar"),
)
# Whose files may come along: NAR draws with LlamaGen's tokenizer and films with LARP's.
COMPANIONS = {"nar": ("llamagen", "larp"), "xar": ("kl16",)}


@dataclass(frozen=True)
class Card:
    """One published checkpoint.

    Args:
        system: whose it is, as in `mmgen import SYSTEM`.
        name: ours, unique among all systems' for one task.
        task: what it does, such as "class-to-image".
        repository: on the Hugging Face hub; "" where it lies elsewhere.
        files: of the repository; empty where their names are not known.
        tokenizer: name of the card of what decodes its codes; "" if it needs none.
        beside: further files that it needs and that lie elsewhere.
        megabytes: of the files, None where not stated.
        licence: of the weights; "" where not stated.
        note: what to know.
    """

    system: str
    name: str
    task: str
    repository: str
    files: tuple[str, ...]
    tokenizer: str
    beside: tuple[str, ...]
    megabytes: int | None
    licence: str
    note: str

    @property
    def is_tokenizer(self) -> bool:
        """Whether it makes codes and pictures of codes, and draws nothing."""
        return self.task.endswith("tokenizer")

    @property
    def described(self) -> str:
        """Its files and where they lie, for a sentence."""
        files = " and ".join(self.files) or self.name
        return f"{files} of {self.repository}" if self.repository else files

    @property
    def import_line(self) -> str:
        """The command that makes a pipeline of it."""
        given = self.beside if self.repository else (*self.files, *self.beside)
        hub = f"--from-hub {self.name} " if self.repository else ""
        files = "".join(f"{file} " for file in given)
        return f"mmgen import {self.system} {files}{hub}--out {self.system}-{self.name}"


@cache
def cards() -> tuple[Card, ...]:
    """All published checkpoints."""
    text = (resources.files("mmgen.published") / "catalogue.tsv").read_text(encoding="utf-8")
    return tuple(map(_card, csv.DictReader(text.splitlines(), delimiter="\t")))


def tasks() -> list[str]:
    """What published checkpoints do."""
    return sorted({card.task for card in cards()})


def refuse_system(system: str, systems: Iterable[str]) -> None:
    """Refuse a name that is no published system's.

    Raises:
        UserError: it is not among `systems`.
    """
    if system not in systems:
        hint = suggestion(system, dict.fromkeys(systems))
        raise UserError(f"There is no published system '{system}'{hint}")


def tokenizers_for(system: str, files: Collection[str], task: str = "") -> list[Card]:
    """Cards of what decodes the codes of a system's files.

    Args:
        system: whose they are.
        files: their names; a name that no card has may need any tokenizer of the system.
        task: what they do, such as "class-to-image"; "", or one that no card has: anything.
    """
    of_system = [card for card in cards() if card.system == system and card.tokenizer]
    own = [card for card in of_system if card.task == task] or of_system
    known = [card for card in own if set(card.files) & set(files)] or own
    names = list(dict.fromkeys(card.tokenizer for card in known))
    decoders = [card for card in cards() if card.is_tokenizer]
    if names:
        return [card for name in names for card in decoders if card.name == name]
    return [card for card in decoders if card.system == system]


def find_card(system: str, name: str) -> Card:
    """The card of a system by its name.

    Raises:
        UserError: there is none.
    """
    own = {card.name: card for card in cards() if card.system == system}
    if name not in own:
        raise UserError(f"There is no published '{name}' of {system}{suggestion(name, own)}")
    return own[name]


def _card(row: dict[str, str]) -> Card:
    return Card(
        system=row["system"],
        name=row["name"],
        task=row["task"],
        repository=row["repository"],
        files=tuple(row["files"].split()),
        tokenizer=row["with"],
        beside=tuple(row["beside"].split()),
        megabytes=int(row["megabytes"]) if row["megabytes"] else None,
        licence=row["licence"],
        note=row["note"],
    )
