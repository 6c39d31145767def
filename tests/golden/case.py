"""One reference case: its description, its tensors, and what `mmgen` makes of its weights."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmgen.components import load_component
from mmgen.published.importing import import_files

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = Path(os.environ.get("MMGEN_GOLDENS", ROOT.parent / "shared" / "goldens"))
OWN = ROOT / "tests" / "goldens"  # one small case a system, for a clone that stands alone

T = TypeVar("T")


class Case:
    """A folder with `case.json`, `weights.safetensors` and `tensors.safetensors`.

    Everything is read, imported and computed at first use, and once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        described = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        self.system: str = described["system"]
        self.task: str = described["task"]
        self.config: dict[str, Any] = described["config"]
        self.settings: dict[str, Any] = described.get("settings") or {}
        self.outputs: dict[str, dict[str, Any]] = described["outputs"]
        self.described: dict[str, Any] = described
        self._known: dict[Any, Any] = {}
        self._place: tempfile.TemporaryDirectory[str] | None = None

    def __repr__(self) -> str:
        return f"Case({self.name})"

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the case; look expected values up in `expected`."""
        return load_file(self.folder / self.described.get("tensors", "tensors.safetensors"))

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The tensors that are no outputs."""
        return {name: t for name, t in self.tensors.items() if name not in self.outputs}

    def expected(self, name: str) -> Tensor:
        """What the official code computed."""
        return self.tensors[name]

    def once(self, compute: Callable[[Case], T]) -> T:
        """`compute(self)`, computed at first use: several outputs come from one run."""
        if compute not in self._known:
            self._known[compute] = compute(self)
        return self._known[compute]  # type: ignore[no-any-return]

    # -- what mmgen makes of it ------------------------------------------------------------------

    @property
    def place(self) -> Path:
        """A folder of this case's own, removed at the end."""
        if self._place is None:
            self._place = tempfile.TemporaryDirectory(prefix=f"mmgen-{self.name}-")
        return Path(self._place.name)

    @cached_property
    def official_file(self) -> Path:
        """The weights in the official container: prefix added, wrapped, with its suffix."""
        about = self.described["weights"]
        weights = load_file(self.folder / about["file"])
        prefix = about.get("official_prefix") or about.get("official_key_prefix") or ""
        content: Any = {prefix + key: tensor for key, tensor in weights.items()}
        for key in reversed((about.get("wrapper") or "").split("/")):
            content = {key: content} if key else content
        path = self.place / f"official{about.get('official_suffix') or '.pt'}"
        if path.suffix == ".safetensors":
            save_file(content, path)
        else:
            torch.save(content, path)
        return path

    @cached_property
    def pipeline(self) -> Path:
        """The folder that `mmgen import` writes from the official file and the case's config."""
        return self.imported_with()

    def imported_with(self, **options: Any) -> Path:
        """The folder that `mmgen import` writes, some options replaced."""
        out = Path(tempfile.mkdtemp(dir=self.place)) / "pipeline"
        import_files(self.system, [self.official_file], {**self.config, **options}, out)
        return out

    @cached_property
    def network(self) -> Any:
        """The one component of the imported pipeline, loaded from its folder."""
        return self.only(self.pipeline)

    @staticmethod
    def only(pipeline: Path) -> Any:
        """Load the one component of a pipeline's folder."""
        folders = [path.parent for path in pipeline.glob("*/config.json")]
        assert len(folders) == 1, f"{[folder.name for folder in folders]}: ask for one by name"
        return load_component(folders[0])

    def component(self, name: str) -> Any:
        """Load one of several components of the imported pipeline, once."""
        if name not in self._known:
            self._known[name] = load_component(self.pipeline / name)
        return self._known[name]


def all_cases() -> list[Case]:
    """Every case there is, in the order of their names; the whole set's where both hold a name."""
    found = [path.parent for folder in (OWN, GOLDENS) for path in folder.glob("*/case.json")]
    return [Case(folder) for _, folder in sorted({f.name: f for f in found}.items())]
