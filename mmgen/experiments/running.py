"""All of an experiment: train, measure, tell; what is finished is found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.config import to_dict
from mmgen.data.sources import open_source
from mmgen.errors import UserError
from mmgen.evaluation.real import shards_of, size_of
from mmgen.evaluation.results import Result
from mmgen.experiments.planning import Run, runs_of
from mmgen.experiments.report import Report, write_report
from mmgen.experiments.settings import Experiment
from mmgen.experiments.showing import draw_shown, shown_files
from mmgen.train.tasks import load_any, run

if TYPE_CHECKING:
    from mmgen.experiments.clips import ClipBench
    from mmgen.experiments.measuring import PictureBench
    from mmgen.pipeline import Pipeline

Say = Callable[[str], None]

MEASURED = "measured.json"  # in the folder of a run, written last
_KEY = "experiment"  # in what a result was made with: the hash of all that shapes it


def run_experiment(experiment: Experiment, say: Say) -> Report:
    """Train and measure every variant, and write table and picture anew after each of them.

    Started again, it goes on where it was: trainings from their newest checkpoint, and what was
    measured stays as it is while recipe and measures are the same.

    Args:
        experiment: what is compared.
        say: is told what happens.

    Raises:
        UserError: a recipe, the data or a folder is wrong; as far as possible before any training.
        SystemExit: a training was stopped by a signal.
    """
    runs = runs_of(experiment)
    bench = _Bench(experiment)
    found = {each.folder: kept(each, experiment) for each in runs}
    left = [each for each in runs if found[each.folder] is None]
    if left:
        _train_before(experiment, say)
        _open_all(left, say)
    results = dict[Path, Result]()
    report = None
    for number, each in enumerate(runs, start=1):
        result, place = found[each.folder], f"[{number}/{len(runs)}] {each.title}"
        if result is None:
            say(f"{place}: training into {each.folder}")
            final = run(each.recipe)
            say(f"{place}: measuring")
            result = bench.measure(each, final)
        else:
            say(f"{place}: measured before, in {each.folder / MEASURED}")
        results[each.folder] = result
        report = write_report(experiment, runs, results)
    assert report is not None
    return report


def kept(each: Run, experiment: Experiment) -> Result | None:
    """The figures of a run if they are there and of the same recipe and measures."""
    file = each.folder / MEASURED
    if not all(path.is_file() for path in (file, *shown_files(experiment, each).values())):
        return None
    result = Result.read(file)
    return result if result.made_with.get(_KEY) == _hash(each, experiment) else None


class _Bench:
    """Measures runs; real pictures are opened once they are needed."""

    def __init__(self, experiment: Experiment) -> None:
        from mmgen.devices import usable_device
        from mmgen.evaluation.features import FeatureExtractor

        self.experiment = experiment
        self.device = usable_device(None)
        self.extractor = FeatureExtractor(self.device)
        self._pictures: PictureBench | None = None
        self._clips: ClipBench | None = None
        if experiment.pictures is not None:
            size_of(experiment.pictures.real)
            for split in ("train", "val"):
                shards_of(experiment.pictures.real, split)
        if experiment.clips is not None:
            for place in (experiment.clips.real, experiment.clips.reference):
                open_source(place, films=True)

    def measure(self, each: Run, final: Path) -> Result:
        """Measure a trained run, and keep its figures and some of what it draws."""
        from mmgen.pipeline import Pipeline

        pipeline = Pipeline.from_pretrained(final).to(self.device)
        result = self._figures(pipeline, each)
        draw_shown(pipeline, self.experiment, each)
        made = {**result.made_with, _KEY: _hash(each, self.experiment)}
        result = Result(result.kind, result.protocol, made, result.figures)
        result.save(each.folder / MEASURED)
        return Result.read(each.folder / MEASURED)  # the same whether it is read now or later

    def _figures(self, pipeline: Pipeline, each: Run) -> Result:
        from mmgen.experiments.clips import ClipBench
        from mmgen.experiments.measuring import KIND, PictureBench, made_with

        told, size = self.experiment, pipeline.info.image_size
        protocol, figures = dict[str, Any](), dict[str, Any]()
        if told.pictures is not None:
            if self._pictures is None:
                self._pictures = PictureBench(told.pictures, size, self.extractor, told.seed)
            protocol["pictures"], figures["pictures"] = self._pictures.measure(pipeline)
        if told.clips is not None:
            if self._clips is None:
                data = each.recipe.clips
                assert data is not None  # else it was refused
                self._clips = ClipBench(told.clips, data, size, self.extractor, told.seed)
            protocol["clips"], figures["clips"] = self._clips.measure(pipeline)
        return Result(KIND, protocol, made_with(pipeline), figures)


def _train_before(experiment: Experiment, say: Say) -> None:
    for source in experiment.before:
        recipe = load_any(source)
        if not (Path(recipe.train.out) / "final").is_dir():
            say(f"First {source}: training into {recipe.train.out}")
            run(recipe)


def _open_all(runs: list[Run], say: Say) -> None:
    """Open the data, tokens and networks of every run, so that mistakes are told at once."""
    from mmgen.train.checkpoint import refuse_finished
    from mmgen.train.generator_task import GeneratorTask

    for each in runs:
        refuse_finished(each.folder, each.recipe.train.steps)
        say(f"Checking {each.title}")
        try:
            GeneratorTask(each.recipe)
        except UserError as error:
            raise type(error)(f"Variant {each.title}: {error}") from None


def _hash(each: Run, experiment: Experiment) -> str:
    """Of everything that figures and the picture of a run come from, but for the program."""
    told = {
        "recipe": to_dict(each.recipe),
        "pictures": to_dict(experiment.pictures) if experiment.pictures else None,
        "clips": to_dict(experiment.clips) if experiment.clips else None,
        "prompts": list(experiment.prompts),
        "seed": experiment.seed,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
