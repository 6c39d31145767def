"""The networks that a pipeline's folder may hold, by the class that their `config.json` names."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from mmgen.errors import CheckpointError, suggestion
from mmgen.files import read_json
from mmgen.saving import CONFIG_FILE

# Class -> module. Nothing else is ever imported on a file's word.
CLASSES = {
    "CausalVideoTokenizer": "mmgen.tokenizers_vis.causal_video",
    "ConditionalModel": "mmgen.models.conditional",
    "FactorizedModel": "mmgen.models.factorized",
    "ConvTokenizer": "mmgen.tokenizers_vis.conv",
    "LarpTokenizer": "mmgen.tokenizers_vis.larp",
    "SeedTokenizer": "mmgen.tokenizers_vis.seed",
    "UnclipConditioner": "mmgen.tokenizers_vis.unclip",
    "UnifiedModel": "mmgen.models.unified",
    "VelocityModel": "mmgen.models.velocity",
    "VideoConvTokenizer": "mmgen.tokenizers_vis.video_conv",
}


def load_component(folder: str | Path) -> Any:
    """Load the network in `folder`, whatever its class.

    Raises:
        CheckpointError: the folder is missing or damaged, or names a class that is not ours.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}; {_what_there_is(folder.parent)}.")
    kind = class_of(folder)
    return getattr(importlib.import_module(CLASSES[kind]), kind).from_pretrained(folder)


def class_of(folder: Path) -> str:
    """The class that the `config.json` of `folder` names.

    Raises:
        CheckpointError: it names none, or one that is not ours.
    """
    path = folder / CONFIG_FILE
    data = read_json(path)
    kind = data.get("class") if isinstance(data, dict) else None
    if not isinstance(kind, str):
        raise CheckpointError(f"{path} names no class; copy the folder again.")
    if kind not in CLASSES:
        raise CheckpointError(f"{path} names the class '{kind}'{suggestion(kind, CLASSES)}")
    return kind


def _what_there_is(pipeline: Path) -> str:
    names = sorted(path.parent.name for path in pipeline.glob(f"*/{CONFIG_FILE}"))
    return f"the pipeline holds only {', '.join(names)}" if names else "give one that holds a model"
