"""The figures of one run: its pictures, its losses, its costs, and what they were measured by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmgen.config import to_dict
from mmgen.evaluation.asking import PROMPT
from mmgen.evaluation.features import Extractor
from mmgen.evaluation.generator import speed
from mmgen.evaluation.held_out import encode
from mmgen.evaluation.measure import (
    Bench,
    CardSettings,
    describe_unit,
    draw_sets,
    judge_real,
    judge_sets,
    rules,
)
from mmgen.evaluation.protocol import of_pipeline
from mmgen.evaluation.real import RealSet, cache_of, open_real
from mmgen.experiments.losses import held_out
from mmgen.experiments.settings import PictureMeasures
from mmgen.models.units import find_unit
from mmgen.progress import progress_of

if TYPE_CHECKING:
    from mmgen.models.unified import Unit
    from mmgen.pipeline import Pipeline

KIND = "experiment"


class PictureBench:
    """Real pictures that all variants are held against.

    Args:
        measures: what is measured.
        size: pixels a side.
        extractor: the feature network.
        seed: of everything that is drawn.
    """

    def __init__(
        self, measures: PictureMeasures, size: int, extractor: Extractor, seed: int
    ) -> None:
        self.measures, self.extractor = measures, extractor
        self.settings = CardSettings(measures.count, measures.count, measures.batch, seed)
        with progress_of("Looking at the real pictures") as update:
            cache = cache_of(measures.real)
            self.real: RealSet = open_real(measures.real, size, extractor, cache, update)

    def measure(self, pipeline: Pipeline) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rules and figures: of the pipeline's default unit, and of real pictures beside it."""
        pipeline = drawing_stills(pipeline)
        bench = Bench(pipeline, self.real, self.extractor, self.settings, progress_of)
        unit = find_unit(pipeline.transformer.config.units, bench.unit)
        drawn = draw_sets(bench, self.measures.sets, unit.name)
        figures = {
            **describe_unit(pipeline, unit),
            "evaluations": evaluations(pipeline, unit.name),
            "loss": self._loss(pipeline, unit),
            "sets": judge_sets(bench, drawn),
            "pictures_a_second": speed(bench, unit.name, self.measures.speed),
        }
        shared = {**rules(bench), "sets": list(self.measures.sets)}
        shared.pop("sampling")  # of the variant
        return shared, {**figures, "real": judge_real(bench, drawn)}

    def _loss(self, pipeline: Pipeline, unit: Unit) -> dict[str, Any]:
        places = self.real.places("val")
        items = [self.real.items[i] for i in places]
        prompts = [PROMPT.format(phrase=item.concept.phrase, style=item.style) for item in items]
        with progress_of("Held-out loss"):
            codes = encode(pipeline, self.real.pictures[places])
            return held_out(pipeline, unit, codes, prompts)


def drawing_stills(pipeline: Pipeline) -> Pipeline:
    """The same networks, whose calls draw pictures if they do not say."""
    usual = replace(pipeline.info.sampling, num_frames=1)
    info = replace(pipeline.info, sampling=usual)
    return type(pipeline)(pipeline.text, pipeline.vision, pipeline.transformer, info)


def evaluations(pipeline: Pipeline, unit: str, **call: Any) -> int:
    """How often the network is asked for one picture; with guidance, for both branches at once.

    Args:
        pipeline: what draws. `unit`: of its weights.
        call: further settings of the call.
    """
    with calls_of(pipeline.two_way()[1].backbone) as calls:
        pipeline("", seed=0, unit=unit, output_type="codes", **call)
    return len(calls)


@contextmanager
def calls_of(network: Any) -> Iterator[list[None]]:
    """Yield a list that grows with every forward pass of a network in the block."""
    calls: list[None] = []
    handle = network.register_forward_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        handle.remove()


def made_with(pipeline: Pipeline) -> dict[str, Any]:
    """Weights, sampling and the machine."""
    parameters = sum(each.numel() for each in pipeline.transformer.parameters())
    sampling = to_dict(pipeline.info.sampling)
    return {**of_pipeline(pipeline), "parameters": parameters, "sampling": sampling}
