"""Sets of pictures that others measure: folders, ADM's files, and samples drawn for ADM."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmgen.data.pictures import EXTENSIONS, open_picture
from mmgen.errors import DataError, UserError
from mmgen.evaluation.adm import AdmBatch, read_batch
from mmgen.evaluation.features import Features, Pictures, features_of
from mmgen.evaluation.inception import Inception, Reference, Seen, described, standard_figures
from mmgen.evaluation.protocol import of_pipeline, of_program
from mmgen.evaluation.results import Result
from mmgen.evaluation.stills import still_grid
from mmgen.files import sha256_of
from mmgen.prefixes import condition_kind
from mmgen.progress import Progress, Stage

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline


def evaluate_pictures(
    samples: str | Path, reference: str | Path, inception: Inception, stage: Stage
) -> Result:
    """FID, sFID, precision, recall and IS of a set of pictures.

    Args:
        samples: a folder of pictures of one size, or an .npz with `arr_0`.
        reference: the same, or an .npz with statistics.
        inception: the network. `stage`: shows progress.

    Raises:
        UserError: a set cannot be read, or holds too few pictures.
    """
    made = open_batch(samples)
    if made.pictures is None:
        raise DataError(f"{samples} holds statistics but no pictures; give the samples themselves.")
    right = open_batch(reference)
    seen = _seen(made.pictures, inception, stage, "the samples")
    figures = standard_figures(seen, _reference(right, inception, stage))
    return Result(
        "pictures",
        {
            "inception": described(inception),
            "pictures": len(made.pictures),
            "side": list(made.pictures.shape[1:3]),
            "reference": _hash(right, reference),
        },
        {**of_program(inception.device), "samples": _hash(made, samples)},
        figures,
    )


def open_batch(place: str | Path) -> AdmBatch:
    """Read a folder of pictures or an ADM file.

    Raises:
        UserError: nothing is there, it cannot be read, or the pictures have several sizes.
    """
    if not Path(place).is_dir():
        return read_batch(place)
    files = sorted(f for f in Path(place).iterdir() if f.suffix.lower()[1:] in EXTENSIONS)
    if not files:
        raise DataError(f"{place} holds no pictures; check the path.")
    pictures = [np.asarray(open_picture(file, file.name)) for file in files]
    for file, picture in zip(files, pictures):
        if picture.shape != pictures[0].shape:
            (height, width), (other, wide) = picture.shape[:2], pictures[0].shape[:2]
            raise DataError(
                f"{file} is {width}x{height} and {files[0].name} is {wide}x{other}; pictures of "
                "one set must have one size."
            )
    return AdmBatch(np.stack(pictures), None, None)


def samples_of(
    pipeline: Pipeline,
    prompts: Sequence[str],
    count: int,
    *,
    seed: int = 0,
    batch: int = 16,
    unit: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Pictures]:
    """Draw batches of pictures for `write_samples`.

    Args:
        pipeline: what draws, with its own settings.
        prompts: drawn in turn; for weights that draw classes none are taken: picture i shows class
            i modulo their number.
        count: of pictures; picture i has `seed + i`.
        seed: of the first. `batch`: drawn at a time. `unit`: None: the pipeline's default.
        progress: called with pictures done and pictures in all.

    Raises:
        UserError: prompts are missing, or given to weights that draw classes, or the weights draw
            clips alone.
    """
    still_grid(pipeline)
    classes = condition_kind(pipeline) == "class"
    if classes and prompts:
        raise UserError(f"The weights of '{pipeline.info.name}' draw classes; leave prompts out.")
    if not classes and not prompts:
        raise UserError(f"The weights of '{pipeline.info.name}' draw from text; give --prompts.")
    number = pipeline.transformer.config.condition.classes if classes else len(prompts)  # type: ignore[union-attr]
    return _draw(pipeline, prompts, number, count, seed, batch, unit, progress)


def describe_samples(
    pipeline: Pipeline,
    prompts: Sequence[str],
    count: int,
    *,
    seed: int = 0,
    batch: int = 16,
    unit: str | None = None,
) -> Result:
    """How the pictures of `samples_of` are drawn: rules and circumstances, without figures.

    Takes the same arguments.

    Raises:
        UserError: a setting is out of range.
    """
    asked: dict[str, Any] = {"prompt": prompts[0]} if prompts else {"class_labels": 0}
    recipe = pipeline.request(**asked, seed=seed, unit=unit, num_frames=1).recipe(0)
    shown = ("prompt", "class_label", "seed")
    listed = hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16] if prompts else None
    return Result(
        "samples",
        {
            "pictures": count,
            "side": pipeline.info.image_size,
            "prompts": {"count": len(prompts), "hash": listed} if prompts else "classes in turn",
            "first_seed": seed,
            **{name: value for name, value in recipe.items() if name not in shown},
        },
        {**of_pipeline(pipeline), "name": pipeline.info.name, "batch": batch},
        {},
    )


def _draw(
    pipeline: Pipeline,
    prompts: Sequence[str],
    number: int,
    count: int,
    seed: int,
    batch: int,
    unit: str | None,
    progress: Progress | None,
) -> Iterator[Pictures]:
    for start in range(0, count, batch):
        places = range(start, min(start + batch, count))
        asked: dict[str, Any] = {"class_labels": [i % number for i in places]}
        if prompts:
            asked = {"prompt": [prompts[i % number] for i in places]}
        seeds = [seed + i for i in places]
        output = pipeline(**asked, seed=seeds, unit=unit, num_frames=1)
        yield np.stack([np.asarray(image.convert("RGB")) for image in output.images])
        if progress is not None:
            progress(places.stop, count)


def _reference(batch: AdmBatch, inception: Inception, stage: Stage) -> Reference:
    """Statistics as a file gives them, else of its pictures."""
    seen = None
    if batch.pictures is not None:
        seen = _seen(batch.pictures, inception, stage, "the reference")
    if batch.pooled is not None:
        features = None if seen is None else seen.pooled
        return Reference(batch.pooled, batch.spatial, features)
    assert seen is not None  # read_batch refuses a file without both
    return Reference.of(seen)


def _seen(pictures: Pictures, inception: Inception, stage: Stage, what: str) -> Seen:
    with stage(f"Looking at {what}") as progress:
        features: Features = features_of(pictures, inception, progress=progress)
    return Seen.of(features)


def _hash(batch: AdmBatch, place: str | Path) -> str:
    """Of the file, or of a folder's pictures."""
    if Path(place).is_file():
        return sha256_of(place)[:16]
    assert batch.pictures is not None
    return hashlib.sha256(np.ascontiguousarray(batch.pictures).tobytes()).hexdigest()[:16]
