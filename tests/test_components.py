"""Networks by the class that their folder names, and nothing else by name."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from mmgen.components import CLASSES, load_component
from mmgen.errors import UserError
from mmgen.saving import Saved


def test_every_listed_class_is_a_saved_network() -> None:
    for name, module in CLASSES.items():
        kind = getattr(importlib.import_module(module), name)
        assert issubclass(kind, Saved) and kind.__name__ == name


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"class": "ConvTokenizr"}, "names the class 'ConvTokenizr'; did you mean 'ConvTokenizer'"),
        ({"class": "os.system"}, "names the class 'os.system'; known are: "),
        ({"class": 3}, "names no class"),
        ({}, "names no class"),
        ([], "names no class"),
    ],
)
def test_other_names_are_not_imported(config: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said):
        load_component(tmp_path)


def test_a_missing_component_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give one that holds a model"):
        load_component(tmp_path / "vision")
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").touch()
    with pytest.raises(UserError, match="the pipeline holds only transformer"):
        load_component(tmp_path / "vision")
