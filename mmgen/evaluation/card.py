"""The card of a pipeline: figures, sheets, curves and README.md.

python -m mmgen.evaluation.card PIPELINE --data data/emoji --run runs/emoji64-generator --out card
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from mmgen.data.emoji_notices import NOTICES
from mmgen.errors import UserError
from mmgen.evaluation.features import FeatureExtractor
from mmgen.evaluation.markdown import card_text
from mmgen.evaluation.measure import Bench, CardSettings, measure
from mmgen.evaluation.pages import results_page, styles_page, units_page
from mmgen.evaluation.plots import stacked, training_curves
from mmgen.evaluation.real import cache_of, open_real
from mmgen.files import replacing, write_json, write_text
from mmgen.pipeline import Pipeline
from mmgen.progress import Progress, Stage, progress_of

__all__ = ["CardSettings", "card_text", "make_card"]

PREPARE = ('pip install -e ".[data,eval]"', "mmgen data emoji --out data/emoji")


def make_card(
    pipeline_folder: str | Path,
    data_folder: str | Path,
    out_folder: str | Path,
    runs: Sequence[str | Path] = (),
    *,
    settings: CardSettings | None = None,
    features: str | Path | None = None,
    licence: str = "Apache-2.0",
    hardware: str = "",
    failures: Sequence[str] = (),
    stage: Stage = progress_of,
) -> dict[str, Any]:
    """Draw, measure, and write the card.

    Args:
        pipeline_folder: the pipeline, or the name of a shipped one.
        data_folder: shards of the emoji set (`mmgen data emoji`).
        out_folder: gets README.md, LICENSES.md, figures.json and the pictures.
        runs: run folders whose curves and recipes are shown, in the order of training: the
            tokenizer's first, the generator's last.
        settings: how much is drawn.
        features: cache of the real pictures' features (default: see `cache_of`).
        licence: of the weights, where the pipeline names none.
        hardware: what the training ran on, in words.
        failures: sentences for the list of known failures.
        stage: gives the progress callback of a piece of work, as `progress_of` does.

    Returns:
        The content of figures.json.

    Raises:
        UserError: the pipeline, the data, a run or the feature network cannot be used.
    """
    out, settings = Path(out_folder), settings or CardSettings()
    folders = [Path(run) for run in runs]
    curves = [training_curves(run) for run in folders]  # first, since they fail cheaply
    pipeline = Pipeline.from_pretrained(pipeline_folder)
    extractor = FeatureExtractor(pipeline.device)
    cache = Path(features) if features is not None else cache_of(data_folder)
    with stage("Looking at the real pictures") as progress:
        real = open_real(data_folder, pipeline.info.image_size, extractor, cache, progress)
    bench = Bench(pipeline, real, extractor, settings, stage)
    figures, drawn = measure(bench, folders)
    write_json(out / "figures.json", figures)
    _save(results_page(bench, drawn), out / "results.png")
    _save(styles_page(bench), out / "styles.png")
    _save(units_page(bench, figures["units"]), out / "units.png")
    if curves:
        _save(stacked(curves), out / "curves.png")
    text = card_text(
        figures,
        licence=licence,
        hardware=hardware,
        failures=failures,
        commands=[*PREPARE, *_commands(figures, settings)],
    )
    write_text(out / "LICENSES.md", NOTICES)
    write_text(out / "README.md", text)
    return figures


def _commands(figures: dict[str, Any], settings: CardSettings) -> list[str]:
    """Training, if runs have the names of their recipes, and the call that makes the card."""
    names = [shlex.quote(run["name"]) for run in figures["runs"]]
    runs = [f"--run runs/{name}" for name in names]
    folder = f"runs/{names[-1]}/final" if names else "FOLDER"
    default, options = CardSettings(), []
    for name in ("pictures", "few", "batch", "seed", "unit"):
        value = getattr(settings, name)
        if value != getattr(default, name):
            options.append(f"--{name} {value}")
    words = ["--data data/emoji", *runs, *options, "--out card"]
    card = f"python -m mmgen.evaluation.card {folder} {' '.join(words)}"
    return [*(f"mmgen train {name}" for name in names), card]


def _save(image: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        image.save(temporary, "PNG", optimize=True)


@contextmanager
def _announced(title: str) -> Iterator[Progress]:
    """A progress bar, and a line with the time once it is done."""
    started = time.monotonic()
    with progress_of(title) as update:
        yield update
    print(f"{title}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _main(
    pipeline: Annotated[str, typer.Argument(help="Folder of a pipeline, or its name.")],
    *,
    data: Annotated[Path, typer.Option(help="Shards of the emoji set.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the card.")],
    run: Annotated[list[Path] | None, typer.Option(help="Run folder; may be repeated.")] = None,
    pictures: Annotated[int, typer.Option(help="Most pictures of each set.")] = 300,
    few: Annotated[int, typer.Option(help="Pictures of each unit, and of fresh wordings.")] = 60,
    batch: Annotated[int, typer.Option(help="Pictures drawn at a time.")] = 16,
    seed: Annotated[int, typer.Option(help="Of every choice and picture.")] = 0,
    unit: Annotated[str | None, typer.Option(help="Unit to draw with; default: the usual.")] = None,
    features: Annotated[Path | None, typer.Option(help="Cache of the real features.")] = None,
    licence: Annotated[str, typer.Option(help="Of the weights, if they name none.")] = "Apache-2.0",
    hardware: Annotated[str, typer.Option(help="What the training ran on, in words.")] = "",
    failure: Annotated[
        list[str] | None, typer.Option(help="A known failure, in a sentence; may be repeated.")
    ] = None,
) -> None:
    """Measure a pipeline against the real emoji and write its card."""
    make_card(
        pipeline,
        data,
        out,
        run or [],
        settings=CardSettings(pictures, few, batch, seed, unit),
        features=features,
        licence=licence,
        hardware=hardware,
        failures=failure or [],
        stage=_announced,
    )
    typer.echo(f"The card is in {out}.")


if __name__ == "__main__":
    try:
        typer.run(_main)
    except UserError as error:
        print(f"mmgen: {error}", file=sys.stderr)
        sys.exit(2)
