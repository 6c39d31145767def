"""Runs commands through the entry point without the seconds that importing PyTorch takes.

A process that has imported what commands need forks for each of them: the child becomes
`python -m mmgen WORDS` in its own folder with its own standard streams. Requests are lines of JSON
on standard input, answers lines on standard output.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import sys
from typing import Any

PRELOADED = (
    "torch._dynamo",  # the first optimiser of a process imports it
    "torchvision.transforms.v2",
    "mmgen.tokenizer_check",
    "mmgen.sample.text",
    "mmgen.train.generator_task",
    "mmgen.train.loop",
    "mmgen.train.tokenizer_task",
)


def serve() -> None:
    """Answer requests until standard input ends."""
    for module in PRELOADED:
        importlib.import_module(module)
    from tiny_pipeline import tiny_pipeline
    from typer.testing import CliRunner

    from mmgen.cli import app

    tiny_pipeline()("warm up", seed=0)  # what PyTorch prepares at first use takes a second
    CliRunner().invoke(app, ["orders", "warm-up"])  # typer imports the rest when it parses
    gc.collect()
    gc.freeze()  # children share these pages as long as the collector does not touch them
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
        elif child := os.fork():
            print(child, flush=True)
        else:
            os._exit(become_command(request))  # taking down the whole heap takes a second, too


def become_command(request: dict[str, Any]) -> int:
    """Do what `python -m mmgen` does; returns its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    os.chdir(request["cwd"])
    for number, path in enumerate((os.devnull, request["out"], request["err"])):
        flags = os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY
        os.dup2(os.open(path, flags), number)
    if request["plain"] and os.geteuid() == 0:
        give_up_capabilities()
    sys.argv = ["mmgen", *request["words"]]
    code: Any = 0
    try:
        runpy.run_module("mmgen", run_name="__main__", alter_sys=True)
    except SystemExit as leave:
        code = leave.code or 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    sys.stdout.flush()
    return code if isinstance(code, int) else 1


def give_up_capabilities() -> None:
    """Make file permissions bind root too, as they bind everyone else."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) == 0


if __name__ == "__main__":
    serve()
