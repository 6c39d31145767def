from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmgen.cli.data import app
from mmgen.errors import ConfigError, UserError

ROOT = Path(__file__).parents[2]


def test_help_names_the_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from mmgen.cli.data import app; "
        "out = CliRunner().invoke(app, ['emoji', '--help']); assert out.exit_code == 0, out; "
        "assert '--packages' in out.output and '--size' in out.output, out.output; "
        "print([m for m in ('torch', 'torchvision', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PATH": ""},
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_errors_reach_the_main_entry_as_user_errors(tmp_path: Path) -> None:
    for words, kind in (
        (["--size", "48"], ConfigError),
        (["--packages", str(tmp_path)], UserError),
    ):
        result = CliRunner().invoke(app, ["emoji", "--out", str(tmp_path / "out"), *words])
        assert isinstance(result.exception, kind)


def test_the_builder_needs_no_torch() -> None:
    code = "import sys, mmgen.data.emoji, mmgen.data.sources; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_finished_build_says_where_the_licences_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def build(
        out: Path, size: int, packages: Path | None, progress: object, say: object
    ) -> dict[str, object]:
        seen.update(out=out, size=size, packages=packages)
        return {"splits": {"train": {"count": 5}, "val": {"count": 1}}}

    monkeypatch.setattr("mmgen.data.emoji.build_emoji", build)
    result = CliRunner().invoke(app, ["emoji", "--out", str(tmp_path), "--size", "32"])
    assert result.exit_code == 0, result.output
    assert seen == {"out": tmp_path, "size": 32, "packages": None}
    assert "train 5, val 1" in result.output and "LICENSES.md" in result.output.replace("\n", "")
