"""All figures of a card: what is drawn, measured and written down with its protocol."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import mmgen
from mmgen.config import to_dict
from mmgen.data.emoji import SPLITS, Item
from mmgen.errors import ConfigError
from mmgen.evaluation.asking import PROMPT, Ask, Drawn, draw, fresh_asks, pick, plain_asks
from mmgen.evaluation.features import (
    PROTOCOL,
    SIDE,
    FeatureExtractor,
    Pictures,
    Progress,
    features_of,
)
from mmgen.evaluation.held_out import SHUFFLES, fidelity, held_out_losses
from mmgen.evaluation.judge import Judge
from mmgen.evaluation.plots import read_log, seconds_of
from mmgen.evaluation.real import RESTYLE, RealSet
from mmgen.evaluation.yardstick import DRAW_SIZE, DRAWS, RIDGE
from mmgen.models.unified import plan_for

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline

Stage = Callable[[str], AbstractContextManager[Progress]]  # of a named piece of work

# Seeds of a set's pictures start at the card's seed plus so many millions.
_SEEDS = {"train": 1, "test_pair_restyle": 2, "test_pair_new": 3, "test_concept": 4, "fresh": 5}
_SPLITS = {
    "train": "train",
    "test_pair_restyle": "test_pair",
    "test_pair_new": "test_pair",
    "test_concept": "test_concept",
    "fresh": "train",
}
_UNIT_SEEDS, _MILLION = 6, 1_000_000
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
        extractor: FeatureExtractor,
        settings: CardSettings,
        stage: Stage,
    ) -> None:
        self.pipeline, self.real, self.extractor = pipeline, real, extractor
        self.settings, self.stage = settings, stage
        self.judge = Judge(real, settings.seed)

    def items(self, name: str) -> list[Item]:
        """Items of a set: a split, or one half of `test_pair`."""
        split = _SPLITS[name]
        items = [self.real.items[i] for i in self.real.places(split)]
        if split != "test_pair":
            return items
        return [item for item in items if (item.style in RESTYLE) == (name == "test_pair_restyle")]

    def asks(self, name: str) -> list[Ask]:
        """What is asked for in a set: items drawn at random with the card's seed."""
        settings, number = self.settings, _SEEDS[name]
        count = settings.few if name == "fresh" else settings.pictures
        items = pick(self.items(name), count, np.random.default_rng((settings.seed, number)))
        first = settings.seed + number * _MILLION
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
        default = self.pipeline.info.sampling.unit or self.pipeline.transformer.config.units[0].name
        return self.settings.unit or default


def measure_sets(bench: Bench) -> tuple[dict[str, Any], dict[str, Any], dict[str, Drawn]]:
    """Draw every set and judge it, generated and real pictures alike.

    Returns:
        Figures of the generated pictures by set, those of the real ones, and what was drawn.
    """
    generated, real, drawn = dict[str, Any](), dict[str, Any](), dict[str, Drawn]()
    for name in _SEEDS:
        asks = bench.asks(name)
        if not asks:
            continue  # a data set without such pictures
        drawn[name] = bench.look(asks, name)
        generated[name] = asdict(bench.judge.generated(drawn[name]))
        generated[name]["seconds"] = drawn[name].seconds
        real[name] = asdict(bench.judge.real_of(drawn[name]))
    return generated, real, drawn


def measure_units(bench: Bench) -> dict[str, Any]:
    """Compare the units on the same prompts and seeds, of trained items."""
    settings = bench.settings
    items = pick(
        bench.items("train"), settings.few, np.random.default_rng((settings.seed, _UNIT_SEEDS))
    )
    asks = plain_asks(items, settings.seed + _UNIT_SEEDS * _MILLION)
    grid, found = bench.pipeline.grid, dict[str, Any]()
    for unit in bench.pipeline.transformer.config.units:
        drawn = bench.look(asks, f"unit {unit.name}", unit.name)
        figures = bench.judge.generated(drawn)
        found[unit.name] = {
            "order": unit.order,
            "prediction": unit.prediction,
            "steps": plan_for(unit, grid).steps,
            "seconds_a_picture": drawn.seconds / len(asks),
            "concept": asdict(figures.concept),
            "style": figures.style,
        }
    return found


def measure_tokenizer(bench: Bench) -> dict[str, Any]:
    """Fidelity on the held-out splits, once each, and on the first pictures of `train`."""
    real, figures = bench.real, {}
    for split in ("val", "test_pair", "test_concept"):
        figures[split] = fidelity(bench.pipeline, real.pictures[real.places(split)])
    shown = pick(real.places("train"), CODE_PICTURES, np.random.default_rng(bench.settings.seed))
    figures["train"] = fidelity(bench.pipeline, real.pictures[shown])
    return figures


def measure(bench: Bench, runs: list[Path]) -> tuple[dict[str, Any], dict[str, Drawn]]:
    """Every figure of the card, and the sets that were drawn for them."""
    generated, real, drawn = measure_sets(bench)
    figures = {
        "protocol": protocol(bench),
        "pipeline": describe(bench.pipeline),
        "runs": [describe_run(run) for run in runs],
        "tokenizer": measure_tokenizer(bench),
        "losses": held_out_losses(bench.pipeline, bench.real),
        "generated": generated,
        "real": real,
        "units": measure_units(bench),
    }
    return figures, drawn


def protocol(bench: Bench) -> dict[str, Any]:
    """What must be the same for the figures to be compared."""
    return {
        "mmgen": mmgen.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": _processor(),
        "device": str(bench.pipeline.device),
        "threads": torch.get_num_threads(),
        "weights": bench.pipeline.fingerprint,
        "features": {"hash": bench.extractor.hash, "side": SIDE, "resizing": PROTOCOL},
        "data": {
            "hash": bench.real.hash,
            "image_size": bench.pipeline.info.image_size,
            "pictures": len(bench.real.items),
            "splits": {split: len(bench.real.places(split)) for split in SPLITS},
            "concepts": len(bench.judge.gallery.concepts),
        },
        "settings": to_dict(bench.settings),
        "unit": bench.unit,
        "sampling": to_dict(bench.pipeline.info.sampling),
        "prompt": PROMPT,
        "kid": {"draws": DRAWS, "size": DRAW_SIZE, "seed": bench.settings.seed},
        "style_ridge": RIDGE,
        "random_orders": SHUFFLES,
        "first_seeds": {
            name: bench.settings.seed + number * _MILLION for name, number in _SEEDS.items()
        },
    }


def describe(pipeline: Pipeline) -> dict[str, Any]:
    """Sizes and settings of a pipeline."""
    (_, transformer), vision = pipeline.two_way(), pipeline.vision
    return {
        "name": pipeline.info.name,
        "licence": pipeline.info.licence,
        "image_size": pipeline.info.image_size,
        "grid": list(pipeline.grid),
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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
