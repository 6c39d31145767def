"""What a generator's training is told: its recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mmgen.errors import ConfigError, suggestion
from mmgen.models.backbone import BackboneConfig
from mmgen.models.schedule import default_prediction
from mmgen.models.units import Unit
from mmgen.pipeline_folder import SamplingDefaults
from mmgen.train.clip_datasets import ClipDataConfig
from mmgen.train.datasets import DataConfig
from mmgen.train.flow_losses import FlowConfig
from mmgen.train.recipe import TrainConfig

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
        clips: clips with captions that are learned beside the pictures, with a tokenizer of clips.
        frames_share: share of the steps of clips that are given some first frames, and asked for
            the others alone: what going on from frames, and windows of long clips, ask for.
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
    clips: ClipDataConfig | None = None
    frames_share: float = 0.3
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
        for name in ("code_noise", "edit_share", "frames_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0, 1], not {getattr(self, name)}.")
        if self.code_noise and self.train.batch_size == 1:
            raise ConfigError(
                "code_noise shows codes of another picture of the batch; set train.batch_size to 2 "
                "or more, or code_noise to 0."
            )
        if self.clips is not None and self.clips.views == 1:
            where = "in a generator's recipe where clips.views is 1, which shows whole clips alone"
            self.clips.refuse_idle(("phase", "span", "crop"), where)
        if self.code_noise and self.clips is not None and self.clips.batch_size == 1:
            raise ConfigError(
                "code_noise shows codes of another clip of the batch; set clips.batch_size to 2 or "
                "more, or code_noise to 0."
            )
        if not self.units or any(unit.weight <= 0 for unit in self.units):
            raise ConfigError("units needs at least one entry, each with a weight above 0.")
        names = [unit.name for unit in self.units]
        if self.sampling.unit is not None and self.sampling.unit not in names:
            hint = suggestion(self.sampling.unit, names)
            raise ConfigError(f"sampling.unit '{self.sampling.unit}' is none of units{hint}")
        for unit in self.units:
            default_prediction(unit.order)
