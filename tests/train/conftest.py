"""Makes the helpers importable, also in the processes that the tests start; tiny data sets."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from tiny_runs import COLOURS, COUNT, FSQ, SIZE, run_tokenizer, sizes, tokenizer_recipe

from mmgen.tokenizers_vis.conv import ConvTokenizer


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Starts processes forked from a server that has imported PyTorch once (milliseconds each)."""
    context = multiprocessing.get_context("forkserver")
    # The first optimiser of a process imports torch._dynamo, which takes seconds.
    context.set_forkserver_preload(["torch._dynamo", "accelerate", "safetensors.torch", "yaml"])
    return context


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    for i in range(COUNT):
        picture = Image.new("RGB", (SIZE, SIZE), COLOURS[i % 5])
        picture.paste("grey", (i, 2, i + 4, 9))
        picture.save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a {COLOURS[i % 5]} thing number {i}", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One colour, so that nearly all codes die."""
    folder = tmp_path_factory.mktemp("data") / "plain"
    folder.mkdir()
    for i in range(COUNT):
        Image.new("RGB", (SIZE, SIZE), "red").save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("red")
    return folder


@pytest.fixture(scope="session")
def chipped(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures, one of them broken."""
    folder = tmp_path_factory.mktemp("data") / "chipped"
    shutil.copytree(pictures, folder)
    (folder / "3.png").write_text("no picture")
    return folder


@pytest.fixture(scope="session")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = ConvTokenizer(sizes(FSQ))
    with torch.no_grad():
        model.to_code.weight *= 20  # else all pictures have the same codes
    folder = tmp_path_factory.mktemp("vision")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of six steps without a break."""
    out = tmp_path_factory.mktemp("runs") / "tokenizer"
    run_tokenizer(tokenizer_recipe(pictures, out))
    return out
