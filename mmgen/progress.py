"""A progress bar for anything that may take longer than two seconds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress

Progress = Callable[[int, int], None]  # (done, in all)
Stage = Callable[[str], AbstractContextManager[Progress]]  # of a named piece of work

DELAY = 1.0  # seconds before a bar appears, so that short work stays quiet


@contextmanager
def progress_of(title: str) -> Iterator[Progress]:
    """Yield a callback `(done, total)` that keeps a bar on standard error up to date.

    The bar appears after `DELAY`, also when nothing was reported by then, and is gone at the end.
    Where standard error is no terminal there is none.

    Args:
        title: what is being done.
    """
    bar = _Bar(title)
    timer = threading.Timer(DELAY, bar.show)
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield bar.update
    finally:
        timer.cancel()
        bar.close()


class _Bar:
    """A bar of rich, which is only imported when one is shown."""

    def __init__(self, title: str) -> None:
        self._title, self._closed = title, False
        self._done, self._total = 0, 0
        self._bar: rich.progress.Progress | None = None
        self._lock = threading.Lock()  # the timer's thread shows, the caller's closes

    def show(self) -> None:
        import rich.progress
        from rich.console import Console

        with self._lock:
            if self._closed:
                return
            bar = rich.progress.Progress(console=Console(stderr=True), transient=True)
            bar.add_task(self._title, total=self._total or None, completed=self._done)
            bar.start()
            self._bar = bar  # last: the other thread may update it from here on

    def update(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._bar is not None:
                self._bar.stop()
