"""Results as files, and which of them may be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmgen.errors import UserError
from mmgen.evaluation.expected import STYLES, Expected, expected
from mmgen.evaluation.results import Result, compare, differences, flat
from mmgen.evaluation.tables import comparison, number, off, tables_of


def result(top1: float = 0.5, weights: str = "a", **rules: Any) -> Result:
    protocol = {"features": {"hash": "f00", "side": 224}, "seed": 0, "sets": ["train"], **rules}
    return Result("tokenizer", protocol, {"weights": weights}, {"val": {"top1": top1, "kid": None}})


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = result(float("nan"), sets=("train", "val"))
    made.save(tmp_path / "r.json")
    read = Result.read(tmp_path / "r.json")
    assert read.figures == {"val": {"top1": None, "kid": None}}  # JSON knows no NaN
    assert read.protocol["sets"] == ["train", "val"] and not differences(made, read)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "no result of mmgen eval"),
        ("[1]", "no result of mmgen eval"),
        ("{", "not valid JSON"),
        (json.dumps({"format": "mmgen-eval-1", "kind": "real", "protocol": 3}), "damaged"),
    ],
)
def test_other_files_are_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        Result.read(tmp_path / "r.json")
    with pytest.raises(UserError, match="no file"):
        Result.read(tmp_path / "nothing.json")


def test_results_of_the_same_rules_are_compared() -> None:
    rows = {row.name: row for row in compare(result(0.5, "a"), result(0.75, "b"))}
    assert set(rows) == {"val.top1"} and rows["val.top1"].change == 0.25
    table = comparison(list(rows.values()), ("a.json", "b.json"))
    assert table.rows == [("val.top1", "0.5000", "0.7500", "+0.2500")]


def test_a_figure_that_one_result_lacks_is_shown_as_missing() -> None:
    more = Result("tokenizer", result().protocol, {}, {"val": {"top1": 0.5, "fid": 3.0}})
    rows = compare(result(), more)
    assert [(row.name, row.a, row.b, row.change) for row in rows] == [
        ("val.top1", 0.5, 0.5, 0.0),
        ("val.fid", None, 3.0, None),
    ]


def test_other_rules_are_named_and_refused() -> None:
    with pytest.raises(UserError, match=r"seed is 0 and 1\. Measure both alike"):
        compare(result(), result(seed=1))
    other = {"hash": "bad", "side": 224}
    with pytest.raises(UserError, match=r"features\.hash is f00 and bad; seed is 0 and 1"):
        compare(result(), result(seed=1, features=other))
    with pytest.raises(UserError, match=r"sets is .* and .*"):
        compare(result(), result(sets=["train", "val"]))
    with pytest.raises(UserError, match="extra is - and 1"):  # a rule that only one has
        compare(result(), result(extra=1))
    with pytest.raises(UserError, match="kind is tokenizer and real"):
        compare(result(), Result("real", result().protocol, {}, {}))
    many = {f"rule{i}": i for i in range(9)}
    with pytest.raises(UserError, match=r"rule5 and 3 more\."):
        compare(result(), result(**many))


def test_a_rule_may_differ_if_that_is_meant() -> None:
    other = result(0.6, features={"hash": "bad", "side": 112})
    assert compare(result(), other, despite=["features"])[0].change == pytest.approx(0.1)
    with pytest.raises(UserError, match=r"features\.side is 224 and 112"):
        compare(result(), other, despite=["features.hash"])
    with pytest.raises(UserError, match="do not differ in 'seed'"):
        compare(result(), other, despite=["features", "seed"])


def test_paths_of_nested_figures() -> None:
    assert flat({"a": {"b": 1, "c": {"d": None}}, "e": [1]}) == {"a.b": 1, "a.c.d": None, "e": [1]}


def test_what_is_known_of_real_pictures() -> None:
    known = expected(64)
    assert known["concept/noto/top1"] == Expected(0.69, 0.01)
    assert known["retrieval/ink>flat/top5"].value == 0.72
    assert known["retrieval/3d>twemoji/top1"].value == 0.43
    assert known["kid/noto,twemoji"].value == 0.011 and known["kid/3d,flat"].value == 0.044
    assert known["kid/train,test_concept"].value == 0.0024
    assert len([name for name in known if name.startswith("retrieval")]) == 60
    pairs = [n for n in known if n.startswith("kid/") and "halves" not in n and "test" not in n]
    assert len(pairs) == 15 and all(n == f"kid/{','.join(sorted(n[4:].split(',')))}" for n in pairs)
    assert expected(32)["concept/ink/top1"].value == 0.42 and expected(128) == {}
    assert not any(name.startswith(("style", "copying", "retrieval")) for name in expected(32))
    ink = known["kid/ink,noto"]
    assert ink.holds(0.133) and ink.holds(0.176) and not ink.holds(0.12) and not ink.holds(0.19)
    assert len(STYLES) == 6


def test_a_largest_value_bounds_from_above_alone() -> None:
    largest = expected(32)["kid/halves/of a style, largest"]
    assert largest.value == 0.0011
    assert largest.holds(-0.01) and largest.holds(0.0004) and largest.holds(0.0013)
    assert not largest.holds(0.0017)
    table = tables_of(Result("real", {}, {}, {"a": 0.1}), {"a": Expected(0.5, 0.01, True)})[0]
    assert table.rows == [("a", "0.1000", "0.5000", "+0.0100", "ok")]


def test_what_is_no_number_is_shown() -> None:
    said = [number(value) for value in (None, float("nan"), float("inf"), -float("inf"), 2.0)]
    assert said == ["-", "-", "inf", "-inf", "2"]


def test_what_is_off_is_marked() -> None:
    known = {"a": Expected(0.5, 0.01), "b": Expected(0.5, 0.01), "c": Expected(1.0, 0.0)}
    known["free"] = Expected(0.5, None)  # shown, not judged
    figures = {"a": 0.51, "b": 0.52, "other": 3.0, "free": 9.0}
    assert off(figures, known) == ["b"]
    table = tables_of(Result("real", {}, {}, figures), known)[0]
    assert [row[-1] for row in table.rows] == ["ok", "OFF", "", ""]
