"""Tables on a terminal and elsewhere."""

from __future__ import annotations

import sys

import pytest

from mmgen.cli.tables import show
from mmgen.evaluation.tables import Table

TABLES = [Table("Figures", ("name", "value"), [("top-1", "0.5"), ("[red]x", "-")])]


def test_plain_columns_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    show(TABLES)
    assert capsys.readouterr().out == ("Figures:\n  name    value\n  top-1   0.5\n  [red]x  -\n\n")


def test_a_frame_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show(TABLES)
    out = capsys.readouterr().out
    assert "Figures" in out and "│" in out and "[red]x" in out  # cells are no markup
