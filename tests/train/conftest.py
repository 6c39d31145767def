"""Makes `tiny_task` importable, also in the processes that the tests start."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Starts processes forked from a server that has imported PyTorch once (milliseconds each)."""
    context = multiprocessing.get_context("forkserver")
    # The first optimiser of a process imports torch._dynamo, which takes seconds.
    context.set_forkserver_preload(["torch._dynamo", "accelerate", "safetensors.torch", "yaml"])
    return context
