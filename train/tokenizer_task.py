"""Training of a visual tokenizer: reconstruct pictures and clips through a bottleneck.

The tokenizer and, if the adversarial loss has a weight, a PatchGAN discriminator take turns. With
`freeze_codes` only the decoder learns: codes stay what they are, so a generator trained on them
stays valid while the pictures get sharper.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from mmgen.components import load_component
from mmgen.data.dataset import Batch
from mmgen.errors import ConfigError
from mmgen.progress import progress_of
from mmgen.tokenizers_vis.causal_video import CausalVideoTokenizer, CausalVideoTokenizerConfig
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.discriminator import DiscriminatorConfig, PatchDiscriminator
from mmgen.tokenizers_vis.losses import (
    LeCam,
    TokenizerLossConfig,
    as_frames,
    discriminator_loss,
    generator_loss,
    reconstruction_losses,
)
from mmgen.tokenizers_vis.metrics import SSIM_WINDOW, psnr, ssim
from mmgen.tokenizers_vis.perceptual import FeatureNetwork, PerceptualConfig
from mmgen.tokenizers_vis.protocol import Quantized
from mmgen.tokenizers_vis.quantizers import KL, VQ
from mmgen.train.bottlenecks import watch_of
from mmgen.train.clip_datasets import ClipDataConfig, open_held_out_clips, open_train_clips
from mmgen.train.datasets import DataConfig, held_out_pixels, open_held_out, open_train
from mmgen.train.latent_scale import rescaled, shuffled_pixels, with_unit_variance
from mmgen.train.launch import make_accelerator
from mmgen.train.mixing import Mixing
from mmgen.train.pipelines import tokenizer_folder
from mmgen.train.recipe import TrainConfig

if TYPE_CHECKING:
    from PIL import Image


SHOWN = 12  # pictures, or frames of a clip, in a row of a preview


@dataclass(frozen=True)
class TokenizerRecipe:
    """Everything that `mmgen train` needs for a tokenizer.

    Args:
        train: the loop.
        data: pictures.
        model: the tokenizer's sizes; those of clips have `time_strides`.
        loss: weights of its losses.
        perceptual: feature network, if that loss has a weight.
        discriminator: PatchGAN, if the adversarial loss has a weight.
        usage_window: batches over which the use of the codebook is counted.
        init: trained tokenizer to start from: its folder, its pipeline's, or a shipped one's name.
        freeze_codes: train the decoder alone.
        clips: clips that are trained on too, for a tokenizer of clips.
    """

    train: TrainConfig
    data: DataConfig
    model: ConvTokenizerConfig | CausalVideoTokenizerConfig
    loss: TokenizerLossConfig = field(default_factory=TokenizerLossConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    usage_window: int = 100
    init: str | None = None
    freeze_codes: bool = False
    clips: ClipDataConfig | None = None
    task: Literal["tokenizer"] = "tokenizer"

    def __post_init__(self) -> None:
        """Refuse to freeze what was never trained, and what could not be counted or compared."""
        if self.freeze_codes and self.init is None:
            raise ConfigError("freeze_codes needs init, the folder of a trained tokenizer.")
        if self.usage_window < 1:
            raise ConfigError(f"usage_window must be at least 1, not {self.usage_window}.")
        if self.clips is not None and isinstance(self.model, ConvTokenizerConfig):
            raise ConfigError(
                "clips need a tokenizer of clips; give `model` the key time_strides, or leave "
                "clips out."
            )
        if self.clips is not None:
            self.clips.refuse_idle(("views", "drop_caption"), "in a tokenizer's recipe")
        judged = self.data.val is not None or self.data.held_out > 0
        if judged and self.data.image_size < SSIM_WINDOW:
            raise ConfigError(
                f"data.val is judged by SSIM, which needs pictures of {SSIM_WINDOW} pixels a side "
                f"or more, not {self.data.image_size}; leave data.val out or take larger ones."
            )


class TokenizerTask:
    """`mmgen.train.loop.Task` of a `TokenizerRecipe`."""

    def __init__(self, recipe: TokenizerRecipe) -> None:
        self.recipe, self.metrics = recipe, dict[str, float]()
        self.renewed: dict[str, Tensor] = {}
        self.dataset = open_train(recipe.data, captioned=False)
        self.held_out = open_held_out(recipe.data, captioned=False)
        self.clips, self.held_out_clips = None, None
        if recipe.clips is not None:
            size = recipe.data.image_size
            self.clips = open_train_clips(recipe.clips, size, captioned=False)
            self.held_out_clips = open_held_out_clips(recipe.clips, size, captioned=False)
        accelerator = make_accelerator(recipe.train)
        self._together = recipe.train.accumulation * accelerator.num_processes
        with torch.random.fork_rng():
            torch.manual_seed(recipe.train.seed)
            self.model = _starting_model(recipe)
            self.discriminator = PatchDiscriminator(recipe.discriminator)
        layout = torch.channels_last
        if isinstance(self.model, CausalVideoTokenizer):
            layout = torch.channels_last_3d
        self.model.to(memory_format=layout)  # type: ignore[call-overload]
        self.perceptual: FeatureNetwork | None = None
        if recipe.loss.perceptual:
            self.perceptual = FeatureNetwork(recipe.perceptual)
        self.watch = watch_of(self.model, recipe.usage_window)
        self.lecam = LeCam()
        self._features: Tensor | None = None  # of the step's last batch, for dead codes
        self._fakes: deque[Tensor] = deque()  # of the step's batches, for the discriminator's turn
        self._initialised = False
        self._scaling: list[str] = []  # what `export` has to say

    def networks(self) -> dict[str, nn.Module]:
        """The tokenizer, and the discriminator if it has a say."""
        adversarial = {"discriminator": self.discriminator} if self.recipe.loss.adversarial else {}
        return {"model": self.model, **adversarial}

    def batches(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        """One epoch of pictures, with clips among them if there are any."""
        train, config = self.recipe.train, self.recipe.clips
        size = train.batch_size

        def stills(epoch: int, first: int) -> Iterator[Batch]:
            return self.dataset.epoch(epoch, size, seed=train.seed, start_batch=first)

        if config is None or self.clips is None:
            return stills(epoch, start_batch)
        dataset, few = self.clips, config.batch_size or size

        def clips(epoch: int, first: int) -> Iterator[Batch]:
            return dataset.epoch(epoch, few, seed=train.seed, start_batch=first)

        of_stills, of_clips = self.dataset.batches_per_epoch(size), dataset.batches_per_epoch(few)
        mixing = Mixing(of_stills, of_clips, config.share, self._together)
        return mixing.epoch(epoch, start_batch, stills, clips)

    def losses(self, batch: Batch, step: int, phase: str) -> dict[str, Tensor]:
        """Losses of the tokenizer, or of the discriminator on the same step's reconstruction."""
        adversarial = self.recipe.loss.adversarial and step >= self.recipe.loss.adversarial_start
        if phase == "discriminator":
            return self._discriminator_losses(batch.pixels) if adversarial else {}
        if step == 0:
            self._initialise_codes(batch.pixels)
        if self.perceptual is not None:
            self.perceptual.to(batch.pixels.device)
        reconstruction, features, quantized = self._reconstruct(batch.pixels)
        losses = reconstruction_losses(
            self.recipe.loss, reconstruction, batch.pixels, self.perceptual
        )
        if not self.recipe.freeze_codes:
            losses |= quantized.losses
        if adversarial:
            logits = self.discriminator(as_frames(reconstruction))
            weight = self.recipe.loss.adversarial
            losses["adversarial"] = weight * generator_loss(self.recipe.loss.gan, logits)
        self.watch.see(features, quantized)
        self._features = features.detach()
        if adversarial:
            self._fakes.append(reconstruction.detach())
        return losses

    def after_step(self, step: int) -> list[str]:
        """Revive dead codes; report how the bottleneck fares."""
        self.metrics |= self.watch.metrics()
        quantizer, features = self.model.quantizer, self._features
        if isinstance(quantizer, VQ) and features is not None and not self.recipe.freeze_codes:
            generator = torch.Generator().manual_seed(torch.initial_seed())
            revived = quantizer.revive(features, generator)
            self.metrics["revived"] = float(len(revived))
            if len(revived) and quantizer.config.update == "gradient":
                self.renewed["quantizer.codebook"] = revived
        due = step > 0 and step % self.recipe.usage_window == 0
        warning = self.watch.warning() if due else None
        return [warning] if warning else []

    def state(self) -> dict[str, Tensor]:
        """LeCAM's averages, and what the watch keeps."""
        averages = torch.tensor([self.lecam.real, self.lecam.fake], dtype=torch.float64)
        return {"lecam": averages, **self.watch.state()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` returned."""
        real, fake = tensors["lecam"].tolist()
        self.lecam.load_state_dict({"real": real, "fake": fake})
        self._initialised = True
        self.watch.load_state(tensors)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """PSNR and SSIM on the held-out pictures, and on all frames of the held-out clips."""
        found: dict[str, float] = {}
        for name, dataset, size in (("", self.held_out, 32), ("clip_", self.held_out_clips, 4)):
            scores: list[Tensor] = []
            for pixels in held_out_pixels(dataset, size) if dataset else ():
                reconstruction = model(pixels.to(_device(model)))[0].clamp(-1, 1).cpu()
                pair = as_frames(reconstruction), as_frames(pixels)
                scores.append(torch.stack([psnr(*pair), ssim(*pair)], dim=1))
            if scores:
                mean = torch.cat(scores).mean(0)
                found |= {f"{name}psnr": float(mean[0]), f"{name}ssim": float(mean[1])}
        return found

    @torch.no_grad()
    def preview(self, model: nn.Module) -> Image.Image | None:
        """Held-out pictures above their reconstructions, and likewise the frames of two clips."""
        from mmgen.sample.pictures import grid, to_pil

        source = self.held_out or self.dataset
        pixels = next(source.epoch(0, min(SHOWN, len(source)), seed=0)).pixels
        rows = [pixels, model(pixels.to(_device(model)))[0].cpu()]
        clips = self.held_out_clips or self.clips
        if clips is not None:
            for clip in next(clips.epoch(0, min(2, len(clips)), seed=0)).pixels:
                frames = torch.linspace(0, clip.shape[1] - 1, len(pixels)).round().long()
                again = model(clip[None].to(_device(model)))[0][0].cpu()
                rows += [clip[:, frames].transpose(0, 1), again[:, frames].transpose(0, 1)]
        return grid(to_pil(torch.cat(rows)), columns=len(pixels), scale=2)

    def remarks(self) -> list[str]:
        """The scale of latents, and pictures that could not be used, or not whole, if any."""
        found = (self.dataset, self.held_out, self.clips, self.held_out_clips)
        splits = [split for split in found if split is not None]
        bad = [split.report() for split in splits if split.bad]
        cropped = [line for split in splits if (line := split.cropping())]
        return [*self._scaling, *bad, *cropped]

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the tokenizer, latents at unit variance."""
        assert isinstance(model, (ConvTokenizer, CausalVideoTokenizer))
        measured = isinstance(model.quantizer, KL) and not self.recipe.freeze_codes
        if isinstance(model, ConvTokenizer) and measured:
            train = self.recipe.train
            with progress_of("Measuring latents") as progress:
                pixels = shuffled_pixels(self.dataset, train.batch_size, train.seed, progress)
                model, self._scaling = with_unit_variance(model, pixels)
        model.save_pretrained(folder)

    def _reconstruct(self, pixels: Tensor) -> tuple[Tensor, Tensor, Quantized]:
        model = self.model
        with torch.set_grad_enabled(not self.recipe.freeze_codes and torch.is_grad_enabled()):
            features = model.features(pixels)
            if self.recipe.freeze_codes:
                # A codebook must not move; a posterior is drawn from all the same.
                model.quantizer.train(isinstance(model.quantizer, KL))  # type: ignore[attr-defined]
            quantized = model.quantizer(features)
        reconstruction = model.decode_embeddings(quantized.quantized)
        if reconstruction.ndim > pixels.ndim:  # pictures, as clips of one frame
            reconstruction = reconstruction[:, :, 0]
        return reconstruction, features, quantized

    def _discriminator_losses(self, pixels: Tensor) -> dict[str, Tensor]:
        real = self.discriminator(as_frames(pixels))
        fake = self.discriminator(as_frames(self._fakes.popleft()))
        losses = {"discriminator": discriminator_loss(self.recipe.loss.gan, real, fake)}
        if self.recipe.loss.lecam:
            losses["lecam"] = self.recipe.loss.lecam * self.lecam(real, fake)
        return losses

    def _initialise_codes(self, pixels: Tensor) -> None:
        """Start a learned codebook from encoder outputs, once."""
        quantizer = self.model.quantizer
        if isinstance(quantizer, VQ) and self.recipe.init is None and not self._initialised:
            generator = torch.Generator().manual_seed(self.recipe.train.seed)
            quantizer.initialise(self.model.features(pixels).detach(), generator)
        self._initialised = True


def _starting_model(recipe: TokenizerRecipe) -> ConvTokenizer | CausalVideoTokenizer:
    if recipe.init is None:
        return _new_model(recipe.model)
    model = load_component(tokenizer_folder(recipe.init))
    if rescaled(model.config) != rescaled(recipe.model):
        raise ConfigError(f"{recipe.init} has other sizes than `model` of this recipe; copy them.")
    if recipe.freeze_codes:
        for part in (model.encoder, model.to_code, model.quantizer):
            for parameter in part.parameters():
                parameter.requires_grad_(False)
    loaded: ConvTokenizer | CausalVideoTokenizer = model
    return loaded


def _new_model(
    config: ConvTokenizerConfig | CausalVideoTokenizerConfig,
) -> ConvTokenizer | CausalVideoTokenizer:
    if isinstance(config, ConvTokenizerConfig):
        return ConvTokenizer(config)
    return CausalVideoTokenizer(config)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
