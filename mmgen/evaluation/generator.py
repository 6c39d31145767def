"""All figures of a generator, unit by unit, beside those of real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmgen.bench.machine import best_of
from mmgen.evaluation.asking import Drawn
from mmgen.evaluation.features import features_of
from mmgen.evaluation.inception import (
    Inception,
    Reference,
    Seen,
    described,
    standard_figures,
)
from mmgen.evaluation.likelihood import CAPTIONS
from mmgen.evaluation.measure import (
    Bench,
    describe_unit,
    draw_sets,
    judge_real,
    judge_sets,
    rank_captions,
    rules,
)
from mmgen.evaluation.protocol import of_pipeline
from mmgen.evaluation.results import Result
from mmgen.evaluation.sets import HELD_OUT, SETS
from mmgen.evaluation.stills import still_unit, still_units

if TYPE_CHECKING:
    from pathlib import Path

    from mmgen.models.unified import Unit

STANDARD_SET = "train"  # whose pictures the standard metrics look at
BATCHES = (1, 16)  # that the speed is measured at
_REPEATS = 2


def evaluate_generator(
    bench: Bench,
    units: Sequence[str] = (),
    *,
    final: bool = False,
    inception: Inception | None = None,
    cache: Path | None = None,
) -> Result:
    """Measure every unit on the same prompts and seeds.

    Args:
        bench: pipeline, real pictures and yardstick.
        units: names; none: all that the weights draw pictures with.
        final: also look at the test splits, on which nothing may be chosen.
        inception: adds FID, sFID, precision, recall and IS.
        cache: file of Inception's features of the real pictures.

    Raises:
        UserError: the weights only draw, or draw clips alone, or have no such unit.
    """
    pipeline = bench.pipeline
    pipeline.two_way()
    chosen = _chosen(bench, units)
    names = [name for name, each in SETS.items() if final or not each.is_test]
    looker = _Standard(bench, inception, cache) if inception else None
    found, real, standard = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for unit in chosen:
        drawn = draw_sets(bench, names, unit.name)
        real = real or judge_real(bench, drawn)
        found[unit.name] = {
            **describe_unit(pipeline, unit),
            "pictures_a_second": speed(bench, unit.name, BATCHES),
            "sets": judge_sets(bench, drawn),
        }
        if looker:
            standard[unit.name] = looker.made(drawn[STANDARD_SET])
            standard["real"] = looker.real(drawn[STANDARD_SET])
    splits = HELD_OUT if final else HELD_OUT[:1]
    captions = {split: rank_captions(bench, split) for split in splits}
    extra = {"inception": described(inception)} if inception else {}
    return Result(
        "generator",
        {**rules(bench), "sets": names, "captions": CAPTIONS, **extra},
        {
            **of_pipeline(pipeline),
            "name": pipeline.info.name,
            "batch": bench.settings.batch,
            "batch_of_speed": list(BATCHES),
        },
        {"units": found, "real": real, "captions": captions, "standard": standard},
    )


def _chosen(bench: Bench, names: Sequence[str]) -> list[Unit]:
    chosen = names or list(still_units(bench.pipeline))
    return [still_unit(bench.pipeline, name) for name in chosen]


def speed(bench: Bench, unit: str, batches: Sequence[int]) -> dict[str, float]:
    """Pictures a second, pixels included, by the number drawn together."""

    prompts = [ask.prompt for ask in bench.asks(STANDARD_SET)]

    def seconds(batch: int) -> float:
        asked = [prompts[i % len(prompts)] for i in range(batch)]
        return best_of(_REPEATS, lambda: bench.pipeline(asked, seed=0, unit=unit, num_frames=1))

    with bench.stage(f"Timing unit {unit}"):
        return {str(batch): batch / seconds(batch) for batch in batches}


class _Standard:
    """Inception's figures against the training pictures."""

    def __init__(self, bench: Bench, inception: Inception, cache: Path | None) -> None:
        self._bench, self._inception = bench, inception
        places = bench.judge.train
        self._row = {bench.real.items[place].id: row for row, place in enumerate(places)}
        with bench.stage("Looking at the training pictures with Inception") as progress:
            pictures = bench.real.pictures[places]
            self._features = features_of(pictures, inception, cache=cache, progress=progress)
        self._reference = Reference.of(Seen.of(self._features))

    def made(self, drawn: Drawn) -> dict[str, Any]:
        """Figures of generated pictures."""
        with self._bench.stage("Looking with Inception") as progress:
            features = features_of(drawn.pictures, self._inception, progress=progress)
        return standard_figures(Seen.of(features), self._reference)

    def real(self, drawn: Drawn) -> dict[str, Any]:
        """Figures of the real pictures of the same items: what so few pictures get at best."""
        rows = [self._row[ask.item.id] for ask in drawn.asks]
        return standard_figures(Seen.of(self._features[rows]), self._reference)
