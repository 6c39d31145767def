"""How a user's mistake must look on the command line."""

from __future__ import annotations

import re
from typing import Any


def assert_one_sentence(done: Any, *parts: str) -> None:
    """Exit code 2 and one line `mmgen: ...` that holds `parts`."""
    assert done.code == 2 and done.out == "", done
    assert re.fullmatch(r"mmgen: [^\n]+[.?]\n", done.err), done.err
    for part in parts:
        assert part in done.err, done.err
