"""The picture of an experiment: the same prompts and seeds, a row for each variant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mmgen.evaluation.clip_figures import shown
from mmgen.evaluation.features import Pictures
from mmgen.evaluation.sheets import Block, Cell, Row, draw_blocks
from mmgen.experiments.planning import Run
from mmgen.experiments.settings import Experiment
from mmgen.files import replacing
from mmgen.progress import progress_of

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline

SHEET = "grid.png"
TITLES = {"pictures": "Pictures", "clips": "Clips, five frames of each"}


def shown_files(experiment: Experiment, each: Run) -> dict[str, Path]:
    """Where what a run draws is kept as it was drawn: a row of pictures for each prompt."""
    parts = {"pictures": experiment.pictures, "clips": experiment.clips}
    return {part: each.folder / f"shown-{part}.png" for part, told in parts.items() if told}


def prompts_of(experiment: Experiment, each: Run) -> tuple[str, ...]:
    """What is drawn for the picture."""
    return experiment.prompts or each.recipe.preview_prompts


def draw_shown(pipeline: Pipeline, experiment: Experiment, each: Run) -> None:
    """Draw the prompts, number i with the experiment's seed + i, one at a time, and keep them."""
    prompts = prompts_of(experiment, each)
    for part, file in shown_files(experiment, each).items():
        rows = []
        with progress_of(f"Drawing the prompts, {part}") as progress:
            for i, prompt in enumerate(prompts):
                drawn = _draw(pipeline, part, prompt, experiment.seed + i)
                rows.append(np.concatenate(drawn, axis=1))
                progress(i + 1, len(prompts))
        with replacing(file) as temporary:
            Image.fromarray(np.concatenate(rows)).save(temporary)


def draw_sheet(experiment: Experiment, runs: Sequence[Run], file: Path) -> None:
    """Write the sheet of runs that were measured, all with the first seed of the training."""
    prompts = prompts_of(experiment, runs[0])
    note = (
        f"Training seed {runs[0].seed}; column i has the seed {experiment.seed} + i in every row. "
        "Nothing was picked."
    )
    blocks = []
    for part in shown_files(experiment, runs[0]):
        rows = []
        for each in runs:
            drawn = _kept(shown_files(experiment, each)[part], len(prompts))
            rows.append(Row(each.variant, [Cell(pictures) for pictures in drawn]))
        for cell, prompt in zip(rows[-1].cells, prompts):
            cell.notes.append(prompt)
        blocks.append(Block(TITLES[part], note, rows))
    with replacing(file) as temporary:
        draw_blocks(blocks).save(temporary)


def _draw(pipeline: Pipeline, part: str, prompt: str, seed: int) -> list[Pictures]:
    """A picture, or five frames of a clip, each (H, W, 3)."""
    if part == "pictures":
        return [np.asarray(pipeline(prompt, seed=seed, num_frames=1).images[0].convert("RGB"))]
    frames = pipeline(prompt, seed=seed, num_frames=pipeline.trained_frames).frames[0]
    return [np.asarray(frames[number].convert("RGB")) for number in shown(len(frames))]


def _kept(file: Path, count: int) -> list[list[Pictures]]:
    """Pictures by prompt; they are squares."""
    with Image.open(file) as image:
        rows = np.split(np.asarray(image.convert("RGB")), count)
    return [np.split(row, row.shape[1] // row.shape[0], axis=1) for row in rows]
