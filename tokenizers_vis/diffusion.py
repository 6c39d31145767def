"""A tokenizer whose pictures a diffusion model draws: SEED with a diffusers pipeline.

v2's embedding goes to a `StableUnCLIPImg2ImgPipeline` as class labels, v1's 77 vectors go to a
`StableDiffusionPipeline` in place of its text features. The pipeline is the caller's object.

Shapes: B pictures, D channels of an embedding, S pixels a side of a drawn picture.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmgen.config import from_dict
from mmgen.errors import ConfigError, UserError
from mmgen.noise import Purpose, gaussian, picture_seeds
from mmgen.tokenizers_vis.protocol import Codes
from mmgen.tokenizers_vis.seed import SeedTokenizer
from mmgen.tokenizers_vis.unclip import UnclipConditioner, UnclipConfig


@dataclass(frozen=True)
class DiffusionSettings:
    """How pictures are drawn.

    Args:
        steps: of the solver.
        guidance_scale: 1 is off.
        noise_level: of the embedding, unCLIP only; 0 still adds a little.
        seed: of `decode`, the same for every picture, so that its place in a batch is no matter.
    """

    steps: int
    guidance_scale: float
    noise_level: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what draws nothing."""
        if self.steps < 1 or self.guidance_scale < 1:
            raise ConfigError("Diffusion needs at least 1 step and a guidance_scale of 1 or more.")


UNCLIP = DiffusionSettings(steps=20, guidance_scale=10.0)  # SEED v2 as published
TEXT = DiffusionSettings(steps=50, guidance_scale=7.5)  # SEED v1 as published


class DiffusionTokenizer:
    """Pictures to codes by SEED, codes to pictures by diffusion; a `VisualTokenizer`.

    Args:
        tokenizer: SEED.
        pipeline: diffusers' `StableUnCLIPImg2ImgPipeline` (v2) or `StableDiffusionPipeline` (v1).
        settings: None: those of the paper.

    Raises:
        UserError: the pipeline cannot take what the tokenizer makes.
    """

    def __init__(
        self,
        tokenizer: SeedTokenizer,
        pipeline: Any,
        settings: DiffusionSettings | None = None,
    ) -> None:
        self.tokenizer, self.pipeline = tokenizer, pipeline
        self.unclip = hasattr(pipeline, "image_normalizer")
        self.settings = settings or (UNCLIP if self.unclip else TEXT)
        self.codebook_size, self.channels = tokenizer.codebook_size, tokenizer.channels
        self.conditioner = conditioner_of(pipeline) if self.unclip else None
        _refuse_other_shape(tokenizer, pipeline, self.unclip)

    @property
    def fingerprint(self) -> str:
        """That of the tokenizer: the diffusion model has no part in the codes."""
        return self.tokenizer.fingerprint

    def encode(self, pixels: Tensor) -> Codes:
        """Pixels (B, 3, H, W) in [-1, 1] to `Codes` with indices (B, 1, 1, N)."""
        return self.tokenizer.encode(pixels)

    def embed(self, indices: Tensor) -> Tensor:
        """Codebook embedding of each code: (...) long to (..., C)."""
        return self.tokenizer.embed(indices)

    def grid_for(self, size: tuple[int, ...]) -> tuple[int, int, int]:
        """Grid (1, 1, N) of a picture of `size` (H, W) pixels."""
        return self.tokenizer.grid_for(size)

    def decode(self, codes: Codes) -> Tensor:
        """`Codes` with indices (B, 1, 1, N) to pixels (B, 3, S, S) in [-1, 1]."""
        embedding = self.tokenizer.to_embedding(codes)
        return self.draw(embedding, [self.settings.seed] * len(embedding))

    @torch.no_grad()
    def draw(
        self, embedding: Tensor, seed: int | Sequence[int] = 0, negative: Tensor | None = None
    ) -> Tensor:
        """Draw embeddings.

        Args:
            embedding: (B, D) for unCLIP, (B, 77, D) for Stable Diffusion.
            seed: of the first picture (picture i has `seed + i`), or one for each.
            negative: of the same shape; guidance leads away from it (None: from nothing).

        Returns:
            Pixels (B, 3, S, S) float in [-1, 1].
        """
        seeds = picture_seeds(seed, len(embedding))
        embedding = embedding.to(self.pipeline.device, self.pipeline.dtype)
        negative = None if negative is None else negative.to(embedding)
        call = self._unclip_call if self.unclip else self._text_call
        pipeline, arguments = call(embedding, seeds, negative)
        images: Tensor = pipeline(
            **arguments,
            num_inference_steps=self.settings.steps,
            guidance_scale=self.settings.guidance_scale,
            latents=_latents(pipeline, seeds).to(embedding),
            generator=[torch.Generator().manual_seed(int(s)) for s in seeds],  # ancestral solvers
            output_type="pt",
        ).images
        return images.float() * 2 - 1

    def _unclip_call(
        self, embedding: Tensor, seeds: Tensor, negative: Tensor | None
    ) -> tuple[Any, dict[str, Any]]:
        """The pipeline with its class labels in place, and its arguments."""
        labels = self.class_labels(embedding, seeds, negative)
        # The stock pipeline makes one row for one prompt, and knows no negative embedding and no
        # given noise: a copy of it (not of its networks) is told the labels.
        told = copy.copy(self.pipeline)
        told._encode_image = lambda **_: labels
        return told, {"prompt": [""] * len(embedding), "image_embeds": embedding}

    def _text_call(
        self, embedding: Tensor, seeds: Tensor, negative: Tensor | None
    ) -> tuple[Any, dict[str, Any]]:
        given = {} if negative is None else {"negative_prompt_embeds": negative}
        return self.pipeline, {"prompt_embeds": embedding, **given}

    def class_labels(
        self, embedding: Tensor, seeds: Tensor, negative: Tensor | None = None
    ) -> Tensor:
        """What the UNet of unCLIP is told: (B, 2 D), or (2 B, 2 D) with guidance, negative first.

        Args:
            embedding: (B, D) float.
            seeds: (B,) long, of the pictures.
            negative: (B, D) float.
        """
        if self.conditioner is None:
            raise UserError("Class labels belong to unCLIP; this pipeline takes text features.")
        conditioner = self.conditioner.to(embedding.device)
        given = embedding.float()
        noises = _noise(seeds, 2, embedding.shape[1], Purpose.POSTERIOR).to(given)
        noise, level = noises[:, 0], self.settings.noise_level
        if self.settings.guidance_scale <= 1:
            labels: Tensor = conditioner(given, noise, level)
        else:
            away = None if negative is None else negative.float()
            labels = conditioner.guided(given, noise, level, away, noises[:, 1])
        return labels.to(embedding.dtype)


def conditioner_of(pipeline: Any) -> UnclipConditioner:
    """The conditioner with the statistics and the schedule of an unCLIP pipeline.

    Raises:
        ConfigError: the pipeline's schedule is none that we know.
    """
    normalizer, schedule = pipeline.image_normalizer, pipeline.image_noising_scheduler.config
    described = {
        "channels": normalizer.mean.shape[-1],
        "levels": schedule.num_train_timesteps,
        "schedule": schedule.beta_schedule,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
    }
    conditioner = UnclipConditioner(from_dict(UnclipConfig, described, "image_noising_scheduler"))
    theirs = pipeline.image_noising_scheduler.alphas_cumprod
    if not torch.allclose(conditioner.config.kept_signal(), theirs.float().cpu(), atol=1e-6):
        raise ConfigError(
            "The pipeline's image_noising_scheduler has noise levels of its own (trained_betas or "
            "rescale_betas_zero_snr); give it one without."
        )
    conditioner.load_state_dict({"mean": normalizer.mean, "std": normalizer.std})  # to float32
    return conditioner.eval()


def _latents(pipeline: Any, seeds: Tensor) -> Tensor:
    side, channels = pipeline.unet.config.sample_size, pipeline.unet.config.in_channels
    noise = _noise(seeds, side * side, channels, Purpose.FLOW)  # (B, S * S, channels)
    return noise.transpose(1, 2).reshape(len(seeds), channels, side, side)


def _noise(seeds: Tensor, positions: int, channels: int, purpose: Purpose) -> Tensor:
    return gaussian(seeds, torch.arange(positions), channels, purpose=purpose)


def _refuse_other_shape(tokenizer: SeedTokenizer, pipeline: Any, unclip: bool) -> None:
    made = tokenizer.config.embedding_shape
    width = pipeline.image_normalizer.mean.shape[-1] if unclip else _text_width(pipeline)
    if len(made) != (1 if unclip else 2) or made[-1] != width:
        taken = f"one vector of {width}" if unclip else f"text features of {width} channels"
        raise UserError(
            f"The tokenizer makes an embedding of shape {made}, but the {type(pipeline).__name__} "
            f"takes {taken}; SEED v1 goes with Stable Diffusion 1, v2 with unCLIP."
        )


def _text_width(pipeline: Any) -> int:
    return int(pipeline.unet.config.cross_attention_dim)
