"""Writing WebDataset shards: tar files whose bytes depend on their content alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from mmgen.files import replacing


def write_shard(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> None:
    """Write one shard, all of it or nothing.

    Args:
        path: the .tar to write.
        samples: pairs of a key (without dots) and its members, extension -> content.
    """
    with (
        replacing(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for key, members in samples:
            for extension, content in members.items():
                # TarInfo's own defaults are a fixed time (0) and owner (0): the bytes repeat.
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                info.mode = 0o644
                tar.addfile(info, io.BytesIO(content))


def split_evenly(count: int, most: int) -> list[range]:
    """Split `range(count)` into the fewest ranges of at most `most`, of nearly equal length."""
    pieces = -(-count // most)
    edges = [count * i // pieces for i in range(pieces + 1)] if pieces else [0]
    return [range(a, b) for a, b in pairwise(edges)]
