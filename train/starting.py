"""A recipe for anybody's pictures: sizes, steps and prompts that follow from the data.

`mmgen train generator --data FOLDER` asks here for an ordinary recipe and runs that.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from mmgen.config import from_dict
from mmgen.data.sources import Source, open_source
from mmgen.data.tables import ANY, Columns
from mmgen.errors import ConfigError, suggestion
from mmgen.files import read_json
from mmgen.models.backbone import BackboneConfig
from mmgen.models.unified import UnifiedConfig
from mmgen.pipeline_folder import (
    DEFAULT,
    PIPELINE_FILE,
    SamplingDefaults,
    find_pipeline,
    read_info,
    refuse_incomplete,
)
from mmgen.saving import CONFIG_FILE
from mmgen.tokenizers_vis.causal_video import CausalVideoTokenizerConfig
from mmgen.tokenizers_vis.conv import ConvTokenizerConfig
from mmgen.tokenizers_vis.losses import TokenizerLossConfig
from mmgen.tokenizers_vis.perceptual import PACKAGES
from mmgen.tokenizers_vis.quantizers import FSQConfig
from mmgen.train.datasets import DataConfig
from mmgen.train.fitting import prompts_of, schedule_for, text_length
from mmgen.train.generator_task import UNITS, GeneratorRecipe, TextConfig
from mmgen.train.pipelines import pipeline_folder, tokenizer_folder
from mmgen.train.tokenizer_task import TokenizerRecipe

TRAIN = "train"  # as a tokenizer: train one first
SIZE = 64  # pixels a side, unless something else is asked for
LEAST_GRID = 4  # tokens a side below which the shipped tokenizer shows next to nothing
TRAINABLE: dict[str, type[ConvTokenizerConfig] | type[CausalVideoTokenizerConfig]] = {
    "ConvTokenizer": ConvTokenizerConfig,
    "CausalVideoTokenizer": CausalVideoTokenizerConfig,
}
MOST_GRID = 16  # tokens a side up to which a generator of these sizes learns in hours
HELD_OUT, MOST_HELD_OUT = 0.05, 500
FEWEST_TO_SPLIT = 8  # pictures below which none is held out


@dataclass(frozen=True)
class Size:
    """Sizes of a generator and of a tokenizer that go together, and their learning rate."""

    backbone: BackboneConfig
    logit_width: int
    widths: tuple[int, int]
    learning_rate: float


MODELS = {
    "tiny": Size(BackboneConfig(width=96, depth=4, heads=3, dropout=0.1), 64, (32, 64), 2e-3),
    "small": Size(BackboneConfig(width=224, depth=8, heads=7, dropout=0.1), 128, (96, 192), 1.2e-3),
    "medium": Size(
        BackboneConfig(width=512, depth=12, heads=8, dropout=0.1), 256, (128, 256), 6e-4
    ),
}
FINE_TUNING_RATE = 3e-4


@dataclass(frozen=True)
class Wish:
    """What a user says; the rest follows from the data.

    Args:
        data: what `open_source` takes.
        model: a key of `MODELS`; None: small, or that of `start`.
        size: pixels a side; None: those of `start` or of the tokenizer, or 64. A tokenizer
            without a pipeline has none of its own, so a `start` of that kind may be given one.
        tokenizer: folder of a tokenizer or pipeline, or a shipped pipeline's name; `TRAIN`: one is
            trained first; None: the shipped one, or `TRAIN` if the size does not fit it.
        start: pipeline to go on from, by folder or name.
        out: run folder; None: `runs/NAME-TASK`, or `runs/NAME-TASK-tuned` with a `start`.
        allow_bad: share of samples that may be bad.
        columns: of a table.
    """

    data: str
    model: str | None = None
    size: int | None = None
    tokenizer: str | None = None
    start: str | None = None
    out: str | None = None
    allow_bad: float = 0.01
    columns: Columns = ANY

    def __post_init__(self) -> None:
        """Refuse unknown sizes and contradictions."""
        if self.model is not None and self.model not in MODELS:
            raise ConfigError(f"There is no size '{self.model}'{suggestion(self.model, MODELS)}")
        if self.size is not None and self.size < 8:
            raise ConfigError(f"--size is {self.size}; give 8 or more pixels a side.")
        if not 0 <= self.allow_bad <= 1:
            raise ConfigError(f"--allow-bad is {self.allow_bad:g}; give a share from 0 to 1.")
        brought = {"model": self.model, "size": self.size, "tokenizer": self.tokenizer}
        for name, value in brought.items():
            if self.start is None or value is None:
                continue
            if name != "size" or _size_of(self.start) is not None:
                raise ConfigError(f"--from brings its own {name}; leave --{name} out.")

    @property
    def chosen(self) -> Size:
        """Sizes of what is trained."""
        return MODELS[self.model or "small"]

    @property
    def name(self) -> str:
        """Of the data, fit for a folder's name."""
        words = re.split(r"[^\w-]", Path(self.data).resolve().stem)
        return next((word.strip("-_") for word in words if word.strip("-_")), "pictures")

    def out_of(self, task: str) -> str:
        """The run folder."""
        tuned = "" if self.start is None else "-tuned"
        return self.out or f"runs/{self.name}-{task}{tuned}"


def generator_recipes(wish: Wish) -> tuple[TokenizerRecipe | None, GeneratorRecipe]:
    """The recipe of a generator, and before it that of its tokenizer if one is to be trained.

    Raises:
        UserError: data, tokenizer or pipeline cannot be used.
    """
    source = open_source(wish.data, columns=wish.columns)
    out = wish.out_of("generator")
    if wish.start is not None:
        return None, _fine_tuned(wish, wish.start, source, out)
    size, tokenizer = _size_and_tokenizer(wish)
    first = None
    if tokenizer == TRAIN:
        first = tokenizer_recipe(wish, f"{out}/tokenizer", size)
        tokenizer = f"{first.train.out}/final"
    recipe = GeneratorRecipe(
        train=schedule_for(source, out, 32, 15, (500, 6000), wish.chosen.learning_rate),
        data=_data(wish, source, size),
        tokenizer=tokenizer,
        name=wish.name,
        text=TextConfig(max_length=text_length(source)),
        backbone=wish.chosen.backbone,
        logit_width=wish.chosen.logit_width,
        units=UNITS,
        edit_share=0.3,
        preview_prompts=prompts_of(source),
        sampling=SamplingDefaults(unit="token", guidance_scale=3.0, temperature=0.7),
    )
    return first, recipe


def tokenizer_recipe(
    wish: Wish, out: str | None = None, size: int | None = None
) -> TokenizerRecipe:
    """The recipe of a visual tokenizer.

    Args:
        wish: what is asked for.
        out: run folder; None: that of `wish`.
        size: pixels a side; None: those of `wish`.

    Raises:
        UserError: the data or the tokenizer to start from cannot be used.
    """
    if wish.tokenizer is not None and size is None:
        raise ConfigError("--tokenizer is for a generator; --from NAME goes on from a tokenizer.")
    source = open_source(wish.data, captioned=False, columns=Columns(wish.columns.picture))
    init, rate = None, wish.chosen.learning_rate
    if wish.start is not None:
        init, rate = wish.start, FINE_TUNING_RATE
        size = _size_of(wish.start) or wish.size or SIZE
        model = _config_of(tokenizer_folder(wish.start))
    else:
        size = size or wish.size or SIZE
        model = _new_tokenizer(size, wish.chosen.widths)
    loss = TokenizerLossConfig(l1=1.0, l2=0.5, gradient=0.25, perceptual=_perceptual())
    return TokenizerRecipe(
        train=schedule_for(source, out or wish.out_of("tokenizer"), 16, 8, (500, 3000), rate),
        data=_data(wish, source, size, generator=False),
        model=model,
        loss=loss,
        init=init,
    )


def _fine_tuned(wish: Wish, start: str, source: Source, out: str) -> GeneratorRecipe:
    """A recipe that goes on from a pipeline: its sizes, its words, its codes."""
    folder = find_pipeline(start)
    refuse_incomplete(folder)
    info = read_info(folder)
    transformer = folder / "transformer" / CONFIG_FILE
    data = read_json(transformer)
    if not isinstance(data, dict) or data.pop("class", None) != "UnifiedModel":
        raise ConfigError(f"{start} was imported; only pipelines that mmgen trained can be tuned.")
    config = from_dict(UnifiedConfig, data, str(transformer))
    return GeneratorRecipe(
        train=schedule_for(source, out, 32, 15, (300, 4000), FINE_TUNING_RATE),
        data=_data(wish, source, info.image_size),
        tokenizer=start,
        name=wish.name,
        text=TextConfig(config.text_vocab, config.max_text),
        backbone=config.backbone,
        logit_width=config.logit_width,
        rope_base=config.rope_base,
        units=config.units,
        edit_share=0.3,
        init=start,
        preview_prompts=prompts_of(source),
        sampling=info.sampling,
        licence=info.licence,
    )


def _size_and_tokenizer(wish: Wish) -> tuple[int, str]:
    """Pixels a side, and the tokenizer as a recipe names it."""
    if wish.tokenizer == TRAIN:
        return wish.size or SIZE, TRAIN
    place = wish.tokenizer or DEFAULT
    size = wish.size or _size_of(place) or SIZE
    stride = _config_of(tokenizer_folder(place)).stride
    fits = size % stride == 0 and size // stride <= MOST_GRID
    if wish.tokenizer is None:
        return size, place if fits and size // stride >= LEAST_GRID else TRAIN
    if fits:
        return size, place
    raise ConfigError(
        f"The tokenizer {place} takes multiples of {stride} pixels a side, {MOST_GRID * stride} at "
        f"most, not {size}; choose another --size, or --tokenizer train."
    )


def _size_of(place: str) -> int | None:
    folder = pipeline_folder(place)
    return read_info(folder).image_size if (folder / PIPELINE_FILE).is_file() else None


def _config_of(folder: Path) -> ConvTokenizerConfig | CausalVideoTokenizerConfig:
    data = read_json(folder / CONFIG_FILE)
    kind = data.pop("class", None) if isinstance(data, dict) else None
    if kind not in TRAINABLE:
        raise ConfigError(f"{folder} holds no tokenizer that training can use.")
    return from_dict(TRAINABLE[kind], data, str(folder / CONFIG_FILE))


def _new_tokenizer(size: int, widths: tuple[int, int]) -> ConvTokenizerConfig:
    """A tokenizer with 8 to 16 tokens a side, as many as a power of two gives."""
    fewest = 8 if size <= SIZE else 12
    strides = [s for s in (16, 8, 4, 2) if size % s == 0 and fewest <= size // s <= MOST_GRID]
    if not strides:
        raise ConfigError(
            f"No tokenizer is made for {size} pixels a side; give {SIZE}, which the shipped one "
            "has learned, or 16, 32, 96, 128, 192 or 256."
        )
    patch = min(4, strides[0] // 2)
    narrow, wide = widths
    return ConvTokenizerConfig(
        quantizer=FSQConfig(levels=(8, 8, 6, 5)),
        patch_size=patch,
        widths=(narrow, wide) if patch * 2 == strides[0] else (narrow, wide, wide),
        res_blocks=1,
        decoder_res_blocks=2,
        attention_levels=(),
        middle_attention=True,
        z_channels=64,
    )


def _perceptual() -> float:
    """Weight of the perceptual loss: none without the package of its network."""
    package, _ = PACKAGES["tf_efficientnet_lite1"]
    return 0.3 if importlib.util.find_spec(package) else 0.0


def _data(wish: Wish, source: Source, size: int, generator: bool = True) -> DataConfig:
    count = len(source)
    share = round(min(HELD_OUT, MOST_HELD_OUT / count), 4) if count >= FEWEST_TO_SPLIT else 0.0
    return DataConfig(
        train=wish.data,
        image_size=size,
        limit_bad=wish.allow_bad,
        held_out=share,
        image_column=wish.columns.picture,
        caption_column=wish.columns.caption if generator else None,
    )
