"""`mmgen eval`: figures that two people get alike, each with the rules it was measured by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli.options import AllowBad, Device, ModelArgument, TokenizerArgument
from mmgen.cli.places import check_folder, check_share
from mmgen.cli.tables import show
from mmgen.cli.values import prompts_in
from mmgen.errors import UserError
from mmgen.progress import progress_of

if TYPE_CHECKING:
    import torch

    from mmgen.evaluation.expected import Expected
    from mmgen.evaluation.inception import Inception
    from mmgen.evaluation.lpips import Lpips
    from mmgen.evaluation.results import Result

app = typer.Typer(help="Measure weights and pictures.", no_args_is_help=True)

Data = Annotated[str, typer.Option(help="Folder that `mmgen data emoji` wrote.")]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write everything as JSON.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Keeps the real pictures' features between runs; default: features.safetensors "
        "beside the folder of --data.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of every choice and picture.")]
InceptionFile = Annotated[
    Path | None,
    typer.Option(
        "--inception",
        metavar="FILE",
        help="torch-fidelity's weights-inception-2015-12-05-6726825d.pth; adds FID and its kin.",
    ),
]
Final = Annotated[
    bool,
    typer.Option(
        "--final", help="Also look at the test splits, once, when nothing is left to be chosen."
    ),
]


@app.command()
def real(
    *,
    data: Data,
    damage: Annotated[
        bool, typer.Option("--damage", help="Also look at 600 damaged pictures, a scale for KID.")
    ] = False,
    seed: Seed = 0,
    features_cache: Cache = None,
    json: Json = None,
) -> None:
    """Measure the emoji set's own pictures, whose figures are known; exit code 1 if they are off.

    A check of the yardstick.
    """
    _check(json)
    with progress_of("Looking at the real pictures") as update:
        from mmgen.evaluation.damage import damage_figures
        from mmgen.evaluation.expected import expected
        from mmgen.evaluation.features import FeatureExtractor
        from mmgen.evaluation.judge import Judge
        from mmgen.evaluation.protocol import data_rules, features_rules, of_program
        from mmgen.evaluation.real import open_real, size_of
        from mmgen.evaluation.real_figures import real_figures
        from mmgen.evaluation.results import Result
        from mmgen.evaluation.tables import off

        size, extractor, cache = size_of(data), FeatureExtractor(), _cache(features_cache, data)
        pictures = open_real(data, size, extractor, cache, update)
    judge = Judge(pictures, seed)
    with progress_of("Comparing them") as update:
        figures = real_figures(judge, update)
    if damage:
        with progress_of("Damaging some") as update:
            figures |= damage_figures(judge, extractor, progress=update)
    rules = {"features": features_rules(extractor), "data": data_rules(pictures), "seed": seed}
    known = {name: value for name, value in expected(size).items() if name in figures}
    _tell(Result("real", rules, of_program("cpu"), figures), json, known)
    wrong = off(figures, known)
    if not known:
        typer.echo(f"No figures are known for {size}x{size} pixels: nothing was checked.")
    elif wrong:
        typer.echo(f"Off: {', '.join(wrong)}.")
        raise typer.Exit(1)
    elif judged := sum(each.spread is not None for each in known.values()):
        typer.echo(f"All {judged} figures of known spread came out within it.")


@app.command()
def tokenizer(
    model: TokenizerArgument,
    *,
    data: Annotated[
        str,
        typer.Option(
            help="Folder that `mmgen data emoji` wrote, or other pictures: a folder or shards."
        ),
    ],
    split: Annotated[
        list[str] | None, typer.Option(help="Of the emoji set; repeatable; default: val.")
    ] = None,
    final: Final = False,
    size: Annotated[
        int | None, typer.Option(min=1, help="Pixels a side; default: the pipeline's, or 64.")
    ] = None,
    inception: InceptionFile = None,
    lpips: Annotated[
        tuple[str, Path, Path] | None,
        typer.Option(
            metavar="vgg|alex BACKBONE CHANNELS",
            help="Adds LPIPS: torchvision's weights of that network, and lpips's own file.",
        ),
    ] = None,
    allow_bad: AllowBad = 0.01,
    device: Device = None,
    json: Json = None,
) -> None:
    """Measure how well pictures come back from their codes: PSNR, SSIM, code use; rFID, LPIPS."""
    _check(json)
    check_share(allow_bad)
    from mmgen.data.reports import report_bad
    from mmgen.evaluation.sets import HELD_OUT, TESTS

    splits = split or list(HELD_OUT if final else HELD_OUT[:1])
    if not final and set(TESTS) & set(splits):
        raise UserError("Test splits are looked at once, at the end; say --final if this is it.")
    with progress_of("Loading"):
        from mmgen.devices import usable_device
        from mmgen.evaluation.tokenizer import WHOLE, evaluate_tokenizer

        place = usable_device(device)
        looker, distance = _inception(inception, place), _lpips(lpips, place)
    result = evaluate_tokenizer(
        model,
        data,
        splits,
        stage=progress_of,
        size=size,
        limit_bad=allow_bad,
        device=place,
        inception=looker,
        lpips=distance,
    )
    _tell(result, json)
    for part, found in result.figures.items():
        if bad := found["bad"]:
            name = data if part == WHOLE else f"{data} ({part})"
            said = report_bad(bad, found["pictures"] + len(bad), name)
            typer.echo(f"mmgen: {said}", err=True)


@app.command()
def generator(
    model: ModelArgument = None,
    *,
    data: Data,
    unit: Annotated[
        list[str] | None,
        typer.Option(help="What is decided in one step; repeatable; default: all of the weights'."),
    ] = None,
    pictures: Annotated[int, typer.Option(min=2, help="Most pictures of each set and unit.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn at a time.")] = 16,
    seed: Seed = 0,
    final: Final = False,
    inception: InceptionFile = None,
    features_cache: Cache = None,
    device: Device = None,
    json: Json = None,
) -> None:
    """Measure what a pipeline draws, unit by unit, beside real pictures, and how it ranks captions.

    Prompts are of trained pairs, trained pairs in fresh wordings, and `val`; with --final also of
    the test splits.
    """
    _check(json)
    with progress_of("Loading"):
        from mmgen.devices import usable_device
        from mmgen.evaluation.features import FeatureExtractor
        from mmgen.evaluation.generator import evaluate_generator
        from mmgen.evaluation.measure import Bench, CardSettings
        from mmgen.evaluation.real import open_real, size_of
        from mmgen.pipeline import Pipeline

        size_of(data)  # refuses what is no emoji set, before packages and weights are looked for
        settings = CardSettings(pictures, pictures, batch, seed)
        pipe = Pipeline.from_pretrained(model).to(usable_device(device))
        looker, extractor = _inception(inception, pipe.device), FeatureExtractor(pipe.device)
    cache = _cache(features_cache, data)
    with progress_of("Looking at the real pictures") as update:
        shown = open_real(data, pipe.info.image_size, extractor, cache, update)
    bench = Bench(pipe, shown, extractor, settings, progress_of)
    beside = cache.with_stem(f"{cache.stem}-inception")
    result = evaluate_generator(bench, unit or (), final=final, inception=looker, cache=beside)
    _tell(result, json)


@app.command()
def pictures(
    samples: Annotated[
        Path, typer.Argument(help="Folder of pictures of one size, or an .npz with arr_0.")
    ],
    reference: Annotated[
        Path, typer.Argument(help="The same, or an ADM reference .npz with mu and sigma.")
    ],
    *,
    inception: InceptionFile = None,
    device: Device = None,
    json: Json = None,
) -> None:
    """Measure FID, sFID, precision, recall and IS of pictures against a reference."""
    _check(json)
    if inception is None:
        raise UserError(
            "FID and its kin need the network that published numbers are of; give torch-fidelity's "
            "weights-inception-2015-12-05-6726825d.pth with --inception FILE."
        )
    with progress_of("Loading"):
        from mmgen.devices import usable_device
        from mmgen.evaluation.batches import evaluate_pictures
        from mmgen.evaluation.inception import Inception

        network = Inception(inception, usable_device(device))
    _tell(evaluate_pictures(samples, reference, network, progress_of), json)


@app.command("adm-npz")
def adm_npz(
    model: ModelArgument = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npz file to write.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Pictures.")] = 50_000,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts, one a line, drawn in turn; weights that draw classes draw all in turn.",
        ),
    ] = None,
    unit: Annotated[str | None, typer.Option(help="What is decided in one step.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn at a time.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Picture i has SEED + i.")] = 0,
    device: Device = None,
) -> None:
    """Draw samples into the file that ADM's evaluator (guided-diffusion) reads."""
    if out.suffix != ".npz":
        raise UserError(f"{out} must end in .npz, which ADM's evaluator reads.")
    check_folder(out.parent)
    lines, told = prompts_in(prompts), out.with_name(f"{out.stem}-protocol.json")
    with progress_of("Drawing") as update:
        from mmgen.devices import usable_device
        from mmgen.evaluation.adm import write_samples
        from mmgen.evaluation.batches import describe_samples, samples_of
        from mmgen.evaluation.tables import protocol_tables
        from mmgen.pipeline import Pipeline

        pipe = Pipeline.from_pretrained(model).to(usable_device(device))
        options: dict[str, Any] = {"seed": seed, "batch": batch, "unit": unit}
        drawn = samples_of(pipe, lines, count, progress=update, **options)
        result = describe_samples(pipe, lines, count, **options)
        write_samples(out, drawn, count)
        result.save(told)
    show(protocol_tables(result))
    typer.echo(f"Wrote {out}: {count} pictures of seeds {seed} to {seed + count - 1}.")
    typer.echo(f"How they were drawn is in {told}.")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="A result of --json.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another.")],
    *,
    despite: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="A rule that is meant to differ, such as sampling."),
    ] = None,
) -> None:
    """Show two results side by side, if they were measured by the same rules."""
    from mmgen.evaluation.results import Result
    from mmgen.evaluation.results import compare as compared
    from mmgen.evaluation.tables import circumstances, comparison

    first, second = Result.read(a), Result.read(b)
    rows, names = compared(first, second, despite or ()), (a.name, b.name)
    show([comparison(rows, names), circumstances(first, second, names)])


def _check(json: Path | None) -> None:
    """Refuse a place for the result before anything is measured."""
    if json is not None:
        check_folder(json.parent)
        if json.is_dir():
            raise UserError(f"{json} is a folder; name a file for the result.")


def _tell(result: Result, json: Path | None, known: dict[str, Expected] | None = None) -> None:
    from mmgen.evaluation.tables import WARNING, looks_at_tests, tables_of

    show(tables_of(result, known))
    if looks_at_tests(result):
        typer.echo(WARNING)
    if json is not None:
        result.save(json)
        typer.echo(f"The result is in {json}.")


def _cache(given: Path | None, data: str) -> Path:
    from mmgen.evaluation.real import cache_of

    return given or cache_of(data)


def _inception(file: Path | None, device: torch.device) -> Inception | None:
    if file is None:
        return None
    from mmgen.evaluation.inception import Inception

    return Inception(file, device)


def _lpips(words: tuple[str, Path, Path] | None, device: torch.device) -> Lpips | None:
    if words is None:
        return None
    from mmgen.evaluation.lpips import Lpips

    return Lpips(*words, device)
