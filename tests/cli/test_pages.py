"""Every command and snippet of README and docs: run, or only parsed.

Run: Python, and `mmgen` commands, except that `mmgen train` only prints its settings
(`--print-config`). Parsed: what a mark above its block says is not run, and why. Of `pip` and
`python3` lines the extras alone are checked here; `.ci/run` runs those of README's first block.
"""

from __future__ import annotations

import ast
import importlib
import shutil
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from pages import PAGES, REASONS, ROOT, Block, blocks_of
from PIL import Image
from tiny_latents import latent_pipeline

sys.path.insert(0, str(ROOT / "tests"))
from tiny_clips import animation, grey_frames

from mmgen.pipeline import Pipeline
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import KLConfig
from tests.tiny_clip_pipeline import tiny_clips

CONTINUOUS = ConvTokenizerConfig(
    KLConfig(channels=4), 1, (8, 16), 1, 2, (), z_channels=4, norm_groups=4
)
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
WITH_BLOCKS = [page for page in PAGES if blocks_of(page)]


def test_pages_have_blocks_and_good_reasons() -> None:
    assert len(BLOCKS) > 15
    wrong = [f"{b.place}: {b.reason}" for b in BLOCKS if b.reason and b.reason not in REASONS]
    assert not wrong, wrong


@pytest.fixture
def world(tmp_path: Path, pictures: Path, tiny: Path) -> Path:
    """A folder as a reader has it: pictures of one's own, the emoji set, runs that have ended."""
    shutil.copytree(pictures, tmp_path / "my/pictures")
    for i in range(3):
        (tmp_path / "my/clips").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"my/clips/{i}.webp").write_bytes(animation(grey_frames(12, step=10 + i)))
        (tmp_path / f"my/clips/{i}.txt").write_text(f"clip {i}")
    for name in ("emoji64-tokenizer", "my-tokenizer"):
        shutil.copytree(tiny / "vision", tmp_path / "runs" / name / "final")
    for name in ("emoji64-generator", "my-generator"):
        shutil.copytree(tiny, tmp_path / "runs" / name / "final")
    ConvTokenizer(CONTINUOUS).save_pretrained(tmp_path / "runs/my-kl/final")
    latent_pipeline().save_pretrained(tmp_path / "runs/my-next-x/final")
    shards = tmp_path / "data/emoji"
    shards.mkdir(parents=True)
    for split in ("train-0000", "val-0000", "test_pair-0000", "test_concept-0000"):
        with tarfile.open(shards / f"{split}.tar", "w") as shard:
            for file in sorted(pictures.glob("*.*")):
                shard.add(file, file.name)
    picture = Pipeline.from_pretrained()("a red apple", seed=1).images[0]
    for name, size in (("apple.png", (256, 256)), ("cat.jpg", (400, 300))):
        picture.resize(size).save(tmp_path / name)
    mask = Image.new("L", (256, 256))
    mask.paste(255, (64, 64, 192, 192))
    mask.save(tmp_path / "mask.png")
    tiny_clips().save_pretrained(tmp_path / "my-clips")
    (tmp_path / "prompts.txt").write_text("a red apple\na rocket\n")
    return tmp_path


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_can_be_followed(page: Path, world: Path, mmgen: Any, python: Any) -> None:
    for block in blocks_of(page):
        if block.reason:
            continue
        if block.language == "python":
            done = python("-c", block.text, cwd=world)
            assert done.code == 0, f"{block.place}: {done.err}"
            continue
        for words in block.commands:
            if words[0] == "mmgen":
                look = (
                    ["--print-config"]
                    if words[1] == "train" and "--print-config" not in words
                    else []
                )
                done = mmgen(*words[1:], *look, cwd=world)
                assert done.code == 0, f"{block.place}: {' '.join(words)}: {done.err}"
            else:
                assert words[0] in ("pip", "python3"), f"{block.place}: what is {words[0]}?"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_what_a_block_names_exists(block: Block) -> None:
    if block.language == "python":
        _check_imports(block)
        return
    for words in block.commands:
        if words[0] == "mmgen":
            _check_options(words[1:], block.place)
        elif words[:2] == ["pip", "install"] or ".venv/bin/pip" in words:
            _check_extras(words, block.place)


def _check_imports(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmgen"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block.place}: {node.module}.{alias.name}"


def _check_options(words: list[str], place: str) -> None:
    """Parse a command line without running it."""
    from mmgen.cli import app

    command = typer.main.get_command(app)
    context = click.Context(command)
    while hasattr(command, "get_command"):
        name, words = words[0], words[1:]
        found = command.get_command(context, name)
        assert found is not None, f"{place}: there is no command '{name}'"
        command = found
        context = click.Context(command, parent=context)
    try:
        command.make_context(command.name, list(words))
    except click.exceptions.Exit:  # --help
        pass
    except click.ClickException as error:
        pytest.fail(f"{place}: {error.format_message()}")


def _check_extras(words: list[str], place: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for word in words:
        if word.startswith(".["):
            for name in word[2:-1].split(","):
                assert name in extras, f"{place}: there is no extra '{name}'"
