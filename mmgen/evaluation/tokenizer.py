"""Figures of a visual tokenizer: PSNR, SSIM, code use; rFID and LPIPS with the user's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmgen.data.dataset import ImageTextDataset
from mmgen.data.emoji import SPLITS, is_emoji_set
from mmgen.data.sources import open_source
from mmgen.errors import UserError, suggestion
from mmgen.evaluation.features import Features, Pictures
from mmgen.evaluation.held_out import fidelity
from mmgen.evaluation.inception import Inception, Seen, described
from mmgen.evaluation.lpips import Lpips
from mmgen.evaluation.protocol import of_program
from mmgen.evaluation.real import shards_of
from mmgen.evaluation.results import Result
from mmgen.evaluation.standard import Gaussian, frechet_distance
from mmgen.progress import Progress, Stage
from mmgen.sample.pictures import to_pil
from mmgen.tokenizer_check import CLIPS, load_tokenizer
from mmgen.tokenizers_vis.metrics import SSIM_WINDOW
from mmgen.train.datasets import held_out_pixels

WHOLE = "all"  # the name of data that has no splits
_RULE = "PSNR in dB and SSIM (11x11 Gaussian, sigma 1.5) of a picture in [-1, 1], means"


def evaluate_tokenizer(
    model: str,
    data: str,
    splits: Sequence[str] = ("val",),
    *,
    stage: Stage,
    size: int | None = None,
    limit_bad: float = 0.01,
    device: torch.device,
    inception: Inception | None = None,
    lpips: Lpips | None = None,
) -> Result:
    """Reconstruct pictures and measure.

    Args:
        model: folder of a tokenizer or pipeline, or the name of a shipped pipeline.
        data: folder of the emoji set's shards; or other pictures, which have no splits.
        splits: of the emoji set.
        stage: shows progress.
        size: pixels a side; None: the pipeline's, or 64.
        limit_bad: share of pictures that may be bad; they are named in the result.
        device: where it runs.
        inception: adds rFID and its spatial kin. `lpips`: adds LPIPS.

    Raises:
        UserError: the model, the data or the size cannot be used, or too many pictures are bad.
    """
    vision, own_size = load_tokenizer(model)
    vision.to(device)
    size = size or own_size
    if isinstance(vision, CLIPS):
        raise UserError(f"'{model}' codes clips; look at it with: mmgen tokenizer check")
    if size < SSIM_WINDOW:
        raise UserError(f"SSIM needs pictures of {SSIM_WINDOW} pixels a side or more, not {size}.")
    vision.grid_for((size, size))
    figures, rules = dict[str, Any](), dict[str, Any]()
    for split, place in places_of(data, splits).items():
        source = open_source(place, captioned=False)
        pictures = ImageTextDataset(source, size, drop_caption=0.0, limit_bad=limit_bad)
        watcher = _Watcher(inception, lpips)
        with stage(f"Reconstructing {split}") as progress:
            batches = _counted(held_out_pixels(pictures), len(pictures), progress)
            found = fidelity(vision, batches, device, watcher)
        bad = {"skipped": len(pictures.bad), "bad": dict(pictures.bad)}
        figures[split] = {**found, **bad, **watcher.figures()}
        rules[split] = {"hash": watcher.hash, "pictures": found["pictures"]}
    standard = {
        **({"inception": described(inception)} if inception else {}),
        **({"lpips": lpips.described()} if lpips else {}),
    }
    return Result(
        "tokenizer",
        {"rule": _RULE, "image_size": size, "data": rules, **standard},
        {**of_program(device), "weights": vision.hash_of_weights(), "name": Path(model).name},
        figures,
    )


def places_of(data: str, splits: Sequence[str]) -> dict[str, str]:
    """What `open_source` takes, by split; data without splits is one place.

    Raises:
        UserError: no such split.
    """
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"There is no split '{split}'{suggestion(split, SPLITS)}")
    if not is_emoji_set(data):
        return {WHOLE: data}
    return {split: shards_of(data, split) for split in splits}


class _Watcher:
    """Looks at originals and reconstructions, batch by batch."""

    def __init__(self, inception: Inception | None, lpips: Lpips | None) -> None:
        self._inception, self._lpips = inception, lpips
        self._real: list[Features] = []
        self._made: list[Features] = []
        self._distances: list[Tensor] = []
        self._digest = hashlib.sha256()

    def __call__(self, originals: Tensor, again: Tensor) -> None:
        shown, rebuilt = _bytes(originals), _bytes(again)
        self._digest.update(shown.tobytes())
        if self._inception is not None:
            self._real.append(self._inception(shown))
            self._made.append(self._inception(rebuilt))
        if self._lpips is not None:
            self._distances.append(self._lpips(originals, again))

    @property
    def hash(self) -> str:
        """Of the original pictures."""
        return self._digest.hexdigest()[:16]

    def figures(self) -> dict[str, float]:
        """What was asked for beside PSNR and SSIM."""
        found = dict[str, float]()
        if self._inception is not None:
            real, made = (Seen.of(np.concatenate(each)) for each in (self._real, self._made))
            found["rfid"] = _apart(real.pooled, made.pooled)
            found["rsfid"] = _apart(real.spatial, made.spatial)
        if self._lpips is not None:
            found["lpips"] = float(torch.cat(self._distances).mean())
        return found


def _apart(a: Any, b: Any) -> float:
    return frechet_distance(Gaussian.of(a), Gaussian.of(b))


def _bytes(pixels: Tensor) -> Pictures:
    """(B, 3, H, W) in [-1, 1] to (B, H, W, 3) uint8, as pictures are saved."""
    return np.stack([np.asarray(image) for image in to_pil(pixels)])


def _counted(batches: Iterator[Tensor], total: int, progress: Progress) -> Iterator[Tensor]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        progress(done, total)
