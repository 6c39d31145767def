"""What lies in a pipeline's folder, where pipelines are found, and whether the pieces fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.config import from_dict
from mmgen.errors import CheckpointError, ConfigError, suggestion
from mmgen.files import read_json

if TYPE_CHECKING:
    from mmgen.models.text import TextTokenizer
    from mmgen.models.unified import UnifiedModel
    from mmgen.tokenizers_vis.conv import ConvTokenizer

PIPELINE_FILE = "pipeline.json"
FORMAT = 1
DEFAULT = "emoji-64"


@dataclass(frozen=True)
class SamplingDefaults:
    """What a call uses where it is silent; ranges as in `DrawSettings` and `Guidance`.

    Where a code is drawn in sub-tokens, a list of scales or temperatures gives each its own.
    """

    unit: str | None = None
    guidance_scale: float | tuple[float, ...] = 3.0
    temperature: float | tuple[float, ...] = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what a call would refuse."""
        ranges = (
            ("guidance_scale", _smallest(self.guidance_scale) >= 0, "0 or more"),
            ("temperature", _smallest(self.temperature) >= 0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p < 1, "0 (off) or more and below 1"),
        )
        for name, good, what in ranges:
            if not good:
                raise ConfigError(f"{name} must be {what}, not {getattr(self, name)}.")


def _smallest(value: float | tuple[float, ...]) -> float:
    return min(value, default=-1.0) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Source:
    """The published file that a component was made from.

    Args:
        component: sub-folder of the pipeline.
        system: such as "llamagen".
        part: what kind of file it is, such as "VQ tokenizer".
        file: its name, without a folder.
        sha256: of the whole file.
        licence: of the published weights.
        repository: of the official code.
        notes: what was said when it was imported, such as "EMA weights".
    """

    component: str
    system: str
    part: str
    file: str
    sha256: str
    licence: str
    repository: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PipelineInfo:
    """Content of `pipeline.json`.

    Args:
        format: version of the folder's layout.
        name: name of the pipeline.
        image_size: pixels a side that it was trained on.
        sampling: defaults of a call.
        licence: of the weights, and what must be said of the data.
        training: record of how it was made; free form.
        sources: published files that it was imported from.
    """

    format: int
    name: str
    image_size: int
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    licence: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()


def shipped_pipelines() -> list[str]:
    """Names of the pipelines that come with the package."""
    folder = resources.files("mmgen.assets") / "pipelines"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / PIPELINE_FILE).is_file())


def find_pipeline(name_or_folder: str | Path | None = None) -> Path:
    """The folder of a pipeline, given as a folder or by the name of a shipped one.

    Raises:
        CheckpointError: there is none, or it may not be read.
    """
    name = str(name_or_folder or DEFAULT)
    names = shipped_pipelines()
    try:
        if name_or_folder is not None and (Path(name) / PIPELINE_FILE).is_file():
            return Path(name)
        is_folder = Path(name).is_dir()
    except OSError as error:  # no permission, or a name that no file can have
        raise CheckpointError(f"{name} cannot be read: {error.strerror}.") from None
    if name in names:
        return Path(str(resources.files("mmgen.assets") / "pipelines" / name))
    if is_folder and (Path(name) / "final" / PIPELINE_FILE).is_file():
        raise CheckpointError(f"{name} is a training run; its pipeline is {Path(name) / 'final'}.")
    if is_folder:
        raise CheckpointError(f"{name} holds no {PIPELINE_FILE}; give the folder of a pipeline.")
    known = suggestion(name, names) if names else "; give the folder of one."
    raise CheckpointError(f"There is no pipeline '{name}'{known}")


def read_info(folder: Path) -> PipelineInfo:
    """Read `pipeline.json`.

    Raises:
        UserError: it is missing, damaged or of a newer format.
    """
    path = folder / PIPELINE_FILE
    data = read_json(path)
    # First the format: a newer one may have keys that would be refused as unknown.
    found = data.get("format") if isinstance(data, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise CheckpointError(
            f"{folder} has format {found}, newer than this mmgen understands ({FORMAT}); "
            "upgrade mmgen-ar."
        )
    return from_dict(PipelineInfo, data, str(path))


def refuse_strangers(
    folder: Path,
    text: TextTokenizer,
    vision: ConvTokenizer,
    transformer: UnifiedModel,
    info: PipelineInfo,
) -> None:
    """Refuse pieces that were not made for each other: they would draw noise or fail midway.

    Raises:
        CheckpointError: the text, the codes or the grid of the pieces differ.
    """
    config, size = transformer.config, info.image_size
    facts = (
        ("ids of text", text.vocab_size, config.text_vocab),
        ("codes", vision.codebook_size, config.codebook_size),
        ("pixels a side", size, config.grid[1] * vision.config.stride),
        ("pixels a side", size, config.grid[2] * vision.config.stride),
    )
    for what, have, expected in facts:
        if have != expected:
            raise CheckpointError(
                f"The pieces of {folder} do not belong together ({have} {what}, but the "
                f"transformer was trained on {expected}); copy the whole folder again."
            )
