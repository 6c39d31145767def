"""Markdown: prose is filled, everything else stays."""

from __future__ import annotations

from mmgen.evaluation.prose import WIDTH, filled, table

PROSE = "some words\nthat are short, " * 20
ITEMS = f"- {PROSE}\n- two,\n  on two lines"
CODE = "```python\none = 1\n\n\ntwo    = 2\n\n- no item\n```"
TABLE = table(["a", "b"], [[1, "x" * 120], [None, 2]])


def test_paragraphs_and_items_are_filled() -> None:
    lines = filled(f"{PROSE}\n\n{ITEMS}").splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    assert " ".join(" ".join(lines).split()) == " ".join(f"{PROSE} {ITEMS}".split())
    assert [line for line in lines if line.startswith("- ")][1:] == ["- two, on two lines"]


def test_code_tables_and_headings_stay() -> None:
    text = f"---\na: 1\n---\n\n## Head\n\n{CODE}\n\n{TABLE}\n\n![p](p.png)\n\nend"
    assert filled(text) == text


def test_a_table_has_a_head_and_a_line_for_each_row() -> None:
    head, rule, *rows = TABLE.splitlines()
    assert head == "| a | b |" and rule == "| --- | --- |"
    assert rows[1] == "| None | 2 |" and len(rows) == 2
