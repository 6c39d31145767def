"""The sets of prompts that a generator is measured on; nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

TESTS = ("test_pair", "test_concept")  # splits on which nothing may be chosen
HELD_OUT = ("val", *TESTS)

MILLION = 1_000_000


@dataclass(frozen=True)
class EvalSet:
    """A set of prompts.

    Args:
        name: in results. `title`: in tables.
        split: whose items are asked for.
        number: of its draws; its pictures' seeds start so many millions above the first.
    """

    name: str
    title: str
    split: str
    number: int

    @property
    def is_test(self) -> bool:
        """Whether nothing may be chosen by its figures."""
        return self.split in TESTS

    def first_seed(self, seed: int) -> int:
        """Seed of its first picture, given that of the whole."""
        return seed + self.number * MILLION


# 6 is the number of the comparison of units.
SETS = {
    each.name: each
    for each in (
        EvalSet("train", "trained pairs", "train", 1),
        EvalSet("fresh", "fresh wordings of trained pairs", "train", 5),
        EvalSet("val", "held-out pairs for choosing (val)", "val", 7),
        EvalSet("test_pair_restyle", "held-out pairs, restyle (flat, 3d, ink)", "test_pair", 2),
        EvalSet(
            "test_pair_new", "held-out pairs, new drawing (twemoji, noto, blob)", "test_pair", 3
        ),
        EvalSet("test_concept", "held-out concepts", "test_concept", 4),
    )
}
