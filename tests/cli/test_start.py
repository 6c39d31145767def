"""What a user waits for before anything happens: imports, and the memory that they take."""

from __future__ import annotations

import json
import resource
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mmgen import __version__

HEAVY = {"torch", "numpy", "PIL", "tokenizers", "torchvision", "diffusers", "accelerate", "timm"}
NOT_FOR_SAMPLING = (
    *("torchvision", "diffusers", "accelerate", "timm", "transformers", "huggingface_hub"),
    *("hypothesis", "pytest", "rich", "yaml", "scipy", "pandas", "matplotlib"),
    *("torch._dynamo", "torch._inductor", "sympy", "mmgen.train", "mmgen.data"),
)
MEASURED = """
import json, resource, runpy, sys
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
import torch
bare = peak()
try:
    runpy.run_module("mmgen", run_name="__main__", alter_sys=True)
finally:
    print(json.dumps({"modules": list(sys.modules), "torch": bare, "whole": peak()}))
"""

INTERRUPTED = """
import importlib, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
moment, module, name = sys.argv.pop(1), *sys.argv.pop(1).split(":")
class Interrupt:
    def find_spec(self, module, path=None, target=None):
        if module == moment:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
getattr(importlib.import_module(module), name)()
"""
SETTINGS = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["sample", "--help"],
        ["edit", "--help"],
        ["caption", "--help"],
        ["score", "--help"],
        ["replay", "--help"],
        ["train", "--help"],
        ["import", "--help"],
        ["models", "--help"],
        ["eval", "generator", "--help"],
    ],
)
def test_help_is_quick_and_loads_nothing_heavy(
    words: list[str], python: Any, tmp_path: Path
) -> None:
    before = cpu_seconds()
    done = python("-X", "importtime", "-m", "mmgen", *words, cwd=tmp_path)
    # Processor time: the clock on the wall also measures what else this machine does.
    assert done.code == 0 and cpu_seconds() - before < 0.5
    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert "typer" in loaded and not loaded & HEAVY
    assert "Usage:" in done.out and "╭" not in done.out


@pytest.mark.parametrize("words", [["show", "emoji-64"], ["show", "xar/xAR-B"], ["models"]])
def test_cards_need_no_torch(words: list[str], python: Any, tmp_path: Path) -> None:
    done = python("-X", "importtime", "-m", "mmgen", *words, cwd=tmp_path)
    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert done.code == 0 and done.out and "typer" in loaded and not loaded & HEAVY


def test_the_version_is_told(python: Any, tmp_path: Path) -> None:
    done = python("-m", "mmgen", "--version", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, f"{__version__}\n", "")


def test_a_wrong_name_is_refused_before_torch_loads(python: Any, tmp_path: Path) -> None:
    words = ("-X", "importtime", "-m", "mmgen", "sample", "a cat", "--model", "nothing")
    done = python(*words, cwd=tmp_path)
    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert done.code == 2 and "no pipeline 'nothing'" in done.err and "torch" not in loaded


@pytest.mark.parametrize("moment", ["typer", "mmgen.cli.train", "mmgen.pipeline_folder", "torch"])
def test_ctrl_c_while_imports_run_is_one_line(
    moment: str, python: Any, tiny: Path, tmp_path: Path
) -> None:
    command = SETTINGS["project"]["scripts"]["mmgen"]
    words = ("sample", "a cat", "--model", tiny, "-o", "a.png")
    done = python("-c", INTERRUPTED, moment, command, *words, cwd=tmp_path)
    assert (done.code, done.out, done.err) == (130, "", "mmgen: Stopped by Ctrl-C.\n")
    assert not list(tmp_path.iterdir())


def test_sampling_loads_only_what_it_needs(python: Any, tiny: Path, tmp_path: Path) -> None:
    words = ("sample", "a red apple", "-n", 2, "--seed", 1, "--model", tiny, "-o", "apple.png")
    done = python("-c", MEASURED, *words, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    *files, measured = done.out.splitlines()
    assert files == ["apple-1.png", "apple-2.png", "apple.png"]
    facts = json.loads(measured)
    unwanted = [name for name in facts["modules"] if name.startswith(NOT_FOR_SAMPLING)]
    assert not unwanted, unwanted
    assert facts["whole"] < facts["torch"] + 100, facts  # MiB; the tiny weights are nothing
