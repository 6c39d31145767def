"""What an opened source knows of each sample before it is read: where its bytes lie."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
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

    @property
    def captioned(self) -> bool:
        """Whether captions may be expected."""
        return bool(self.json or self.text or self.captions)
