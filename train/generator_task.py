"""Training of a unified transformer on cached tokens: text to picture or clip, and back to text.

Every step draws one unit (schedule) by weight and a direction from its number, so that all
processes and accumulated batches agree, and is of stills or of clips (`train/mixing.py`); one set
of weights learns all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mmgen.components import load_component
from mmgen.data.dataset import TextDataset
from mmgen.errors import CheckpointError
from mmgen.models.schedule import Grid, grid_of, to_slots
from mmgen.models.unified import UnifiedConfig, UnifiedModel, Unit, plan_for
from mmgen.pipeline import FORMAT, Pipeline, PipelineInfo
from mmgen.progress import progress_of
from mmgen.train.clip_datasets import open_held_out_clips, open_train_clips
from mmgen.train.datasets import open_held_out, open_train
from mmgen.train.flow_losses import flow_loss, held_out_flow_loss
from mmgen.train.generator_clips import (
    below,
    clip_preview,
    given_part,
    refuse_still_tokenizer,
)
from mmgen.train.generator_draws import unit_of_an_edit, with_wrong_codes
from mmgen.train.generator_recipe import UNITS, GeneratorRecipe, TextConfig
from mmgen.train.generator_start import (
    new_model,
    refuse_for_codes,
    refuse_for_latents,
    text_tokenizer,
    trained_model,
)
from mmgen.train.launch import make_accelerator
from mmgen.train.mixing import Batches, Mixing
from mmgen.train.pipelines import pipeline_folder, tokenizer_folder
from mmgen.train.tokens import TokenBatch, TokenDataset, cached_tokens

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["UNITS", "GeneratorRecipe", "GeneratorTask", "TextConfig"]


class GeneratorTask:
    """`mmgen.train.loop.Task` of a `GeneratorRecipe`."""

    def __init__(self, recipe: GeneratorRecipe) -> None:
        self.recipe, self.metrics = recipe, dict[str, float]()
        self.renewed: dict[str, Tensor] = {}
        self.vision: Any = load_component(tokenizer_folder(recipe.tokenizer))
        if recipe.clips is not None:
            refuse_still_tokenizer(self.vision, recipe.tokenizer)
        tokens = Path(recipe.tokens or Path(recipe.train.out) / "tokens")
        self.train_set, self.val_set = self._stills(tokens)
        self.clips, self.val_clips = self._clips(tokens)
        accelerator = make_accelerator(recipe.train)
        self._together = recipe.train.accumulation * accelerator.num_processes
        learned = [data for data in (self.train_set, self.clips) if data is not None]
        captions = (each.text for data in learned for texts in data.captions for each in texts)
        self.text = text_tokenizer(recipe.init, captions, recipe.text.vocab_size)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.train.seed)
            self.model = self._starting_model()

    def networks(self) -> dict[str, nn.Module]:
        """The transformer."""
        return {"model": self.model}

    def batches(self, epoch: int, start_batch: int) -> Iterator[dict[str, Any]]:
        """One epoch of codes with drawn captions, those of clips among them if there are any."""
        data, config, size = self.recipe.data, self.recipe.clips, self.recipe.train.batch_size
        stills = self._drawn(self.train_set, size, data.drop_caption)
        if config is None or self.clips is None:
            return stills(epoch, start_batch)
        few = config.batch_size or size
        clips = self._drawn(self.clips, few, config.drop_caption)
        of_stills = len(self.train_set) // size if self.train_set is not None else 0
        mixing = Mixing(of_stills, len(self.clips) // few, config.share, self._together)
        return mixing.epoch(epoch, start_batch, stills, clips)

    def losses(self, batch: dict[str, Any], step: int, phase: str) -> dict[str, Tensor]:
        """Loss of one unit in one direction."""
        draw = np.random.default_rng((self.recipe.train.seed, step, 7))
        captioning, pick, shuffle = draw.random(), draw.random(), int(draw.integers(2**31))
        grid = grid_of(batch["codes"])
        of = "clip_" if grid[0] > 1 else ""
        unit = _picked(self._units(grid), pick)
        if captioning < self.recipe.caption_share:
            return {f"{of}caption": self._loss(batch, unit, shuffle, captioning=True)}
        loss = self._loss(batch, unit, shuffle, captioning=False, training=True)
        self.metrics[f"loss_{of}{unit.name}"] = float(loss.detach())
        return {"clip" if of else "image": loss}

    def after_step(self, step: int) -> list[str]:
        """Nothing."""
        return []

    def state(self) -> dict[str, Tensor]:
        """Which text tokenizer the ids are of; every draw comes from the step's number."""
        return {"text": torch.tensor(list(bytes.fromhex(self.text.fingerprint)))}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Refuse a run whose text tokenizer was another one, since its ids meant other words."""
        if "text" not in tensors or not torch.equal(tensors["text"], self.state()["text"]):
            raise CheckpointError(
                "The captions' text tokenizer came out differently when this run began (other "
                "captions, another version of mmgen or of the package tokenizers); choose another "
                "`out`."
            )

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss of every unit and of captions on held-out pictures and clips, in nats a token.

        Of units that draw latents it is the squared error of the velocity.
        """
        assert isinstance(model, UnifiedModel)
        held_out = {"val_": self.val_set, "val_clip_": self.val_clips}
        return {
            f"{of}{name}": score
            for of, dataset in held_out.items()
            if dataset is not None
            for name, score in self._scores(model, dataset).items()
        }

    def _scores(self, model: UnifiedModel, dataset: TokenDataset) -> dict[str, float]:
        size, units = min(32, len(dataset)), self._units(dataset.grid)
        scores: dict[str, list[float]] = {}
        for number, batch in enumerate(dataset.epoch(0, size, seed=0)):
            plain: dict[str, Any] = {"codes": batch.tokens.to(_device(model))}
            plain |= {"captions": batch.captions, "prompts": batch.captions, "first": number * size}
            for unit in units:
                loss = self._loss(plain, unit, 1, captioning=False, model=model)
                scores.setdefault(unit.name, []).append(float(loss))
            caption = self._loss(plain, units[0], 1, captioning=True, model=model)
            scores.setdefault("caption", []).append(float(caption))
        return {name: float(np.mean(values)) for name, values in scores.items()}

    def preview(self, model: nn.Module) -> Image.Image | None:
        """The preview prompts, a line for each unit, and below them clips of the first two."""
        from mmgen.sample.pictures import grid

        assert isinstance(model, UnifiedModel)
        pipeline = self._pipeline(model)
        if not self.recipe.preview_prompts:
            return None
        prompts, images, labels = list(self.recipe.preview_prompts), [], []
        if self.train_set is None:
            return clip_preview(pipeline, prompts[:2])
        for unit in self._units(self.train_set.grid):
            images += pipeline(prompts, unit=unit.name, seed=0, num_frames=1).images
            labels += [f"{prompt} ({unit.name})" for prompt in prompts]
        stills = grid(images, columns=len(prompts), labels=labels, scale=2)
        return below(stills, clip_preview(pipeline, prompts[:2])) if self.clips else stills

    def remarks(self) -> list[str]:
        """The pictures that could not be encoded, or not whole, if there were any."""
        found = (self.train_set, self.val_set, self.clips, self.val_clips)
        splits = [split for split in found if split is not None]
        bad = [split.report() for split in splits if split.bad]
        return bad + [line for split in splits if (line := split.cropping())]

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the whole pipeline."""
        assert isinstance(model, UnifiedModel)
        self._pipeline(model).save_pretrained(folder)

    def _pipeline(self, model: UnifiedModel) -> Pipeline:
        recipe = self.recipe
        info = PipelineInfo(
            format=FORMAT,
            name=recipe.name,
            image_size=recipe.data.image_size,
            sampling=recipe.sampling,
            licence=recipe.licence,
            training={"steps": recipe.train.steps, "batch_size": recipe.train.batch_size},
        )
        return Pipeline(self.text, self.vision.to(_device(model)), model, info)

    def _loss(
        self,
        batch: dict[str, Any],
        unit: Unit,
        shuffle: int,
        *,
        captioning: bool,
        training: bool = False,
        model: UnifiedModel | None = None,
    ) -> Tensor:
        model = model or self.model
        grid, edit, start, frames = grid_of(batch["codes"]), None, 0, 0
        if training and not captioning and grid[0] > 1 and model.latents is None:
            start, frames = given_part(unit, grid, shuffle, self.recipe.frames_share)
            grid = (grid[0] - start, *grid[1:])
        if training and unit.order == "random" and not frames:
            edit = unit_of_an_edit(unit, grid, shuffle, self.recipe.edit_share)
        plan = plan_for(edit or unit, grid, seed=shuffle, frames=frames)
        codes = to_slots(plan.schedule, batch["codes"][:, start:])
        length = self.recipe.text.max_length
        # What was dropped for guidance is still what the picture shows.
        texts = batch["captions"] if captioning else batch["prompts"]
        ids, valid = self.text.encode(texts, length, end=captioning)
        ids, valid = ids.to(codes.device), valid.to(codes.device)
        if captioning:
            return model.image_to_text_loss(codes, plan, unit.name, ids, valid)
        if model.latents is not None and training:
            context = self.recipe.flow.context
            return flow_loss(model, ids, valid, codes, plan, unit.name, context)
        if model.latents is not None:
            return held_out_flow_loss(model, ids, valid, codes, plan, unit.name, batch["first"])
        noise = self.recipe.code_noise
        shown = with_wrong_codes(codes, noise) if training and noise else None
        given = plan.schedule.sizes[0] if edit else frames * grid[1] * grid[2]
        return model.text_to_image_loss(ids, valid, codes, plan, unit.name, shown, given)

    def _units(self, grid: Grid) -> list[Unit]:
        """Those that learn stills, or clips, like those of a grid."""
        return [unit for unit in self.recipe.units if unit.draws(grid)]

    def _drawn(
        self, dataset: TokenDataset | None, size: int, drop_caption: float
    ) -> Batches[dict[str, Any]]:
        """The training batches of a data set; None: of which no step is."""

        def batches(epoch: int, first: int) -> Iterator[dict[str, Any]]:
            assert dataset is not None
            stream = dataset.epoch(
                epoch,
                size,
                seed=self.recipe.train.seed,
                start_batch=first,
                drop_caption=drop_caption,
                sampled=True,
            )
            return map(_plain, stream)

        return batches

    def _stills(self, tokens: Path) -> tuple[TokenDataset | None, TokenDataset | None]:
        """Tokens of the pictures, and of those that are held out, unless all steps are of clips."""
        data, clips = self.recipe.data, self.recipe.clips
        if clips is not None and clips.share == 1:
            return None, None
        train_set, held_out = open_train(data), open_held_out(data)
        return (
            self._tokens(train_set, tokens / "train"),
            self._tokens(held_out, tokens / "val") if held_out else None,
        )

    def _clips(self, tokens: Path) -> tuple[TokenDataset | None, TokenDataset | None]:
        """Tokens of the clips, and of those that are held out, if there are any."""
        clips, size = self.recipe.clips, self.recipe.data.image_size
        if clips is None:
            return None, None
        train_set = open_train_clips(clips, size)
        held_out = open_held_out_clips(clips, size)
        return (
            self._tokens(train_set, tokens / "train-clips", clips.views),
            self._tokens(held_out, tokens / "val-clips") if held_out else None,
        )

    def _tokens(self, dataset: TextDataset[Any], folder: Path, views: int = 1) -> TokenDataset:
        # The others of a machine wait for its first process and find its cache.
        accelerator = make_accelerator(self.recipe.train)
        device = accelerator.device
        self.vision.to(device)
        first = accelerator.local_main_process_first()
        with first, progress_of(f"Encoding {dataset.source.name}") as progress:
            return cached_tokens(self.vision, dataset, folder, progress, views=views, device=device)

    def _starting_model(self) -> UnifiedModel:
        recipe, widest = self.recipe, self.clips or self.train_set
        assert widest is not None
        config = UnifiedConfig(
            backbone=recipe.backbone,
            text_vocab=self.text.vocab_size,
            max_text=recipe.text.max_length,
            codebook_size=self.vision.codebook_size or 0,
            code_channels=self.vision.channels,
            grid=widest.grid,
            units=recipe.units,
            logit_width=recipe.logit_width,
            rope_base=recipe.rope_base,
            stills=self.clips is not None and self.train_set is not None,
        )
        if config.continuous:
            refuse_for_latents(recipe, config)
        else:
            refuse_for_codes(recipe)
        if recipe.init is not None:
            return trained_model(pipeline_folder(recipe.init), config, self.vision)
        return new_model(config, self.vision)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _plain(batch: TokenBatch) -> dict[str, Any]:
    return {"codes": batch.tokens, "captions": batch.captions, "prompts": batch.prompts}


def _picked(units: list[Unit], pick: float) -> Unit:
    """One of the units by weight, given a number in [0, 1)."""
    weights = np.array([unit.weight for unit in units])
    shares = np.cumsum(weights) / weights.sum()
    return units[int(np.searchsorted(shares, pick, side="right"))]
