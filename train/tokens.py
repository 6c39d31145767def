"""Token caches: a data set encoded once by a visual tokenizer, with its captions.

A cache is a folder of `tokens-NNNNN.safetensors` and `captions-NNNNN.jsonl`, and `tokens.json`,
which carries the tokenizer's fingerprint: tokens of another tokenizer mean other pictures and are
refused. Built beside and renamed, so a cache is whole or absent.

Tokens are the indices of a discrete tokenizer, or the latents of a continuous one. Of these the
means and deviations are kept, so that every visit of a picture may draw its own sample; half
precision, in the tokenizer's scale, is off by a thousandth of what a decoder notices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmgen.data.captions import Caption
from mmgen.data.clip_dataset import ClipReader
from mmgen.data.dataset import TextDataset
from mmgen.data.draws import epoch_order, sample_draw
from mmgen.data.reports import report_bad, report_cropped
from mmgen.errors import CheckpointError, DataError
from mmgen.files import read_json, write_json
from mmgen.noise import SEED_LIMIT, Purpose, gaussian
from mmgen.saving import read_tensors
from mmgen.tokenizers_vis.protocol import Codes, VisualTokenizer
from mmgen.train.checkpoint import replacing_folder
from mmgen.train.datasets import readable

META = "tokens.json"
SHARD = 16384  # pictures a shard
TOGETHER = 64  # pictures, or frames of clips, that are encoded at once
KINDS = ({"indices"}, {"latents", "deviations"})  # tensors of a shard, each (n, t, h, w, ...)


@dataclass
class TokenBatch:
    """Tokens of some pictures, and for each a caption, the prompt ("" if dropped) and the key.

    Args:
        codes: (B, t, h, w) long; None if the tokenizer is continuous.
        captions: one of each picture's, drawn by weight.
        prompts: the same, "" where it was dropped.
        keys: of the pictures.
        latents: (B, t, h, w, C) float32, scaled; None if the tokenizer is discrete.
    """

    codes: Tensor | None
    captions: list[str]
    prompts: list[str]
    keys: list[str]
    latents: Tensor | None = None

    @property
    def tokens(self) -> Tensor:
        """Codes or latents."""
        tokens = self.latents if self.codes is None else self.codes
        assert tokens is not None
        return tokens


def cached_tokens(
    tokenizer: VisualTokenizer,
    dataset: TextDataset[Any],
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    views: int = 1,
    device: torch.device | str = "cpu",
) -> TokenDataset:
    """Open the cache in `folder`, building it if it is not there.

    Args:
        tokenizer: discrete or continuous.
        dataset: what is encoded.
        folder: of the cache.
        progress: called with pictures done and pictures in all.
        views: drawn versions of each sample, see `readable`.
        device: where the tokenizer is.

    Raises:
        CheckpointError: the folder holds tokens of another tokenizer or of other pictures, or
            something else.
        DataError: too many pictures are bad.
    """
    if not (folder / META).exists():
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise CheckpointError(f"{folder} holds no tokens; name another folder with `tokens`.")
        with replacing_folder(folder) as place:
            _build(tokenizer, dataset, views, _Writer(place, device), progress)
    return TokenDataset(folder, tokenizer.fingerprint, _source_hash(dataset, views))


class TokenDataset:
    """Tokens and captions of a whole data set, in memory.

    Args:
        folder: a cache.
        fingerprint: of the tokenizer that must have made it.
        source: hash of the data set that it must come from; None: any.

    Raises:
        CheckpointError: another tokenizer, other pictures, or a damaged cache.
    """

    def __init__(self, folder: str | Path, fingerprint: str, source: str | None = None) -> None:
        folder = Path(folder)
        meta = _read_meta(folder / META)
        for name, wanted, what in (
            ("fingerprint", fingerprint, "by another tokenizer"),
            ("source", source, "from other pictures or captions"),
        ):
            if wanted is not None and meta.get(name) != wanted:
                raise CheckpointError(
                    f"The tokens in {folder} were made {what} ({meta.get(name)}, not {wanted}); "
                    f"delete the folder {folder} to have them made anew (a run goes on from its "
                    "checkpoint where the captions are the same), or name another with `tokens`."
                )
        shards: list[dict[str, Tensor]] = []
        self.keys: list[str] = []
        self.captions: list[tuple[Caption, ...]] = []
        for i in range(meta["shards"]):
            shard = read_tensors(folder / f"tokens-{i:05d}.safetensors")
            lines = list(_lines(folder / f"captions-{i:05d}.jsonl"))
            fits = all(len(tensor) == len(lines) for tensor in shard.values())
            if {*shard} not in KINDS or not fits:
                raise CheckpointError(f"Shard {i} of {folder} is damaged; delete the folder.")
            shards.append({name: _small(tensor) for name, tensor in shard.items()})
            self.keys += [key for key, _ in lines]
            self.captions += [captions for _, captions in lines]
        if not 0 < len(self.keys) == meta["count"]:
            raise CheckpointError(f"The tokens in {folder} are incomplete; delete the folder.")
        self._tokens = {name: torch.cat([each[name] for each in shards]) for name in shards[0]}
        self.bad: dict[str, str] = meta.get("bad", {})
        """Key and reason of each sample that could not be encoded."""
        self.cropped: int = meta.get("cropped", 0)
        """How many pictures were no squares."""
        self.samples: int = len(self) // meta["views"]
        """How many samples were encoded, each of them in one or several views."""
        self.name = str(meta.get("name", folder))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def indices(self) -> Tensor:
        """(N, t, h, w) int32, of a discrete tokenizer."""
        return self._tokens["indices"]

    @property
    def continuous(self) -> bool:
        """Whether batches hold latents instead of codes."""
        return "latents" in self._tokens

    @property
    def grid(self) -> tuple[int, int, int]:
        """(t, h, w)."""
        t, h, w = next(iter(self._tokens.values())).shape[1:4]
        return t, h, w

    def report(self) -> str:
        """Say in one line how many samples could not be encoded, and name them with reasons."""
        return report_bad(self.bad, self.samples + len(self.bad), self.name)

    def cropping(self) -> str | None:
        """Say in one line how many pictures were no squares and what was kept; None: all were."""
        return report_cropped(self.cropped, self.samples, self.name)

    def epoch(
        self,
        epoch: int,
        batch_size: int,
        *,
        seed: int,
        start_batch: int = 0,
        drop_caption: float = 0.0,
        sampled: bool = False,
    ) -> Iterator[TokenBatch]:
        """Yield the whole batches of one epoch from `start_batch` on, always the same ones.

        Args:
            epoch: its number, from 0.
            batch_size: pictures in a batch.
            seed: of the run; not negative.
            start_batch: first batch to yield.
            drop_caption: probability of the prompt "".
            sampled: latents are draws of their posterior, new ones in each epoch; else its mean.

        Raises:
            DataError: there are fewer pictures than a batch needs.
        """
        if len(self) < batch_size:
            raise DataError(
                f"There are {len(self)} pictures, fewer than one batch of {batch_size}; "
                "use a smaller batch."
            )
        order = epoch_order(seed, epoch, len(self))
        for start in range(start_batch * batch_size, len(self) - batch_size + 1, batch_size):
            part = order[start : start + batch_size].tolist()
            draws = [sample_draw(seed, epoch, i) for i in part]
            yield TokenBatch(
                None if self.continuous else self.indices[part].long(),
                [draw.caption(self.captions[i], 0.0) for draw, i in zip(draws, part)],
                [draw.caption(self.captions[i], drop_caption) for draw, i in zip(draws, part)],
                [self.keys[i] for i in part],
                self._latents(part, seed, epoch, sampled) if self.continuous else None,
            )

    def _latents(self, part: list[int], seed: int, epoch: int, sampled: bool) -> Tensor:
        """Latents (B, t, h, w, C) float32; a draw depends on (seed, epoch, index) alone."""
        latents = self._tokens["latents"][part].float()
        if not sampled:
            return latents
        seeds = torch.tensor([(seed + i) % SEED_LIMIT for i in part])
        sites = torch.arange(latents[0, ..., 0].numel())
        channels = latents.shape[-1]
        noise = gaussian(seeds, sites, channels, purpose=Purpose.POSTERIOR, visit=epoch)
        return latents + self._tokens["deviations"][part].float() * noise.view_as(latents)


def _build(
    tokenizer: VisualTokenizer,
    dataset: TextDataset[Any],
    views: int,
    writer: _Writer,
    progress: Callable[[int, int], None] | None,
) -> None:
    for item in readable(dataset, views):
        writer.add(tokenizer, item.pixels, item.key, item.captions)
        if progress:
            progress(writer.count // views + len(dataset.bad), len(dataset))
    writer.flush(tokenizer)
    writer.close_shard()
    write_json(
        writer.place / META,
        {
            "format": 1,
            "fingerprint": tokenizer.fingerprint,
            "source": _source_hash(dataset, views),
            "name": dataset.source.name,
            "count": writer.count,
            "views": views,
            "shards": writer.shards,
            "bad": dataset.bad,
            "cropped": int(dataset.cropped.sum()),
        },
    )


class _Writer:
    """Collects pictures to batches and batches to shards."""

    def __init__(self, place: Path, device: torch.device | str) -> None:
        self.place, self.device, self.shards, self.count = place, device, 0, 0
        self.pixels: list[Tensor] = []
        self.tokens: list[dict[str, Tensor]] = []
        self.lines: list[str] = []

    def add(
        self,
        tokenizer: VisualTokenizer,
        pixels: Tensor,
        key: str,
        captions: tuple[Caption, ...],
    ) -> None:
        self.pixels.append(pixels)
        pairs = [[caption.text, caption.weight] for caption in captions]
        self.lines.append(json.dumps({"key": key, "captions": pairs}, ensure_ascii=False))
        self.count += 1
        frames = pixels.shape[1] if pixels.ndim == 4 else 1
        if len(self.pixels) * frames >= TOGETHER:
            self.flush(tokenizer)
        if len(self.lines) == SHARD:
            self.flush(tokenizer)
            self.close_shard()

    @torch.inference_mode()
    def flush(self, tokenizer: VisualTokenizer) -> None:
        if self.pixels:
            codes = tokenizer.encode(torch.stack(self.pixels).to(self.device))
            self.tokens.append(_stored(codes))
            self.pixels = []

    def close_shard(self) -> None:
        if not self.lines:
            return
        names = self.tokens[0]
        tensors = {name: torch.cat([each[name] for each in self.tokens]) for name in names}
        save_file(tensors, self.place / f"tokens-{self.shards:05d}.safetensors")
        text = "\n".join(self.lines) + "\n"
        (self.place / f"captions-{self.shards:05d}.jsonl").write_text(text, encoding="utf-8")
        self.shards, self.tokens, self.lines = self.shards + 1, [], []


def _stored(codes: Codes) -> dict[str, Tensor]:
    """The tensors of one of `KINDS`."""
    if codes.latents is None:
        assert codes.indices is not None
        return {"indices": codes.indices.int().cpu()}
    still = torch.zeros_like(codes.latents)
    deviations = still if codes.deviations is None else codes.deviations
    return {"latents": codes.latents.half().cpu(), "deviations": deviations.half().cpu()}


def _small(tensor: Tensor) -> Tensor:
    # Reading makes half precision float32, which would double the memory.
    return tensor.half() if tensor.is_floating_point() else tensor


def _read_meta(path: Path) -> dict[str, Any]:
    meta = read_json(path)
    meta = {"views": 1, **meta} if isinstance(meta, dict) else {}  # older caches have one each
    numbers = [meta.get(name) for name in ("shards", "count", "views")]
    if not all(isinstance(number, int) for number in numbers) or meta["views"] < 1:
        raise CheckpointError(f"{path} is damaged; delete its folder.")
    return meta


def _lines(path: Path) -> Iterator[tuple[str, tuple[Caption, ...]]]:
    try:
        # Not splitlines: it also cuts at separators that may stand inside a caption.
        for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n"):
            record = json.loads(line)
            yield record["key"], tuple(Caption(*pair) for pair in record["captions"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is missing or damaged ({error}); delete its folder."
        ) from None


def _source_hash(dataset: TextDataset[Any], views: int) -> str:
    """What decides the pixels that are encoded: the files, and how they are read."""
    told = f"{dataset.source.stamp}-{dataset.image_size}"
    if not isinstance(dataset.reader, ClipReader):
        return told
    reader = dataset.reader
    vary = reader.vary and asdict(reader.vary)
    text = json.dumps([reader.frames, reader.fps, views, vary, asdict(reader.limits)])
    return f"{told}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
