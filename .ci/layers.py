"""Check the arrows of the architecture: who may import whom (docs/architecture.md).

    python .ci/layers.py

Every import of `mmgen...` in the tree is looked at, those inside functions too.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEAVES = {"errors", "noise", "portable", "kernels", "files", "config", "saving", "progress"}
LEAVES |= {"waves", "words"}
MAY = {
    "leaves": {"leaves"},
    "data": {"leaves", "data"},
    "tokenizers_vis": {"leaves", "tokenizers_vis"},
    "models": {"leaves", "tokenizers_vis", "models"},
    "sample": {"leaves", "tokenizers_vis", "models", "sample"},
    "train": {"leaves", "data", "tokenizers_vis", "models", "sample", "train", "front"},
    "front": {"leaves", "data", "tokenizers_vis", "models", "sample", "train", "front"},
}
# Of the front door, training may use the pipeline (previews, the final product, a start from one)
# and what loads a network by its class.
TRAIN_MAY_USE = {"mmgen.components", "mmgen.pipeline", "mmgen.pipeline_folder"}


def layer_of(module: str) -> str:
    """Layer of a dotted module name."""
    parts = module.split(".")
    if len(parts) == 1:
        return "front"  # `mmgen` itself, which offers Pipeline
    if parts[1] in LEAVES:
        return "leaves"
    return parts[1] if parts[1] in MAY else "front"


def modules() -> dict[str, Path]:
    """Every module of ours, by dotted name."""
    found = {}
    for top in ("mmgen", "models", "sample", "tokenizers_vis", "train"):
        for path in sorted((ROOT / top).rglob("*.py")):
            dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            name = dotted if top == "mmgen" else f"mmgen.{dotted}"
            found[name.removesuffix(".__init__")] = path
    return found


def imports(name: str, path: Path) -> set[str]:
    """Names of our modules that the file of the module `name` imports."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: 1 - node.level or None]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            names |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] == "mmgen"}


def main() -> int:
    """Print every forbidden arrow; the exit code is 1 if there is one."""
    known = modules()
    bad = []
    for name, path in known.items():
        layer = layer_of(name)
        for target in imports(name, path) & set(known):
            there = layer_of(target)
            wrong = there not in MAY[layer]
            wrong |= layer == "train" and there == "front" and target not in TRAIN_MAY_USE
            if wrong:
                bad.append(f"{name} ({layer}) imports {target} ({there})")
    print("\n".join(bad) or f"layers: {len(known)} modules, every arrow allowed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
