"""What lies in a pipeline's folder, and where pipelines are found."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmgen.config import from_dict
from mmgen.errors import CheckpointError, ConfigError, suggestion
from mmgen.files import read_json
from mmgen.pieces import Fact, facts, text_facts
from mmgen.published.catalogue import SYSTEMS, Card, cards, find_card

if TYPE_CHECKING:
    from mmgen.models.conditional import ConditionalModel
    from mmgen.models.text import TextTokenizer
    from mmgen.models.text_features import TextEncoder
    from mmgen.models.unified import UnifiedModel
    from mmgen.models.velocity import VelocityModel

PIPELINE_FILE = "pipeline.json"
FORMAT = 1
DEFAULT = "emoji-64"


@dataclass(frozen=True)
class SamplingDefaults:
    """What a call uses where it is silent; see `DrawSettings`, `Guidance` and `FlowSettings`.

    Where a code is drawn in sub-tokens, a list of scales or temperatures gives each its own. With
    `num_frames` None, weights that were trained on stills draw stills, and others clips of the
    length that they were trained on.
    """

    unit: str | None = None
    guidance_scale: float | tuple[float, ...] = 3.0
    temperature: float | tuple[float, ...] = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    guidance_ramp: Literal["constant", "linear", "cosine"] = "constant"
    solver: Literal["euler", "heun", "euler-maruyama"] = "euler-maruyama"
    steps: int | tuple[int, ...] = 50
    num_frames: int | None = None
    fps: float | None = None  # of clips; None: nobody knows

    def __post_init__(self) -> None:
        """Refuse what a call would refuse."""
        ranges = (
            ("guidance_scale", _smallest(self.guidance_scale) >= 0, "0 or more"),
            ("temperature", _smallest(self.temperature) >= 0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p < 1, "0 (off) or more and below 1"),
            ("steps", _smallest(self.steps) >= 1, "1 or more"),
            ("num_frames", self.num_frames is None or self.num_frames >= 1, "1 or more"),
            ("fps", self.fps is None or 0.1 <= self.fps <= 240, "from 0.1 to 240"),
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


def shipped_tokenizers() -> list[str]:
    """Names of the visual tokenizers that come with the package, without a pipeline."""
    folder = resources.files("mmgen.assets") / "tokenizers"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / "config.json").is_file())


def shipped_tokenizer(name: str) -> Path:
    """The folder of a visual tokenizer that comes with the package."""
    return Path(str(resources.files("mmgen.assets") / "tokenizers" / name))


def find_pipeline(name_or_folder: str | Path | None = None) -> Path:
    """The folder of a pipeline, given as a folder, by name, or as a published SYSTEM/NAME.

    A published one is downloaded and imported at its first use.

    Raises:
        CheckpointError: there is none, or it may not be read.
        UserError: the published checkpoint is not known, or the hub does not give it.
    """
    place = locate_pipeline(name_or_folder)
    return place if isinstance(place, Path) else _published(place)


def locate_pipeline(name_or_folder: str | Path | None = None) -> Path | Card:
    """The folder of a pipeline, or the card of a published one, without downloading anything.

    Raises:
        CheckpointError: there is none, it may not be read, or it cannot draw.
        UserError: the published checkpoint is not known.
    """
    name = DEFAULT if name_or_folder is None else str(name_or_folder)
    names = shipped_pipelines()
    try:
        if name_or_folder and (Path(name) / PIPELINE_FILE).is_file():
            return Path(name)
        is_folder, is_file = bool(name) and Path(name).is_dir(), Path(name).is_file()
    except OSError as error:  # no permission, or a name that no file can have
        raise CheckpointError(f"{name} cannot be read: {error.strerror}.") from None
    if name in names:
        return Path(str(resources.files("mmgen.assets") / "pipelines" / name))
    if name in shipped_tokenizers():
        raise CheckpointError(_no_pipeline(name))
    if is_folder:
        _refuse_run(Path(name))
        if _holds_tokenizer(Path(name)):
            raise CheckpointError(_no_pipeline(name))
        raise CheckpointError(f"{name} holds no {PIPELINE_FILE}; give the folder of a pipeline.")
    if is_file:
        raise CheckpointError(
            f"{name} is a file, not the folder of a pipeline; if it is a published checkpoint, "
            f"make a pipeline of it with `mmgen import SYSTEM {name} --out FOLDER` (SYSTEM: see "
            "`mmgen models`)."
        )
    card = _card_of(name)
    if card is not None:
        if card.is_tokenizer:
            raise CheckpointError(
                f"{name} is a tokenizer and cannot draw; use it with `mmgen tokenizer check` and "
                "`mmgen eval tokenizer`, or choose weights that draw (`mmgen models`)."
            )
        return card
    published = [f"{card.system}/{card.name}" for card in cards() if card.name == name]
    if published:
        said = f"; did you mean {' or '.join(map(repr, published))}?"
    else:
        said = suggestion(name, names) if names else "; give the folder of one."
    raise CheckpointError(f"There is no pipeline '{name}'{said}")


def tokenizer_folder(model: str) -> Path:
    """The folder of a visual tokenizer, given as it is or by that of a pipeline, or by its name.

    Raises:
        CheckpointError: there is no such folder or pipeline.
    """
    folder = Path(model)
    if folder.is_dir() and not (folder / PIPELINE_FILE).is_file():
        _refuse_run(folder)
        return folder
    if not folder.exists() and model in shipped_tokenizers():
        return shipped_tokenizer(model)
    card = None if folder.exists() else _card_of(model)
    return (find_pipeline(model) if card is None else _published(card)) / "vision"


def _no_pipeline(tokenizer: str) -> str:
    return (
        f"{tokenizer} is a tokenizer, not a pipeline; train a generator on it (`mmgen train "
        f"generator --data FOLDER --tokenizer {tokenizer}`)."
    )


def _card_of(name: str) -> Card | None:
    """The card of a published SYSTEM/NAME; None for other names.

    Raises:
        UserError: the system has no such checkpoint.
    """
    system, slash, entry = name.partition("/")
    return find_card(system, entry) if slash and system in SYSTEMS else None


def _published(card: Card) -> Path:
    from mmgen.published.fetching import published_folder

    return published_folder(card)


def _refuse_run(folder: Path) -> None:
    """Refuse the folder of a training run, and name what came of it.

    Raises:
        CheckpointError: it is one.
    """
    final = folder / "final"
    if (final / PIPELINE_FILE).is_file():
        raise CheckpointError(f"{folder} is a training run; its pipeline is {final}.")
    if _holds_tokenizer(final):
        raise CheckpointError(f"{folder} is a training run; its tokenizer is {final}.")
    if (folder / "run.yaml").is_file():
        raise CheckpointError(
            f"{folder} is a training run that has not finished; its `mmgen train` command, given "
            "again, goes on with it."
        )


def _holds_tokenizer(folder: Path) -> bool:
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else None
    return isinstance(config, dict) and str(config.get("class")).endswith("Tokenizer")


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


def load_parts(
    folder: Path, info: PipelineInfo, text_encoder: str | Path | None = None
) -> tuple[
    TextTokenizer | TextEncoder | None, Any, UnifiedModel | ConditionalModel | VelocityModel
]:
    """Load text component, visual tokenizer and transformer.

    Args:
        folder: of the pipeline.
        info: its `pipeline.json`.
        text_encoder: where the text encoder lies, if not in the folder.

    Raises:
        CheckpointError: a piece is missing or damaged, or they were not made for each other.
    """
    refuse_incomplete(folder)
    # Only now what needs torch: a wrong name is refused at once.
    from mmgen.components import class_of, load_component
    from mmgen.models.text import TextTokenizer
    from mmgen.models.text_features import TextEncoder

    unified = class_of(folder / "transformer") == "UnifiedModel"
    if text_encoder is not None:
        _refuse_text_encoder(folder, unified)
    text: TextTokenizer | TextEncoder | None = None
    if unified:
        text = TextTokenizer.from_pretrained(folder / "text")
    elif text_encoder is not None or (folder / "text").is_dir():
        text = TextEncoder.from_pretrained(text_encoder or folder / "text")
    vision = load_component(folder / "vision")
    transformer = load_component(folder / "transformer")
    refuse_strangers(
        folder, [*text_facts(text, transformer), *facts(vision, transformer, info.image_size)]
    )
    return text, vision, transformer


def _refuse_text_encoder(folder: Path, unified: bool) -> None:
    """Refuse a text encoder for weights that take none, before it is looked for anywhere.

    Raises:
        ConfigError: these weights draw classes or frames, or have a text tokenizer of their own.
    """
    config = read_json(folder / "transformer" / "config.json")
    condition = config.get("condition") if isinstance(config, dict) else None
    kind = condition.get("kind") if isinstance(condition, dict) else None
    if kind != "features":
        why = "bring a text tokenizer of their own" if unified else "read no text of a T5 encoder"
        raise ConfigError(f"The weights of {folder} {why}; leave the text encoder out.")


def refuse_incomplete(folder: Path) -> None:
    """Refuse a pipeline that cannot draw: an imported one may be a tokenizer alone.

    Raises:
        CheckpointError: a visual tokenizer or a transformer is missing.
    """
    there = sorted(path.parent.name for path in folder.glob("*/config.json"))
    for needed in ("vision", "transformer"):
        if there and needed not in there:
            raise CheckpointError(
                f"There is no folder {folder / needed}, and a pipeline of only "
                f"{' and '.join(there)} cannot draw; import or copy them together."
            )


def refuse_strangers(folder: Path, facts: list[Fact]) -> None:
    """Refuse pieces that were not made for each other: they would draw noise or fail midway.

    Raises:
        CheckpointError: the text, the codes or the grid of the pieces differ.
    """
    for fact in facts:
        if fact.have != fact.needed:
            raise CheckpointError(
                f"The pieces of {folder} do not belong together ({fact}); put what the "
                f"transformer was trained with into {folder / fact.piece}."
            )
