"""A progress bar for anything that may take longer than two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DELAY = 1.0  # seconds before a bar appears, so that short work stays quiet


@contextmanager
def progress_of(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback `(done, total)` that keeps a bar on standard error up to date.

    Args:
        title: what is being done.
    """
    from rich.console import Console
    from rich.progress import Progress

    started = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True, disable=False) as bar:
        task = bar.add_task(title, total=None, visible=False)

        def update(done: int, total: int) -> None:
            late = time.monotonic() - started > DELAY
            bar.update(task, completed=done, total=total, visible=late)

        yield update
