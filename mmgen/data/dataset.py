"""Captioned pictures as training batches: deterministic, resumable at any batch.

What a batch holds depends on (seed, epoch, its number) alone: the order is a permutation keyed by
seed and epoch, and what is drawn for a sample (its caption, the drop, the flip) is keyed by seed,
epoch and the sample's index. A bad sample's place is taken by another one that is drawn with the
same key, so that a batch never depends on what came before it.

`TextDataset` knows this much; a `Reader` knows pictures (here) or clips (clip_dataset.py).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from mmgen.data.captions import Caption
from mmgen.data.draws import SampleDraw, epoch_order, sample_draw
from mmgen.data.fit import as_float, fit_bytes, is_square
from mmgen.data.pictures import BadSample
from mmgen.data.reports import refuse_many_bad, report_bad, report_cropped
from mmgen.data.sources import Source, open_source
from mmgen.errors import ConfigError, DataError

_STAND_IN = 3  # what a key of random numbers is for; draws.py has 1 and 2
_STAND_INS = 100  # tries to replace one bad sample

T = TypeVar("T")


@dataclass
class Item:
    """One sample, a picture (3, H, W) or a clip (3, T, H, W), float32 in [-1, 1].

    With all its captions and its key.
    """

    pixels: Tensor
    captions: tuple[Caption, ...]
    key: str


@dataclass
class Batch:
    """Pixels (B, 3, H, W) or (B, 3, T, H, W) float32 in [-1, 1]; a caption and a key each.

    The caption is drawn, "" if dropped.
    """

    pixels: Tensor
    captions: list[str]
    keys: list[str]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with its pixels on `device` (the training loop calls this)."""
        return replace(self, pixels=self.pixels.to(device, non_blocking=non_blocking))


class Reader(Protocol[T]):
    """How samples of one kind come from a source: what is kept of one, and what is shown of it."""

    @property
    def image_size(self) -> int:
        """Pixels a side of what is shown."""

    def read(self, source: Source, index: int) -> tuple[T, bool]:
        """Decode one sample; and whether more than a hair of it was cropped. Raises `BadSample`."""

    def size(self, kept: T) -> int:
        """Bytes of memory that it takes."""

    def show(self, kept: T, draw: SampleDraw | None) -> Tensor:
        """Pixels (3, ..., H, W) uint8 for one visit; None: nothing is drawn."""


class TextDataset(Generic[T]):
    """Captioned samples of one size from shards or a folder."""

    def __init__(
        self,
        source: Source,
        reader: Reader[T],
        *,
        drop_caption: float = 0.1,
        flip: bool = False,
        limit_bad: float = 0.01,
        cache_bytes: int = 1 << 30,
        workers: int = 2,
    ) -> None:
        """Open a data set; see `ImageTextDataset` for the arguments.

        Raises:
            ConfigError: an argument is out of its range.
        """
        for name, value in (("image_size", reader.image_size), ("workers", workers)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}.")
        if not (0 <= drop_caption <= 1 and 0 <= limit_bad <= 1):
            raise ConfigError("drop_caption and limit_bad are fractions from 0 to 1.")
        self.source, self.reader = source, reader
        self.image_size = reader.image_size
        self.drop_caption = drop_caption
        self.flip = flip
        self.limit_bad = limit_bad
        self.workers = workers
        self.seen = np.zeros(len(source), dtype=bool)
        """Which samples were met so far, bad or not, in this process."""
        self.bad: dict[str, str] = {}
        """Key and reason of each bad sample met so far."""
        self.cropped = np.zeros(len(source), dtype=bool)
        """Which samples met so far lost more than a hair at their longer sides."""
        self._cache: dict[int, tuple[T, tuple[Caption, ...]]] = {}
        self._room, self._lock = cache_bytes, threading.Lock()
        self._keys = source.keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Item:
        """Return one sample with all its captions, neither dropped nor flipped.

        Raises:
            BadSample: it cannot be used.
        """
        return self.view(range(len(self))[index], 0)

    def view(self, index: int, number: int) -> Item:
        """Return one sample as visit `number` of it is drawn, with all its captions.

        Args:
            index: of the sample.
            number: 0: nothing is drawn, as by `[index]`.

        Raises:
            BadSample: it cannot be used.
        """
        kept, captions = self._load(index)
        shown = self.reader.show(kept, sample_draw(0, number, index) if number else None)
        return Item(as_float(shown), captions, self._keys[index])

    def batches_per_epoch(self, batch_size: int, world: int = 1) -> int:
        """Return the number of whole batches of an epoch; the rest is left out."""
        return len(self) // (batch_size * world)

    def epoch(
        self,
        epoch: int,
        batch_size: int,
        *,
        seed: int,
        start_batch: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch, whole ones only.

        Args:
            epoch: its number, from 0.
            batch_size: samples in a batch of one rank.
            seed: of the run; not negative.
            start_batch: first batch to yield; the stream from there on is that of a whole epoch.
            rank: this process; batch b of all ranks together is batch b of one process with
                `batch_size * world`.
            world: number of processes.

        Raises:
            ConfigError: an argument is out of its range.
            DataError: there are fewer samples than a batch needs, or (while iterating) too many
                are bad.
        """
        if batch_size < 1 or not 0 <= rank < world or min(epoch, seed, start_batch) < 0:
            raise ConfigError(
                f"batch_size {batch_size} must be at least 1, rank {rank} below world {world}, and "
                f"epoch {epoch}, seed {seed} and start_batch {start_batch} not negative."
            )
        batches = self.batches_per_epoch(batch_size, world)
        if batches == 0:
            raise DataError(
                f"{self.source.name} has {len(self)} samples, fewer than one batch of "
                f"{batch_size * world}; use a smaller batch."
            )
        order = epoch_order(seed, epoch, len(self))
        starts = [(b * world + rank) * batch_size for b in range(start_batch, batches)]
        return self._stream([order[s : s + batch_size] for s in starts], (seed, epoch))

    def report(self) -> str:
        """Say in one line how many samples were bad so far, and name them with their reasons."""
        return report_bad(self.bad, len(self), self.source.name, int(self.seen.sum()))

    def cropping(self) -> str | None:
        """Say in one line how many samples were no squares and what was kept; None: all were."""
        seen = int(self.seen.sum())
        return report_cropped(int(self.cropped.sum()), len(self), self.source.name, seen)

    def _stream(self, parts: list[np.ndarray], key: tuple[int, int]) -> Iterator[Batch]:
        """Yield the batches in order while `workers` threads prepare the next ones."""
        waiting: deque[Future[tuple[Batch, dict[str, str]]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            for part in parts:
                waiting.append(pool.submit(self._batch, part, key))
                if len(waiting) > self.workers:
                    yield self._accept(*waiting.popleft().result())
            while waiting:
                yield self._accept(*waiting.popleft().result())

    def _accept(self, batch: Batch, bad: dict[str, str]) -> Batch:
        """Count the bad samples that a batch met; refuse the data set if they are too many."""
        self.bad |= bad
        self.refuse_many_bad()
        return batch

    def refuse_many_bad(self) -> None:
        """Refuse the data set if more of it is bad than is allowed.

        Raises:
            DataError: one sentence that names them.
        """
        seen = int(self.seen.sum())
        refuse_many_bad(self.bad, len(self), self.source.name, self.limit_bad, seen)

    def _batch(self, part: np.ndarray, key: tuple[int, int]) -> tuple[Batch, dict[str, str]]:
        bad: dict[str, str] = {}
        pixels, captions, keys = [], [], []
        for place in part.tolist():
            index, kept, texts = self._usable(place, key, bad)
            draw = sample_draw(*key, index)
            captions.append(draw.caption(texts, self.drop_caption))
            shown = self.reader.show(kept, draw)
            pixels.append(shown.flip(-1) if self.flip and draw.mirror < 0.5 else shown)
            keys.append(self._keys[index])
        return Batch(as_float(torch.stack(pixels)), captions, keys), bad

    def _usable(
        self, index: int, key: tuple[int, int], bad: dict[str, str]
    ) -> tuple[int, T, tuple[Caption, ...]]:
        """Load a sample, or if it is bad the first good one of those drawn to stand in for it."""
        draws = np.random.default_rng((*key, _STAND_IN, index))
        for _ in range(_STAND_INS):
            try:
                return index, *self._load(index)
            except BadSample as error:
                bad[error.key] = error.reason
                index = int(draws.integers(len(self)))
        raise DataError(
            f"Hardly any sample of {self.source.name} can be used; the last: "
            f"'{next(reversed(bad))}' ({bad[next(reversed(bad))]})."
        )

    def _load(self, index: int) -> tuple[T, tuple[Caption, ...]]:
        """Return what is kept of a sample and its captions, from the cache if they are there."""
        self.seen[index] = True
        if (found := self._cache.get(index)) is not None:
            return found
        captions = self.source.captions(index)  # first: they cost less to refuse
        kept, cropped = self.reader.read(self.source, index)
        if cropped:
            self.cropped[index] = True
        with self._lock:
            size = self.reader.size(kept)
            if size <= self._room and index not in self._cache:
                self._room -= size
                self._cache[index] = kept, captions
        return kept, captions


@dataclass(frozen=True)
class PictureReader:
    """Pictures, cropped to a centred square and resized to `image_size` pixels a side."""

    image_size: int

    def read(self, source: Source, index: int) -> tuple[Tensor, bool]:
        """Pixels (3, H, W) uint8; see `Reader`."""
        picture = source.picture(index)
        return fit_bytes(picture, self.image_size), not is_square(picture.size)

    def size(self, kept: Tensor) -> int:
        """A byte a number."""
        return kept.numel()

    def show(self, kept: Tensor, draw: SampleDraw | None) -> Tensor:
        """The whole picture, always."""
        return kept


class ImageTextDataset(TextDataset[Tensor]):
    """Captioned pictures of one size from shards or a folder."""

    def __init__(
        self,
        source: object,
        image_size: int,
        *,
        drop_caption: float = 0.1,
        flip: bool = False,
        limit_bad: float = 0.01,
        cache_bytes: int = 1 << 30,
        workers: int = 2,
    ) -> None:
        """Open a data set.

        Args:
            source: an opened source, or what `open_source` takes.
            image_size: pixels a side; pictures are cropped to a centred square and resized.
            drop_caption: probability of giving "" instead of a caption (for guidance).
            flip: mirror half of the pictures; off by default, since it also mirrors writing.
            limit_bad: fraction of bad samples above which the data set is refused.
            cache_bytes: decoded samples are kept in memory, up to so many bytes of pixels.
            workers: threads that decode; they do not change the result.

        Raises:
            ConfigError: an argument is out of its range.
            DataError: there is no data set, or it holds no captioned pictures.
        """
        super().__init__(
            source if isinstance(source, Source) else open_source(source),
            PictureReader(image_size),
            drop_caption=drop_caption,
            flip=flip,
            limit_bad=limit_bad,
            cache_bytes=cache_bytes,
            workers=workers,
        )
