"""Errors that users can cause: one sentence that says what is wrong, where, and what to do.

The command line prints `UserError` and exits with code 2. Every other exception is a bug and
keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend; its text is one sentence (what, where, what to do)."""


class ConfigError(UserError):
    """A configuration, recipe or option that does not fit its type or its allowed values."""


class DataError(UserError):
    """A data set, picture or shard that cannot be used."""


class CheckpointError(UserError):
    """Weights or a pipeline folder that are missing, damaged or of another kind."""


def first_line(error: Exception) -> str:
    """What an error of a library says first, short enough for a sentence; else its kind."""
    lines = str(error).splitlines()
    return (lines[0][:200] if lines else "").rstrip(".") or type(error).__name__


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest known word, else the list of known words.

    Args:
        word: what the user wrote.
        known: what would have been understood.
    """
    names = [str(name) for name in known]
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known are: {', '.join(names)}." if names else "."
