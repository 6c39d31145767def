"""What a generator's training starts with: words, and weights that are new or of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmgen.components import load_component
from mmgen.errors import CheckpointError, ConfigError
from mmgen.models.text import TextTokenizer
from mmgen.models.unified import UnifiedConfig, UnifiedModel
from mmgen.models.units import plan_for
from mmgen.sample.flow import FlowSettings
from mmgen.tokenizers_vis.protocol import number_of_codes
from mmgen.train.flow_losses import FlowConfig
from mmgen.train.pipelines import pipeline_folder

if TYPE_CHECKING:
    from mmgen.train.generator_recipe import GeneratorRecipe


def text_tokenizer(init: str | None, captions: Iterable[str], vocab_size: int) -> TextTokenizer:
    """The text tokenizer of the pipeline `init`, or one that is trained on the captions."""
    if init is not None:
        return TextTokenizer.from_pretrained(pipeline_folder(init) / "text")
    return TextTokenizer.train(sorted(set(captions)), vocab_size)


def refuse_for_latents(recipe: GeneratorRecipe, config: UnifiedConfig) -> None:
    """Refuse what latents cannot be trained with, or drawn with in previews.

    Raises:
        ConfigError: a share of wrong or given codes, or steps for another number of blocks.
    """
    for name in ("code_noise", "edit_share"):
        if getattr(recipe, name):
            raise ConfigError(f"{name} is for codes, and the tokenizer has latents; set it to 0.")
    settings = FlowSettings(recipe.sampling.solver, recipe.sampling.steps)
    for grid in config.grids:
        for unit in config.units:
            if unit.draws(grid):
                settings.all_times(plan_for(unit, grid).steps)


def refuse_for_codes(recipe: GeneratorRecipe) -> None:
    """Refuse what codes cannot be trained with.

    Raises:
        ConfigError: a choice of how latents are learned.
    """
    if recipe.flow != FlowConfig():
        raise ConfigError("flow.context is for latents, and the tokenizer has codes; leave it out.")


def new_model(config: UnifiedConfig, vision: Any) -> UnifiedModel:
    """Random weights that know what the codes of `vision` look like."""
    model = UnifiedModel(config)
    if config.continuous:
        return model
    device = next(vision.parameters()).device
    codes = torch.arange(number_of_codes(vision), device=device)
    model.set_code_vectors(vision.embed(codes).cpu())
    return model


def trained_model(folder: Path, config: UnifiedConfig, vision: Any) -> UnifiedModel:
    """The transformer of a pipeline, which must have these sizes and draw the codes of `vision`."""
    trained = UnifiedModel.from_pretrained(folder / "transformer")
    if _shapes(trained.config) != _shapes(config):
        raise CheckpointError(
            f"{folder} has other sizes or units than this recipe; copy them from "
            f"{folder / 'transformer' / 'config.json'}."
        )
    if load_component(folder / "vision").fingerprint != vision.fingerprint:
        raise CheckpointError(
            f"{folder} draws the codes of another visual tokenizer; set `tokenizer` of this recipe "
            f"to {folder / 'vision'}."
        )
    model = UnifiedModel(config)
    model.load_state_dict(trained.state_dict())
    return model.train()


def _shapes(config: UnifiedConfig) -> UnifiedConfig:
    """A configuration without what only training looks at."""
    units = tuple(replace(unit, weight=1.0) for unit in config.units)
    return replace(config, units=units, backbone=replace(config.backbone, dropout=0.0))
