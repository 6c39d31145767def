"""What an opened source knows of each sample before it is read: where its bytes lie."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from mmgen.data.pictures import BadSample


class Piece(Protocol):
    """Bytes of a sample, wherever they lie."""

    @property
    def origin(self) -> Hashable:
        """What holds them: a file, a table."""

    @property
    def state(self) -> object:
        """What changes when that is written anew."""

    def read(self, key: str, limit: int) -> bytes:
        """The bytes; raises `BadSample` if they cannot be had or are more than `limit`."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a file; `size` None means the whole file."""

    path: Path
    offset: int = 0
    size: int | None = None

    @property
    def origin(self) -> Path:
        """The file."""
        return self.path

    @property
    def state(self) -> object:
        """Name, size and time of the file."""
        state = self.path.stat() if self.path.exists() else None
        return self.path.name, state and (state.st_size, state.st_mtime_ns)

    def read(self, key: str, limit: int) -> bytes:
        """Return the bytes.

        Args:
            key: what to call the sample in errors.
            limit: most bytes allowed.

        Raises:
            BadSample: the file is gone, unreadable, shorter than it was, or over the limit.
        """
        if self.size is None and self.path.is_fifo():  # opening one would wait for a writer
            raise BadSample(key, f"{self.path} is a pipe, not a file")
        most = limit + 1 if self.size is None else min(self.size, limit + 1)
        try:
            # Opened anew each time: handles cannot be shared between threads and processes.
            with self.path.open("rb") as file:
                file.seek(self.offset)
                content = file.read(most)
        except OSError as error:
            raise BadSample(key, f"{self.path} cannot be read ({error.strerror})") from None
        if len(content) > limit:
            raise BadSample(key, f"a file of it in {self.path} is larger than {limit} bytes")
        if self.size is not None and len(content) < self.size:
            raise BadSample(key, f"{self.path} has become shorter")
        return content


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample of a source.

    Captions stand in `json` (a record), else in `text` (one caption), else in `captions`
    (already read: strings or [text, weight] pairs). `flaw` is a reason why it cannot be used.
    """

    key: str
    picture: Piece | None = None
    json: Piece | None = None
    text: Piece | None = None
    captions: tuple[object, ...] = ()
    flaw: str = ""


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of different paths, in whole parts and all of one depth, that differ."""
    names = [path.name for path in paths]
    for depth in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        if len(set(names)) == len(paths):
            break
        names = [Path(*path.parts[-depth:]).as_posix() for path in paths]
    return names


def path_inside(folder: Path, name: str) -> Path | None:
    """The file that a table calls `name`; None: it would lie outside of its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
        return None
    return folder / path
