"""The picture of an experiment: the same prompts and seeds, a row for each variant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mmgen.evaluation.features import Pictures
from mmgen.evaluation.sheets import Block, Cell, Row, draw_blocks
from mmgen.experiments.planning import Run
from mmgen.experiments.settings import Experiment
from mmgen.files import replacing
from mmgen.progress import progress_of

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline

SHEET = "grid.png"


def shown_file(folder: Path) -> Path:
    """Where the pictures of a run are kept, side by side as they were drawn."""
    return folder / "shown.png"


def prompts_of(experiment: Experiment, each: Run) -> tuple[str, ...]:
    """What is drawn for the picture."""
    return experiment.prompts or each.recipe.preview_prompts


def draw_shown(pipeline: Pipeline, experiment: Experiment, each: Run) -> None:
    """Draw the prompts, picture i with the experiment's seed + i, one at a time, and keep them."""
    prompts, drawn = prompts_of(experiment, each), []
    with progress_of("Drawing the prompts") as progress:
        for i, prompt in enumerate(prompts):
            drawn.append(np.asarray(pipeline(prompt, seed=experiment.seed + i).images[0]))
            progress(i + 1, len(prompts))
    with replacing(shown_file(each.folder)) as temporary:
        Image.fromarray(np.concatenate(drawn, axis=1)).save(temporary)


def draw_sheet(experiment: Experiment, runs: Sequence[Run], file: Path) -> None:
    """Write the sheet of runs that were measured, all with the first seed of the training."""
    prompts = prompts_of(experiment, runs[0])
    rows = [Row(each.variant, [Cell([p]) for p in _shown(each, len(prompts))]) for each in runs]
    for cell, prompt in zip(rows[-1].cells, prompts):
        cell.notes.append(prompt)
    note = (
        f"Training seed {runs[0].seed}; column i has the seed {experiment.seed} + i in every row. "
        "Nothing was picked."
    )
    with replacing(file) as temporary:
        draw_blocks([Block(Path(experiment.out).name, note, rows)]).save(temporary)


def _shown(each: Run, count: int) -> list[Pictures]:
    with Image.open(shown_file(each.folder)) as image:
        strip = np.asarray(image.convert("RGB"))
    return np.split(strip, count, axis=1)
