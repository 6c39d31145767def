"""The figures of a run's clips, and those of real clips beside them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmgen.bench.machine import best_of
from mmgen.data.clip_dataset import ClipTextDataset
from mmgen.evaluation.asking import pick
from mmgen.evaluation.clip_figures import Clips, clip_kid, frozen, look_at, motion, shown, to_first
from mmgen.evaluation.features import Extractor
from mmgen.evaluation.protocol import features_rules
from mmgen.evaluation.yardstick import DRAW_SIZE, DRAWS, Array, kid, spread
from mmgen.experiments.losses import held_out
from mmgen.experiments.measuring import evaluations
from mmgen.experiments.settings import ClipMeasures
from mmgen.lengths import call_grid, trained_frames
from mmgen.models.units import find_unit, plan_for
from mmgen.progress import progress_of
from mmgen.train.clip_datasets import ClipDataConfig, open_held_out_clips
from mmgen.train.datasets import readable

if TYPE_CHECKING:
    from mmgen.models.units import Unit
    from mmgen.pipeline import Pipeline

_MILLION = 1_000_000
_SEEDS = 8  # clip i has the seed `seed + 8 million + i`; evaluation's sets of pictures have 1 to 7
_BATCH = 8  # clips that are encoded at a time


@dataclass(frozen=True)
class RealClips:
    """Real clips of one size.

    Args:
        pixels: (N, T, H, W, 3) uint8. `captions`: the likeliest one of each.
        features: (N, 5, D).
    """

    pixels: Clips
    captions: tuple[str, ...]
    features: Array

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of pixels and captions."""
        digest = hashlib.sha256("\n".join(self.captions).encode())
        digest.update(np.ascontiguousarray(self.pixels).tobytes())
        return digest.hexdigest()[:16]


class ClipBench:
    """Real clips that all variants are held against.

    Args:
        measures: what is measured.
        clips: how a source's frames become a clip.
        size: pixels a side.
        extractor: the feature network.
        seed: of everything that is drawn.
    """

    def __init__(
        self,
        measures: ClipMeasures,
        clips: ClipDataConfig,
        size: int,
        extractor: Extractor,
        seed: int,
    ) -> None:
        self.measures, self.extractor, self.seed = measures, extractor, seed
        self.asked = self._real(measures.real, clips, size, 0)
        self.reference = self._real(measures.reference, clips, size, 1)

    def measure(self, pipeline: Pipeline) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rules and figures: of the pipeline's default unit, and of real clips beside it."""
        config: Any = pipeline.transformer.config
        name = pipeline.info.sampling.unit or config.units[0].name
        unit, frames = find_unit(config.units, name), trained_frames(pipeline)
        made = self._draw(pipeline, name, frames)
        with progress_of("Looking at clips") as progress:
            features = look_at(made, self.extractor, progress=progress)
        grid = call_grid(pipeline, frames)
        figures = {
            "order": unit.order,
            "prediction": unit.prediction,
            "steps": plan_for(unit, grid).steps,
            "evaluations": evaluations(pipeline, name, num_frames=frames),
            "loss": self._loss(pipeline, unit),
            **self._judged(features),
            "frames_a_second": self._speed(pipeline, name, frames),
            "real": self._judged(self.asked.features),
            "still": self._judged(frozen(self.asked.features)),
        }
        return self._rules(frames), figures

    def _rules(self, frames: int) -> dict[str, Any]:
        return {
            "features": features_rules(self.extractor),
            "asked": {"clips": len(self.asked.captions), "hash": self.asked.hash},
            "reference": {"clips": len(self.reference.captions), "hash": self.reference.hash},
            "frames": frames,
            "looked_at": shown(frames),
            "batch": self.measures.batch,
            "kid": {"draws": DRAWS, "size": DRAW_SIZE, "seed": self.seed},
            "first_seed": self.seed + _SEEDS * _MILLION,
        }

    def _judged(self, features: Array) -> dict[str, Any]:
        """What features (N, 5, D) say, alone and beside the reference."""
        real = self.reference.features
        moved = spread(motion(features))
        return {
            "clips": len(features),
            "frame_kid": kid(_frames(features), _frames(real), seed=self.seed),
            "clip_kid": clip_kid(features, real, self.seed),
            "motion": {"low": moved.low, "median": moved.median, "high": moved.high},
            "loop": float(np.median(to_first(features)[:, -1])),
        }

    def _draw(self, pipeline: Pipeline, unit: str, frames: int) -> Clips:
        prompts, first = self.asked.captions, self.seed + _SEEDS * _MILLION
        drawn: list[Clips] = []
        with progress_of("Drawing clips") as progress:
            for start in range(0, len(prompts), self.measures.batch):
                part = list(prompts[start : start + self.measures.batch])
                seeds = [first + start + i for i in range(len(part))]
                drawn += clips_of(pipeline, part, seeds, unit, frames)
                progress(len(drawn), len(prompts))
        return np.stack(drawn)

    @torch.inference_mode()
    def _loss(self, pipeline: Pipeline, unit: Unit) -> dict[str, Any]:
        with progress_of("Held-out loss of clips"):
            parts = []
            for pixels in torch.split(_floats(self.asked.pixels), _BATCH):
                codes = pipeline.vision.encode(pixels.to(pipeline.device))
                parts.append(codes.latents if codes.indices is None else codes.indices)
            return held_out(pipeline, unit, torch.cat(parts), self.asked.captions)

    def _speed(self, pipeline: Pipeline, unit: str, frames: int) -> dict[str, float]:
        """Frames a second, pixels included, by the number of clips drawn together."""
        prompts = self.asked.captions

        def seconds(batch: int) -> float:
            asked = [prompts[i % len(prompts)] for i in range(batch)]
            return best_of(2, lambda: pipeline(asked, seed=0, unit=unit, num_frames=frames))

        with progress_of("Timing clips"):
            return {str(batch): batch * frames / seconds(batch) for batch in self.measures.speed}

    def _real(self, place: str, clips: ClipDataConfig, size: int, number: int) -> RealClips:
        told = ClipDataConfig(
            place,
            place,
            clips.frames,
            clips.fps,
            limit_bad=clips.limit_bad,
            most_frames=clips.most_frames,
            most_seconds=clips.most_seconds,
        )
        dataset = open_held_out_clips(told, size)
        assert dataset is not None
        with progress_of("Looking at the real clips") as progress:
            pixels, captions = _read(dataset)
            rule = np.random.default_rng((self.seed, number))
            chosen = pick(range(len(captions)), self.measures.count, rule)
            features = look_at(pixels[chosen], self.extractor, progress=progress)
        return RealClips(pixels[chosen], tuple(captions[i] for i in chosen), features)


def clips_of(
    pipeline: Pipeline, prompts: list[str], seeds: list[int], unit: str | None, frames: int
) -> list[Clips]:
    """Clips (T, H, W, 3) that are drawn together."""
    drawn = pipeline(prompts, seed=seeds, unit=unit, num_frames=frames).frames
    return [np.stack([np.asarray(each.convert("RGB")) for each in clip]) for clip in drawn]


def _read(dataset: ClipTextDataset) -> tuple[Clips, list[str]]:
    """All clips (N, T, H, W, 3), and the likeliest caption of each."""
    pixels, captions = [], []
    for item in readable(dataset):
        bytes_ = ((item.pixels + 1) * 127.5).round().to(torch.uint8)
        pixels.append(bytes_.permute(1, 2, 3, 0).numpy())
        captions.append(max(item.captions, key=lambda caption: caption.weight).text)
    return np.stack(pixels), captions


def _floats(clips: Clips) -> Tensor:
    """Clips (N, T, H, W, 3) uint8 as (N, 3, T, H, W) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3)
    return pixels.float() / 127.5 - 1


def _frames(features: Array) -> Array:
    frames: Array = features.reshape(-1, features.shape[-1])
    return frames
