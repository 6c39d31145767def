"""The small reference cases of `tests/goldens`, as opened official files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from mmgen.published.matching import Match, match
from mmgen.published.reading import Checkpoint
from mmgen.published.systems import parts

FOLDER = Path(__file__).resolve().parents[1] / "goldens"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/case.json"))


@dataclass(frozen=True)
class SmallCase:
    """A published system's file, and what to say beside it."""

    system: str
    checkpoint: Checkpoint
    config: dict[str, Any]

    def matches(self) -> list[Match]:
        """The parts that the file holds."""
        return match(self.system, [self.checkpoint], parts())


@cache
def small_case(name: str) -> SmallCase:
    """Read a case's weights under their official names."""
    described = json.loads((FOLDER / name / "case.json").read_text(encoding="utf-8"))
    about = described["weights"]
    prefix = about.get("official_prefix") or about.get("official_key_prefix") or ""
    weights = load_file(FOLDER / name / about["file"])
    tensors = {prefix + key: tensor for key, tensor in weights.items()}
    return SmallCase(
        described["system"], Checkpoint(Path("x.pt"), "", tensors), described["config"]
    )
