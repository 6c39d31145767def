"""What `mmgen doctor` says of the extras."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mmgen import doctor

ROOT = Path(__file__).resolve().parents[1]


def test_all_extras_of_users_are_looked_at() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = {
        name: {re.split("[=>]", wanted)[0] for wanted in packages}
        for name, packages in extras.items()
        if name != "dev"
    }
    assert named == {name: set(packages) for name, packages in doctor.EXTRAS.items()}


def test_what_lacks_is_installed_as_the_pages_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda package: package != "pyarrow")
    lines = {found.topic: found for found in doctor.findings()}
    assert lines["extra eval"].found == "installed"
    assert lines["extra data"].found == "lacks pyarrow"
    assert lines["extra data"].why == "pip install '.[data]' in the checkout"
