"""Training of a unified transformer on cached tokens: text to picture and picture to text.

Every step draws one unit (schedule) by weight and a direction from its number, so that all
processes and accumulated batches agree; one set of weights learns all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mmgen.data.dataset import ImageTextDataset
from mmgen.errors import CheckpointError, ConfigError, suggestion
from mmgen.models.backbone import BackboneConfig
from mmgen.models.schedule import default_prediction, to_slots
from mmgen.models.unified import UnifiedConfig, UnifiedModel, Unit, plan_for
from mmgen.pipeline import FORMAT, Pipeline, PipelineInfo, SamplingDefaults
from mmgen.progress import progress_of
from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.train.datasets import DataConfig, open_held_out, open_train
from mmgen.train.flow_losses import FlowConfig, flow_loss, held_out_flow_loss
from mmgen.train.generator_draws import unit_of_an_edit, with_wrong_codes
from mmgen.train.generator_start import (
    new_model,
    refuse_for_latents,
    text_tokenizer,
    trained_model,
)
from mmgen.train.launch import make_accelerator
from mmgen.train.pipelines import pipeline_folder, tokenizer_folder
from mmgen.train.recipe import TrainConfig
from mmgen.train.tokens import TokenDataset, cached_tokens

if TYPE_CHECKING:
    from PIL import Image

UNITS = (
    Unit("block", "row:1", "shift", 1.0),
    Unit("neighbor", "neighbor", "neighbors", 1.0),
    Unit("token", "raster", "shift", 1.0),
    Unit("any", "random", "self", 1.0),
)


@dataclass(frozen=True)
class TextConfig:
    """The text tokenizer that is trained on the captions: most ids, and most ids of a text."""

    vocab_size: int = 2048
    max_length: int = 32

    def __post_init__(self) -> None:
        """Refuse texts without room for a word between their beginning and their end."""
        if self.max_length < 3:
            raise ConfigError(f"text.max_length must be at least 3, not {self.max_length}.")


@dataclass(frozen=True)
class GeneratorRecipe:
    """Everything that `mmgen train` needs for a generator.

    Args:
        train: the loop.
        data: pictures and captions.
        tokenizer: folder of the visual tokenizer or of its pipeline, or a shipped pipeline's name.
        name: of the pipeline that comes out.
        tokens: folder of the token cache (default: `tokens` in the run folder).
        text: the text tokenizer.
        backbone: the transformer.
        logit_width: see `UnifiedConfig`.
        rope_base: see `UnifiedConfig`.
        units: schedules to learn; the first is the pipeline's default.
        caption_share: share of the steps that learn picture to text.
        code_noise: largest share of a picture's codes that are shown wrong while the right ones
            are asked for; each picture draws its own share (`generator_draws.py`).
        flow: how latents are learned, where the tokenizer has latents.
        edit_share: share of the steps of a unit of order `random` that are given all codes around a
            box, or a random part of them, and asked for the others alone: what editing asks for.
        init: pipeline (folder, or name of a shipped one) whose transformer and text tokenizer
            training starts from.
        preview_prompts: drawn in every preview.
        sampling: defaults of the pipeline, used in previews too.
        licence: what the pipeline's card says.
    """

    train: TrainConfig
    data: DataConfig
    tokenizer: str
    name: str = "generator"
    tokens: str | None = None
    text: TextConfig = field(default_factory=TextConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    logit_width: int = 256
    rope_base: float = 100.0
    units: tuple[Unit, ...] = UNITS
    caption_share: float = 0.1
    code_noise: float = 0.0
    edit_share: float = 0.0
    flow: FlowConfig = field(default_factory=FlowConfig)
    init: str | None = None
    preview_prompts: tuple[str, ...] = ("a red apple", "a grinning cat", "a rocket", "a rainbow")
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    licence: str = ""
    task: Literal["generator"] = "generator"

    FREE: ClassVar[frozenset[str]] = frozenset({"name", "preview_prompts", "sampling", "licence"})

    def __post_init__(self) -> None:
        """Refuse shares and units that make no sense."""
        if not 0 <= self.caption_share < 1:
            raise ConfigError(f"caption_share must be in [0, 1), not {self.caption_share}.")
        for name in ("code_noise", "edit_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0, 1], not {getattr(self, name)}.")
        if self.code_noise and self.train.batch_size == 1:
            raise ConfigError(
                "code_noise shows codes of another picture of the batch; set train.batch_size to 2 "
                "or more, or code_noise to 0."
            )
        if not self.units or any(unit.weight <= 0 for unit in self.units):
            raise ConfigError("units needs at least one entry, each with a weight above 0.")
        names = [unit.name for unit in self.units]
        if self.sampling.unit is not None and self.sampling.unit not in names:
            hint = suggestion(self.sampling.unit, names)
            raise ConfigError(f"sampling.unit '{self.sampling.unit}' is none of units{hint}")
        for unit in self.units:
            default_prediction(unit.order)


class GeneratorTask:
    """`mmgen.train.loop.Task` of a `GeneratorRecipe`."""

    def __init__(self, recipe: GeneratorRecipe) -> None:
        self.recipe, self.metrics = recipe, dict[str, float]()
        self.renewed: dict[str, Tensor] = {}
        self.vision = ConvTokenizer.from_pretrained(tokenizer_folder(recipe.tokenizer))
        tokens = Path(recipe.tokens or Path(recipe.train.out) / "tokens")
        self.train_set = self._tokens(open_train(recipe.data), tokens / "train")
        held_out = open_held_out(recipe.data)
        self.val_set = self._tokens(held_out, tokens / "val") if held_out else None
        captions = (each.text for texts in self.train_set.captions for each in texts)
        self.text = text_tokenizer(recipe.init, captions, recipe.text.vocab_size)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.train.seed)
            self.model = self._starting_model()
        self.weights = np.array([unit.weight for unit in recipe.units])

    def networks(self) -> dict[str, nn.Module]:
        """The transformer."""
        return {"model": self.model}

    def batches(self, epoch: int, start_batch: int) -> Iterator[dict[str, Any]]:
        """One epoch of codes with drawn captions."""
        train = self.recipe.train
        stream = self.train_set.epoch(
            epoch,
            train.batch_size,
            seed=train.seed,
            start_batch=start_batch,
            drop_caption=self.recipe.data.drop_caption,
            sampled=True,
        )
        for batch in stream:
            yield {"codes": batch.tokens, "captions": batch.captions, "prompts": batch.prompts}

    def losses(self, batch: dict[str, Any], step: int, phase: str) -> dict[str, Tensor]:
        """Loss of one unit in one direction."""
        draw = np.random.default_rng((self.recipe.train.seed, step, 7))
        captioning, pick, shuffle = draw.random(), draw.random(), int(draw.integers(2**31))
        shares = np.cumsum(self.weights) / self.weights.sum()
        unit = self.recipe.units[int(np.searchsorted(shares, pick, side="right"))]
        if captioning < self.recipe.caption_share:
            return {"caption": self._loss(batch, unit, shuffle, captioning=True)}
        loss = self._loss(batch, unit, shuffle, captioning=False, training=True)
        self.metrics[f"loss_{unit.name}"] = float(loss.detach())
        return {"image": loss}

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
        """Loss of every unit and of captions on the held-out pictures, in nats a token.

        Of units that draw latents it is the squared error of the velocity.
        """
        if self.val_set is None:
            return {}
        assert isinstance(model, UnifiedModel)
        size = min(32, len(self.val_set))
        scores: dict[str, list[float]] = {}
        for number, batch in enumerate(self.val_set.epoch(0, size, seed=0)):
            plain: dict[str, Any] = {"codes": batch.tokens.to(_device(model))}
            plain |= {"captions": batch.captions, "prompts": batch.captions, "first": number * size}
            for unit in self.recipe.units:
                loss = self._loss(plain, unit, 1, captioning=False, model=model)
                scores.setdefault(f"val_{unit.name}", []).append(float(loss))
            first = self.recipe.units[0]
            caption = self._loss(plain, first, 1, captioning=True, model=model)
            scores.setdefault("val_caption", []).append(float(caption))
        return {name: float(np.mean(values)) for name, values in scores.items()}

    def preview(self, model: nn.Module) -> Image.Image | None:
        """The preview prompts, a line for each unit."""
        from mmgen.sample.pictures import grid

        assert isinstance(model, UnifiedModel)
        pipeline = self._pipeline(model)
        if not self.recipe.preview_prompts:
            return None
        prompts, images, labels = list(self.recipe.preview_prompts), [], []
        for unit in self.recipe.units:
            images += pipeline(prompts, unit=unit.name, seed=0).images
            labels += [f"{prompt} ({unit.name})" for prompt in prompts]
        return grid(images, columns=len(prompts), labels=labels, scale=2)

    def remarks(self) -> list[str]:
        """The pictures that could not be encoded, or not whole, if there were any."""
        splits = [self.train_set, *([self.val_set] if self.val_set else [])]
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
        grid, edit = self.train_set.grid, None
        if training and unit.order == "random":
            edit = unit_of_an_edit(unit, grid, shuffle, self.recipe.edit_share)
        plan = plan_for(edit or unit, grid, seed=shuffle)
        codes = to_slots(plan.schedule, batch["codes"])
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
        given = plan.schedule.sizes[0] if edit else 0
        return model.text_to_image_loss(ids, valid, codes, plan, unit.name, shown, given)

    def _tokens(self, dataset: ImageTextDataset, folder: Path) -> TokenDataset:
        # The others of a machine wait for its first process and find its cache.
        accelerator = make_accelerator(self.recipe.train)
        device = accelerator.device
        self.vision.to(device)
        first = accelerator.local_main_process_first()
        with first, progress_of(f"Encoding {dataset.source.name}") as progress:
            return cached_tokens(self.vision, dataset, folder, progress, device=device)

    def _starting_model(self) -> UnifiedModel:
        recipe = self.recipe
        config = UnifiedConfig(
            backbone=recipe.backbone,
            text_vocab=self.text.vocab_size,
            max_text=recipe.text.max_length,
            codebook_size=self.vision.codebook_size or 0,
            code_channels=self.vision.channels,
            grid=self.train_set.grid,
            units=recipe.units,
            logit_width=recipe.logit_width,
            rope_base=recipe.rope_base,
        )
        if config.continuous:
            refuse_for_latents(recipe, config)
        if recipe.init is not None:
            return trained_model(pipeline_folder(recipe.init), config, self.vision)
        return new_model(config, self.vision)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
