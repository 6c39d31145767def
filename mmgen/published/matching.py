"""Which official file is what: the parts of a system that given files make up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmgen.errors import CheckpointError
from mmgen.published.catalogue import COMPANIONS
from mmgen.published.keymap import shown
from mmgen.published.reading import Checkpoint
from mmgen.published.systems import Part, Shapes, shapes_of
from mmgen.saving import listed

TRIED = 32  # keys that may be the one too many in a file

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Share:
    """What a file gives to a part: its checkpoint, what its keys get, its rank where keys repeat.

    A file that is a whole part has rank 0, pieces count from 1.
    """

    checkpoint: Checkpoint
    prefix: str = ""
    rank: int = 0


@dataclass(frozen=True)
class Match:
    """A part, and the files that may make it up."""

    part: Part
    shares: tuple[Share, ...]

    @property
    def where(self) -> str:
        """The files, as messages call them."""
        return " and ".join(str(share.checkpoint.path) for share in self.shares)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of all files, by official key."""
        return {
            share.prefix + key: tensor
            for share in sorted(self.shares, key=lambda share: share.rank)
            for key, tensor in share.checkpoint.tensors.items()
        }

    def complete(self) -> bool:
        """Whether the files are enough."""
        return bool(self.shares) and self.part.recognise(shapes_of(self.tensors()))

    def missing(self) -> list[str]:
        """Names of the pieces that no file gives."""
        given = {share.rank for share in self.shares}
        return [p.name for rank, p in enumerate(self.part.pieces, start=1) if rank not in given]


def match(system: str, checkpoints: Sequence[Checkpoint], known: Sequence[Part]) -> list[Match]:
    """Find the parts that the files make up.

    Args:
        system: whose files they are; files of systems that it is used with may be among them.
        checkpoints: the files.
        known: all parts of all systems.

    Raises:
        CheckpointError: a file belongs to no part, to another system, or is not enough alone.
    """
    candidates = [_shares(part, checkpoints) for part in known if part.system == system]
    found = [candidate for candidate in candidates if candidate.complete()]
    if found:
        rest = [c for c in checkpoints if not _used(c, found)]
        others = [part for part in known if part.system in COMPANIONS.get(system, ())]
        found += [m for part in others if (m := _shares(part, rest)).complete()]
    for checkpoint in checkpoints:
        if not _used(checkpoint, found):
            raise _unknown(system, checkpoint, candidates, known)
    return _without_embedded(_widest(found))


def _shares(part: Part, checkpoints: Sequence[Checkpoint]) -> Match:
    """The files that may be shares of `part`."""
    shares = [share for c in checkpoints if (share := _share(part, c)) is not None]
    whole = [share.checkpoint.path for share in shares if not share.rank]
    if len(whole) > 1:
        raise CheckpointError(
            f"{whole[0]} and {whole[1]} are both the {part.name} of {part.system}; give one."
        )
    return Match(part, tuple(shares))


def _share(part: Part, checkpoint: Checkpoint) -> Share | None:
    shapes = shapes_of(checkpoint.tensors)
    if part.recognise(shapes):
        return Share(checkpoint)
    for rank, piece in enumerate(part.pieces, start=1):
        if piece.recognise(shapes):
            return Share(checkpoint, piece.prefix, rank)
    return None


def _used(checkpoint: Checkpoint, matches: Sequence[Match]) -> bool:
    return any(share.checkpoint is checkpoint for found in matches for share in found.shares)


def _widest(matches: list[Match]) -> list[Match]:
    """Without those whose files are all among the files of another one that has more."""
    files = [{id(share.checkpoint) for share in found.shares} for found in matches]
    return [found for found, own in zip(matches, files) if not any(own < other for other in files)]


def _without_embedded(matches: list[Match]) -> list[Match]:
    """A component in a file of its own goes before one that lies in another's file."""
    own = {found.part.component for found in matches if not found.part.embedded}
    return [m for m in matches if not (m.part.embedded and m.part.component in own)]


def _unknown(
    system: str, checkpoint: Checkpoint, candidates: Sequence[Match], known: Sequence[Part]
) -> CheckpointError:
    """Say what the file is instead, as far as anything knows it."""
    path = checkpoint.path
    for candidate in candidates:
        if _used(checkpoint, [candidate]):
            lacking = " and ".join(candidate.missing()) or "rest"
            return CheckpointError(
                f"{path} is only a share of the {candidate.part.name} of {system}; also give the "
                f"file of its {lacking}."
            )
    for part in known:
        if part.recognise(shapes_of(checkpoint.tensors)):
            return CheckpointError(
                f"{path} is not of {system}: it is the {part.name} of {part.system}; write "
                f"`mmgen import {part.system}`."
            )
    if nearly := _nearly(checkpoint, [part for part in known if part.system == system]):
        return nearly
    kinds = ", ".join(part.name for part in known if part.system == system)
    first = ", ".join(shown(key) for key in list(checkpoint.tensors)[:3])
    return CheckpointError(f"{path} is none of {system}'s files ({kinds}): it holds {first}.")


def _nearly(checkpoint: Checkpoint, own: Sequence[Part]) -> CheckpointError | None:
    """Name what keeps a file from being of a kind: few tensors too many, or too few."""
    shapes = shapes_of(checkpoint.tensors)
    for part in own:
        if strays := _strays(part, shapes):
            said = listed("tensor", strays, shown)
            return CheckpointError(
                f"{checkpoint.path} is the {part.name} of {part.system} but for {said}, which no "
                "such file has; remove what is too much."
            )
    lacking = [(sorted(part.needed - shapes.keys()), part) for part in own]
    few = [(keys, part) for keys, part in lacking if 0 < 2 * len(keys) < len(part.needed)]
    if not few:
        return None
    keys, part = min(few, key=lambda found: len(found[0]))
    said = listed("tensor", keys, shown)
    return CheckpointError(
        f"{checkpoint.path} is the {part.name} of {part.system} but for {said}, "
        "which it lacks; get the whole file."
    )


def _oddest(shapes: Shapes, needed: Collection[str]) -> list[str]:
    """The keys to try first as one too many: those whose form, numbers aside, is rarest."""
    forms = {key: re.sub(r"\d+", "#", key) for key in shapes if key not in needed}
    often = Counter(forms.values())
    return sorted(forms, key=lambda key: often[forms[key]])[:TRIED]


def _strays(part: Part, shapes: Shapes) -> list[str]:
    """The keys without which a file would be the part; at most a fifth of all, or one."""
    # A file of another system has many keys that none of this part's looks like: not tried.
    for key in _oddest(shapes, part.needed):
        if part.recognise({other: shape for other, shape in shapes.items() if other != key}):
            return [key]
    groups: dict[str, list[str]] = {}
    for key in shapes:
        groups.setdefault(key.partition(".")[0], []).append(key)
    small = [
        key
        for keys in groups.values()
        for key in keys
        if 5 * len(keys) <= len(shapes) and key not in part.needed
    ]
    rest = {key: shape for key, shape in shapes.items() if key not in small}
    return small if 5 * len(small) <= len(shapes) and part.recognise(rest) else []
