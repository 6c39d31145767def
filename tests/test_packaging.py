"""What a wheel would hold, what an import costs, and the check of the architecture's arrows."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SIDE = ("assets", "models", "sample", "tokenizers_vis", "train")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUP = SETTINGS["tool"]["setuptools"]


def folder_of(package: str) -> Path:
    """Where setuptools looks for a package: the longest mapped name, then the rest as folders."""
    parts = package.split(".")
    for cut in range(len(parts), 0, -1):
        mapped = SETUP["package-dir"].get(".".join(parts[:cut]))
        if mapped is not None:
            return ROOT.joinpath(mapped, *parts[cut:])
    return ROOT.joinpath(*parts)


def packages_of_the_tree() -> dict[str, Path]:
    found = {}
    for top in ("mmgen", *SIDE):
        for path in (ROOT / top).rglob("__init__.py"):
            dotted = ".".join(path.parent.relative_to(ROOT).parts)
            found[dotted if top == "mmgen" else f"mmgen.{dotted}"] = path.parent
    return found


def run(code: str, *words: str, cwd: Path = ROOT, flags: tuple[str, ...] = ()) -> str:
    """What Python prints for `code`, with the checkout's packages in reach."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_list_is_the_tree() -> None:
    assert sorted(SETUP["packages"]) == sorted(packages_of_the_tree())
    assert SETUP["include-package-data"] is False  # else the list below would not be all


def test_every_package_is_taken_from_its_folder() -> None:
    assert {p: folder_of(p) for p in SETUP["packages"]} == packages_of_the_tree()
    assert set(SETUP["package-dir"]) <= set(SETUP["packages"])


def test_every_module_lies_in_a_listed_package() -> None:
    folders = {folder_of(package) for package in SETUP["packages"]}
    for top in ("mmgen", *SIDE):
        modules = [path for path in (ROOT / top).rglob("*.py") if "__pycache__" not in path.parts]
        assert modules and {path.parent for path in modules} <= folders


def test_every_data_pattern_matches_files() -> None:
    for package, patterns in SETUP["package-data"].items():
        assert package in SETUP["packages"]
        for pattern in patterns:
            files = [path for path in folder_of(package).glob(pattern) if path.is_file()]
            assert files, f"package-data of {package}: nothing matches '{pattern}'"


def test_every_file_of_the_packages_is_shipped() -> None:
    shipped: set[Path] = set()
    for package, patterns in SETUP["package-data"].items():
        for pattern in patterns:
            shipped |= set(folder_of(package).glob(pattern))
    for top in ("mmgen", *SIDE):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py":
                assert path in shipped, f"{path.relative_to(ROOT)} would be missing in a wheel"


def test_the_version_can_be_read_without_an_import() -> None:
    """`attr = "mmgen.__version__"` only works from source if it is a plain string."""
    assert SETUP["dynamic"]["version"] == {"attr": "mmgen.__version__"}
    tree = ast.parse((ROOT / "mmgen" / "__init__.py").read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert len(values) == 1 and isinstance(ast.literal_eval(values[0]), str)


def test_the_command_is_there() -> None:
    module, _, name = SETTINGS["project"]["scripts"]["mmgen"].partition(":")
    loaded = importlib.import_module(module)
    assert callable(getattr(loaded, name))


HEAVY = ("torch", "torchvision", "numpy", "PIL", "diffusers", "transformers", "rich", "typer")
IMPORT = """
import json, sys, time
before, began = set(sys.modules), time.process_time()
import {module}
spent = time.process_time() - began
print(json.dumps([spent, sorted(name.split(".")[0] for name in set(sys.modules) - before)]))
"""


def test_importing_the_package_is_cheap() -> None:
    spent, loaded = json.loads(run(IMPORT.format(module="mmgen")))
    assert not set(loaded) & set(HEAVY)
    assert spent < 0.3


def test_importing_the_command_loads_nothing_heavy() -> None:
    _, loaded = json.loads(run(IMPORT.format(module="mmgen.cli")))
    assert not set(loaded) & {"torch", "torchvision", "diffusers", "transformers", "timm"}


def test_the_side_folders_keep_their_bare_names_free() -> None:
    code = """
import sys
import mmgen, mmgen.models.schedule, mmgen.sample.engine, mmgen.train.recipe, mmgen.assets
import mmgen.tokenizers_vis.metrics, mmgen.data.captions
taken = {"models", "sample", "train", "tokenizers_vis", "assets", "data"} & set(sys.modules)
print(sorted(taken), mmgen.models.schedule.__file__)
"""
    assert run(code) == f"[] {ROOT / 'models' / 'schedule.py'}"


def test_an_installed_package_looks_into_itself_alone(tmp_path: Path) -> None:
    inside = tmp_path / "mmgen"
    (inside / "models").mkdir(parents=True)
    (inside / "models" / "__init__.py").write_text("")
    (inside / "__init__.py").write_bytes((ROOT / "mmgen" / "__init__.py").read_bytes())
    (tmp_path / "train").mkdir()  # somebody else's
    (tmp_path / "train" / "__init__.py").write_text("")
    code = """
import importlib.util, mmgen, mmgen.models
print(list(mmgen.__path__), importlib.util.find_spec("mmgen.train"))
"""
    # Without site-packages: there an editable install offers the checkout's own folders.
    assert run(code, cwd=tmp_path, flags=("-S",)) == f"[{str(inside)!r}] None"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    import mmgen

    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        mmgen.Pipelin  # noqa: B018
    from mmgen.pipeline import Pipeline

    assert mmgen.Pipeline is Pipeline


# -- the arrows --------------------------------------------------------------------------------


@pytest.fixture
def layers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("layers", ROOT / ".ci" / "layers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plant(root: Path, files: dict[str, str]) -> None:
    tree = {
        "mmgen/__init__.py": "",
        "mmgen/errors.py": "",
        "mmgen/config.py": "from mmgen.errors import UserError",
        "mmgen/pipeline.py": "from mmgen.sample.engine import decode",
        "mmgen/cli/__init__.py": "import mmgen.pipeline",
        "mmgen/data/__init__.py": "",
        "mmgen/data/captions.py": "from mmgen.errors import UserError",
        "tokenizers_vis/conv.py": "from mmgen.config import from_dict",
        "models/__init__.py": "",
        "models/plan.py": "import mmgen.tokenizers_vis.conv as conv",
        "sample/engine.py": "from mmgen.models import plan",
        "train/loop.py": "from mmgen.pipeline import Pipeline\nfrom mmgen.data import captions",
    }
    for name, text in (tree | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_the_tree_keeps_the_arrows() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "layers.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    modules = [p for top in ("mmgen", *SIDE) for p in (ROOT / top).rglob("*.py")]
    empty = len(list((ROOT / "assets").rglob("*.py")))  # pictures and weights: no code to check
    assert f"{len(modules) - empty} modules, every arrow allowed" in done.stdout


def test_a_tree_in_order_passes(
    layers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, {})
    monkeypatch.setattr(layers, "ROOT", tmp_path)
    assert layers.main() == 0


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("mmgen/errors.py", "import mmgen.models.plan", "mmgen.errors (leaves) imports"),
        ("mmgen/config.py", "from mmgen import data", "imports mmgen.data (data)"),
        ("mmgen/data/captions.py", "from mmgen.models.plan import x", "(data) imports"),
        ("tokenizers_vis/conv.py", "from mmgen.models.plan import x", "mmgen.models.plan (models)"),
        ("models/plan.py", "from mmgen.sample import engine", "imports mmgen.sample.engine"),
        (
            "models/plan.py",
            "def f():\n    import mmgen.sample.engine",
            "mmgen.models.plan (models)",
        ),
        ("models/plan.py", "if True:\n    from mmgen import Pipeline", "imports mmgen (front)"),
        ("sample/engine.py", "from mmgen.train.loop import train", "mmgen.sample.engine (sample)"),
        ("sample/engine.py", "import mmgen.data.captions", "imports mmgen.data.captions (data)"),
        ("train/loop.py", "from mmgen.cli import main", "imports mmgen.cli (front)"),
        ("train/loop.py", "import mmgen", "mmgen.train.loop (train) imports mmgen (front)"),
    ],
)
def test_a_planted_arrow_is_found(
    layers: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    text: str,
    told: str,
) -> None:
    plant(tmp_path, {file: text})
    monkeypatch.setattr(layers, "ROOT", tmp_path)
    assert layers.main() == 1
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("extra", ["text", "dev"])
def test_transformers_is_new_enough(extra: str) -> None:
    """`from_pretrained(dtype=...)` came with 4.56."""
    wanted = SETTINGS["project"]["optional-dependencies"][extra]
    assert [line for line in wanted if line.startswith("transformers")] == ["transformers>=4.56"]
