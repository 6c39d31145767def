"""WebDataset shards: brace ranges, and an index of every member so that samples are read at random.

A shard is an uncompressed tar whose members `KEY.EXT` with one KEY form a sample; KEY ends at the
first dot of the file name. Nothing is ever extracted, so names in a tar cannot do harm.
"""

from __future__ import annotations

import itertools
import re
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from mmgen.data.index import Entry, Span, distinct_names
from mmgen.data.pictures import EXTENSIONS
from mmgen.errors import DataError

SHARD_LIMIT = 100_000


def expand_braces(pattern: str) -> list[str]:
    """Expand `{0000..0003}` and `{a,b}`, any number of them, leftmost slowest.

    A range is ascending; its numbers have the width of the ends when one of those begins with 0.

    Raises:
        DataError: braces that do not pair, are nested or empty, or that make too many names.
    """
    pieces = re.split(r"(\{[^{}]*\})", pattern)
    if any("{" in piece or "}" in piece for piece in pieces[::2]):
        raise DataError(f"The braces of '{pattern}' do not pair; write for example {{0000..0003}}.")
    options: list[list[str]] = []
    total = 1
    for place, piece in enumerate(pieces):
        options.append(_options(piece[1:-1], pattern) if place % 2 else [piece])
        total *= len(options[-1])
        if total > SHARD_LIMIT:
            raise DataError(f"'{pattern}' names more than {SHARD_LIMIT} shards; name fewer.")
    return ["".join(parts) for parts in itertools.product(*options)]


def index_shards(paths: list[Path], also: tuple[str, ...] = ()) -> list[Entry]:
    """Index the samples of several shards, in their order: pictures, and what ends in `also`.

    A key that occurs in several shards is given as `SHARD/KEY`, with folders where names repeat.

    Raises:
        DataError: a shard is missing, named twice, or not a whole, uncompressed tar.
    """
    if len(set(paths)) < len(paths):
        twice = next(path for path, times in Counter(paths).items() if times > 1)
        raise DataError(f"The shard {twice} is named twice; name it once.")
    names = distinct_names([path.with_suffix("") for path in paths])
    shards = [(name, index_shard(path, also)) for name, path in zip(names, paths)]
    times = Counter(entry.key for _, entries in shards for entry in entries)
    return [
        replace(entry, key=f"{name}/{entry.key}") if times[entry.key] > 1 else entry
        for name, entries in shards
        for entry in entries
    ]


def index_shard(path: Path, also: tuple[str, ...] = ()) -> list[Entry]:
    """Index one shard by reading the headers only.

    Raises:
        DataError: it is missing, or not a whole, uncompressed tar.
    """
    samples: dict[str, dict[str, Span]] = {}
    flaws: dict[str, str] = {}
    for name, span in _members(path):
        folder, _, file = name.rpartition("/")
        stem, _, extension = file.partition(".")
        extension = extension.lower()
        if not stem or extension not in (*EXTENSIONS, *also, "json", "txt"):
            continue
        key = f"{folder}/{stem}" if folder else stem
        sample = samples.setdefault(key, {})
        if extension in sample:
            flaws[key] = f"{path} holds its .{extension} twice"
        sample[extension] = span
    return [
        _entry(key, sample, flaws.get(key, ""), (*EXTENSIONS, *also))
        for key, sample in samples.items()
    ]


def _entry(key: str, sample: dict[str, Span], flaw: str, known: tuple[str, ...]) -> Entry:
    pictures = [sample[extension] for extension in known if extension in sample]
    if len(pictures) > 1:
        flaw = flaw or "it has several pictures"
    return Entry(
        key,
        picture=pictures[0] if pictures else None,
        json=sample.get("json"),
        text=sample.get("txt"),
        flaw=flaw,
    )


def _options(inside: str, pattern: str) -> list[str]:
    """Expand what stands between two braces."""
    ends = re.fullmatch(r"([0-9]{1,18})\.\.([0-9]{1,18})", inside)
    if ends is None:
        if ".." in inside or "," not in inside:
            raise DataError(
                f"Cannot understand '{{{inside}}}' in '{pattern}'; write a range such as "
                "{0000..0003} or a list such as {a,b}."
            )
        return inside.split(",")
    first, last = int(ends[1]), int(ends[2])
    if last < first or last - first >= SHARD_LIMIT:
        raise DataError(
            f"The range '{{{inside}}}' in '{pattern}' must ascend and name at most "
            f"{SHARD_LIMIT} shards."
        )
    padded = any(len(end) > 1 and end.startswith("0") for end in ends.groups())
    width = max(map(len, ends.groups())) if padded else 0
    return [str(number).zfill(width) for number in range(first, last + 1)]


def _members(path: Path) -> list[tuple[str, Span]]:
    """List name and place of the regular files of a tar, and check that the tar is whole."""
    found = []
    try:
        with tarfile.open(path, "r:") as tar:
            end = -1
            for member in tar:
                if member.size < 0 or member.offset_data <= end:
                    raise DataError(_broken(path, "a header points backwards"))
                end = member.offset_data
                if member.isreg() and not member.issparse():
                    found.append((member.name, Span(path, member.offset_data, member.size)))
            finish = tar.offset
        _check_end(path, finish)
    except FileNotFoundError:
        raise DataError(f"There is no shard {path}; check the name.") from None
    except DataError:
        raise
    except Exception as error:  # tarfile meets damage with any kind of exception
        raise DataError(_broken(path, " ".join(str(error).split()) or "unreadable")) from None
    return found


def _check_end(path: Path, finish: int) -> None:
    """Check that zero blocks, and nothing else, follow the last member.

    The standard reader stops without a word at a damaged header or where a tar was cut between
    two members.
    """
    with path.open("rb") as file:
        file.seek(finish)
        zeros = 0
        while chunk := file.read(1 << 20):
            zeros += len(chunk)
            if chunk.strip(b"\0"):
                raise DataError(_broken(path, "a header is damaged, or tars were joined"))
    if zeros < tarfile.BLOCKSIZE:
        raise DataError(_broken(path, "the end mark is missing"))


def _broken(path: Path, reason: str) -> str:
    return (
        f"The shard {path} is truncated, damaged or not an uncompressed tar ({reason}); "
        "fetch or write it again."
    )
