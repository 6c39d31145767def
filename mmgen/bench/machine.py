"""What a machine can do: its processor, how fast it reads memory, and how much a process took."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import mmgen

READ_FLOATS = 2**27  # 512 MiB, more than any cache holds
ACROSS = 4096


@dataclass(frozen=True)
class Machine:
    """What figures depend on besides the program.

    Args:
        processor: its name.
        threads: that PyTorch uses.
        torch: version.
        mmgen: version.
        read_gb_s: 10^9 bytes of memory that these threads read in a second.
        busy: how many processes wanted to run when it was looked at, on average; None: unknown.
    """

    processor: str
    threads: int
    torch: str
    mmgen: str
    read_gb_s: float
    busy: float | None


def look_around() -> Machine:
    """Facts of this machine; takes half a second."""
    return Machine(
        processor=processor_name(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        mmgen=mmgen.__version__,
        read_gb_s=_read_speed(),
        busy=_load_average(),
    )


def processor_name() -> str:
    """Name of the processor, or of its kind where the system tells no more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def best_of(times: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def forget_peak() -> None:
    """Let `peak_bytes` begin anew, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """Most memory that this process had at once since `forget_peak`, or since it began."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def _read_speed() -> float:
    # A matrix times a vector reads the matrix once and writes next to nothing, as decoding does.
    matrix, vector = torch.ones(READ_FLOATS // ACROSS, ACROSS), torch.ones(ACROSS)
    return 4 * READ_FLOATS / best_of(3, lambda: torch.mv(matrix, vector)) / 1e9


def _load_average() -> float | None:
    import os

    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
