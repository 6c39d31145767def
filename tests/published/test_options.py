"""Official options: known names, values of the right type, the rest refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmgen.errors import ConfigError, UserError
from mmgen.published.options import official, read_options


@dataclass(frozen=True)
class Deep:
    ch_mult: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Options:
    n_layer: int
    ddconfig: Deep = Deep()
    eps: float = 1e-5


def test_options_are_typed_and_ignored_ones_dropped() -> None:
    said = {"n_layer": 3, "ddconfig": {"ch_mult": [1, 2]}, "dropout": 0.1, "eps": 1}
    assert official(Options, said, "x.pt", ["dropout"]) == Options(3, Deep((1, 2)), 1.0)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"n_layer": 1, "n_layers": 2}, "x.pt has no option 'n_layers'; did you mean 'n_layer'?"),
        ({"n_layer": 1, "dropuot": 2}, "did you mean 'dropout'?"),
        ({"n_layer": "a"}, "options of x.pt.n_layer must be of type int, not 'a'."),
        ({"n_layer": 1, "ddconfig": {"ch": 1}}, "options of x.pt.ddconfig has no key 'ch'"),
        ({}, "options of x.pt needs the key 'n_layer'"),
    ],
)
def test_wrong_options_are_named(said: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        official(Options, said, "x.pt", ["dropout"])
    assert told in str(caught.value)


def test_words_go_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"dim": 8, "deep": {"a": 1, "b": 2}}))
    words = ["dim=16", "deep.a=[1, 2]", "kind=null"]
    assert read_options(file, words) == {"dim": 16, "deep": {"a": [1, 2], "b": 2}, "kind": None}
    assert read_options(None, []) == {}


@pytest.mark.parametrize(
    ("text", "told"), [("[1]", "must hold a mapping"), ("{", "not valid JSON")]
)
def test_a_wrong_file_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UserError, match=told):
        read_options(tmp_path / "c.json", [])
