"""Folders of pipelines and tokenizers that a recipe names: a path, or the name of a shipped one."""

from __future__ import annotations

from pathlib import Path

from mmgen.pipeline_folder import (
    PIPELINE_FILE,
    find_pipeline,
    shipped_pipelines,
    shipped_tokenizer,
    shipped_tokenizers,
)


def pipeline_folder(place: str) -> Path:
    """The folder of a pipeline; what is no shipped pipeline's name is a path."""
    path = Path(place)
    return find_pipeline(place) if not path.exists() and place in shipped_pipelines() else path


def tokenizer_folder(place: str) -> Path:
    """The folder of a visual tokenizer, given as such, by its pipeline, or by a shipped name."""
    if not Path(place).exists() and place in shipped_tokenizers():
        return shipped_tokenizer(place)
    folder = pipeline_folder(place)
    return folder / "vision" if (folder / PIPELINE_FILE).is_file() else folder
