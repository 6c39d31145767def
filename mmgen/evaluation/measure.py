"""All figures of a card: what is drawn, measured and written down with its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmgen.config import to_dict
from mmgen.data.emoji import Item
from mmgen.errors import ConfigError
from mmgen.evaluation.asking import PROMPT, Ask, Drawn, draw, fresh_asks, pick, plain_asks
from mmgen.evaluation.features import (
    Extractor,
    Pictures,
    features_of,
)
from mmgen.evaluation.held_out import SHUFFLES, fidelity, float_batches, held_out_losses
from mmgen.evaluation.judge import Judge
from mmgen.evaluation.likelihood import caption_ranks
from mmgen.evaluation.plots import read_log, seconds_of
from mmgen.evaluation.protocol import data_rules, features_rules, of_pipeline
from mmgen.evaluation.real import RESTYLE, RealSet
from mmgen.evaluation.sets import HELD_OUT, MILLION, SETS
from mmgen.evaluation.stills import still_grid, still_unit, still_units
from mmgen.evaluation.yardstick import DRAW_SIZE, DRAWS, RIDGE
from mmgen.models.unified import plan_for
from mmgen.progress import Stage

if TYPE_CHECKING:
    from mmgen.models.unified import Unit
    from mmgen.pipeline import Pipeline


CARD_SETS = tuple(name for name in SETS if name != "val")
_UNITS = 6  # in the place of a set's number
CODE_PICTURES = 1000  # of `train`, on which the use of the codes is counted


@dataclass(frozen=True)
class CardSettings:
    """How much is drawn, and how.

    Args:
        pictures: most pictures of each set.
        few: pictures of the fresh wordings, and of each unit when units are compared.
        batch: pictures drawn at a time.
        seed: of every choice and picture.
        unit: what the sets are drawn with; None: the pipeline's default.
    """

    pictures: int = 300
    few: int = 60
    batch: int = 16
    seed: int = 0
    unit: str | None = None

    def __post_init__(self) -> None:
        """Refuse counts that cannot be measured with."""
        if min(self.pictures, self.few) < 2 or self.batch < 1 or self.seed < 0:
            raise ConfigError(
                "pictures and few must be at least 2, batch at least 1, and seed not negative."
            )


class Bench:
    """A pipeline, the real pictures and the yardstick, side by side.

    Args:
        pipeline: what is measured. `real`: what it is held against.
        extractor: the feature network. `settings`: how much is drawn.
        stage: shows progress.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        real: RealSet,
        extractor: Extractor,
        settings: CardSettings,
        stage: Stage,
    ) -> None:
        self.pipeline, self.real, self.extractor = pipeline, real, extractor
        self.settings, self.stage = settings, stage
        self.judge = Judge(real, settings.seed)

    def items(self, name: str) -> list[Item]:
        """Items of a set: a split, or one half of `test_pair`."""
        split = SETS[name].split
        items = [self.real.items[i] for i in self.real.places(split)]
        if split != "test_pair":
            return items
        return [item for item in items if (item.style in RESTYLE) == (name == "test_pair_restyle")]

    def asks(self, name: str) -> list[Ask]:
        """What is asked for in a set: items drawn at random with the card's seed."""
        settings, asked = self.settings, SETS[name]
        count = settings.few if name == "fresh" else settings.pictures
        items = pick(self.items(name), count, np.random.default_rng((settings.seed, asked.number)))
        first = asked.first_seed(settings.seed)
        return fresh_asks(items, first) if name == "fresh" else plain_asks(items, first)

    def draw(self, asks: list[Ask], what: str, unit: str | None = None) -> tuple[Pictures, float]:
        """Pictures and seconds, drawn with the card's unit or another one."""
        with self.stage(f"Drawing {what}") as progress:
            return draw(
                self.pipeline,
                asks,
                unit=unit or self.unit,
                batch=self.settings.batch,
                progress=progress,
            )

    def look(self, asks: list[Ask], what: str, unit: str | None = None) -> Drawn:
        """Draw, and look at the pictures with the feature network."""
        pictures, seconds = self.draw(asks, what, unit)
        with self.stage(f"Looking at {what}") as progress:
            features = features_of(pictures, self.extractor, progress=progress)
        return Drawn(tuple(asks), pictures, features, seconds)

    @property
    def unit(self) -> str:
        """The unit that the sets are drawn with."""
        if self.settings.unit is not None:
            return still_unit(self.pipeline, self.settings.unit).name
        units, usual = list(still_units(self.pipeline)), self.pipeline.info.sampling.unit
        return usual if usual in units else units[0]


def draw_sets(bench: Bench, names: Sequence[str], unit: str | None = None) -> dict[str, Drawn]:
    """Draw the named sets with the card's unit or another one; sets without pictures are left out.

    A seed belongs to a set's place, so that units are compared on the same ones.
    """
    asked = {name: bench.asks(name) for name in names}
    what = {name: f"{name}, unit {unit}" if unit else name for name in names}
    return {name: bench.look(asks, what[name], unit) for name, asks in asked.items() if asks}


def judge_sets(bench: Bench, drawn: dict[str, Drawn]) -> dict[str, Any]:
    """Figures of generated pictures by set, with the seconds that they took."""
    return {
        name: {**asdict(bench.judge.generated(each)), "seconds": each.seconds}
        for name, each in drawn.items()
    }


def judge_real(bench: Bench, drawn: dict[str, Drawn]) -> dict[str, Any]:
    """Figures of the real pictures of the same items by set."""
    return {name: asdict(bench.judge.real_of(each)) for name, each in drawn.items()}


def measure_units(bench: Bench) -> dict[str, Any]:
    """Compare the units on the same prompts and seeds, of trained items."""
    settings = bench.settings
    items = pick(bench.items("train"), settings.few, np.random.default_rng((settings.seed, _UNITS)))
    asks = plain_asks(items, settings.seed + _UNITS * MILLION)
    found = dict[str, Any]()
    for unit in still_units(bench.pipeline).values():
        drawn = bench.look(asks, f"unit {unit.name}", unit.name)
        figures = bench.judge.generated(drawn)
        found[unit.name] = {
            **describe_unit(bench.pipeline, unit),
            "seconds_a_picture": drawn.seconds / len(asks),
            "concept": asdict(figures.concept),
            "style": figures.style,
        }
    return found


def describe_unit(pipeline: Pipeline, unit: Unit) -> dict[str, Any]:
    """Order, prediction, and steps of a picture."""
    steps = plan_for(unit, still_grid(pipeline)).steps
    return {"order": unit.order, "prediction": unit.prediction, "steps": steps}


def rank_captions(bench: Bench, split: str) -> dict[str, Any]:
    """Where the true captions of a split's pictures rank by likelihood."""
    settings = bench.settings
    with bench.stage(f"Ranking captions of {split}") as progress:
        return caption_ranks(
            bench.pipeline,
            bench.real,
            split,
            pictures=settings.pictures,
            seed=settings.seed,
            progress=progress,
        )


def measure_tokenizer(bench: Bench) -> dict[str, Any]:
    """Fidelity on the held-out splits, once each, and on the first pictures of `train`."""
    real, pipeline = bench.real, bench.pipeline
    shown = {split: real.places(split) for split in HELD_OUT}
    generator = np.random.default_rng(bench.settings.seed)
    shown["train"] = pick(real.places("train"), CODE_PICTURES, generator)
    return {
        split: fidelity(pipeline.vision, float_batches(real.pictures[places]), pipeline.device)
        for split, places in shown.items()
    }


def measure(bench: Bench, runs: list[Path]) -> tuple[dict[str, Any], dict[str, Drawn]]:
    """Every figure of the card, and the sets that were drawn for them."""
    drawn = draw_sets(bench, CARD_SETS)
    figures = {
        "protocol": protocol(bench),
        "pipeline": describe(bench.pipeline),
        "runs": [describe_run(run) for run in runs],
        "tokenizer": measure_tokenizer(bench),
        "losses": held_out_losses(bench.pipeline, bench.real),
        "captions": rank_captions(bench, "val"),
        "generated": judge_sets(bench, drawn),
        "real": judge_real(bench, drawn),
        "units": measure_units(bench),
    }
    return figures, drawn


def protocol(bench: Bench) -> dict[str, Any]:
    """What the card's figures were made with."""
    settings = to_dict(bench.settings)
    return {**of_pipeline(bench.pipeline), **rules(bench), "settings": settings, "unit": bench.unit}


def rules(bench: Bench) -> dict[str, Any]:
    """What must be the same for figures to be compared.

    How many pictures are drawn at a time is not: a picture does not depend on those beside it.
    """
    settings = to_dict(bench.settings)
    return {
        "features": features_rules(bench.extractor),
        "data": data_rules(bench.real),
        "settings": {name: value for name, value in settings.items() if name != "batch"},
        "sampling": to_dict(bench.pipeline.info.sampling),
        "prompt": PROMPT,
        "kid": {"draws": DRAWS, "size_at_most": DRAW_SIZE, "seed": bench.settings.seed},
        "style_ridge": RIDGE,
        "random_orders": SHUFFLES,
        "first_seeds": {name: each.first_seed(bench.settings.seed) for name, each in SETS.items()},
    }


def describe(pipeline: Pipeline) -> dict[str, Any]:
    """Sizes and settings of a pipeline."""
    (_, transformer), vision = pipeline.two_way(), pipeline.vision
    return {
        "name": pipeline.info.name,
        "licence": pipeline.info.licence,
        "image_size": pipeline.info.image_size,
        "grid": list(still_grid(pipeline)),
        "codebook_size": vision.codebook_size,
        "parameters": {
            "transformer": sum(p.numel() for p in transformer.parameters()),
            "vision": sum(p.numel() for p in vision.parameters()),
        },
        "backbone": to_dict(transformer.config.backbone),
        "text_vocab": transformer.config.text_vocab,
        "sampling": to_dict(pipeline.info.sampling),
        "training": pipeline.info.training,
    }


def describe_run(run: Path) -> dict[str, Any]:
    """Recipe, length and last evaluation of a training run; paths are cut to their last part."""
    import yaml

    records = read_log(run)
    recipe = run / "run.yaml"
    text = recipe.read_text(encoding="utf-8") if recipe.is_file() else "{}"
    evaluated = [record for record in records if "eval" in record]
    return {
        "name": run.name,
        "steps": records[-1]["step"],
        "samples": records[-1].get("samples"),
        "seconds": seconds_of(records),
        "eval": evaluated[-1]["eval"] if evaluated else {},
        "recipe": _portable(yaml.safe_load(text)),
    }


def _portable(value: Any) -> Any:
    # Where a run lay on the machine it was made on is nobody's business and helps nobody.
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
