"""A small emoji set that the tests of evaluation share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny_emoji import write_emoji


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the shards."""
    return write_emoji(tmp_path_factory.mktemp("emoji"))
