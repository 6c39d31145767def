"""What an experiment found: `table.json` with the protocol, `table.md`, and `grid.png`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.config import to_dict
from mmgen.errors import UserError
from mmgen.evaluation.prose import filled, table
from mmgen.evaluation.results import Result, differences, flat
from mmgen.evaluation.sets import SETS
from mmgen.evaluation.tables import Table
from mmgen.experiments import planning
from mmgen.experiments.columns import Column, clip_columns, picture_columns
from mmgen.experiments.planning import Run
from mmgen.experiments.settings import Experiment
from mmgen.experiments.showing import SHEET, draw_sheet
from mmgen.files import write_text

JSON, MARKDOWN = "table.json", "table.md"
TITLES = {"pictures": "Pictures", "clips": "Clips"}
_COLUMNS = {"pictures": picture_columns, "clips": clip_columns}
LOSSES = (
    "Held-out losses are each in their own terms: nats a code and squared velocities measure "
    "different things and are never compared, nor are those of different tokenizers."
)


@dataclass(frozen=True)
class Report:
    """The tables so far, and the files that hold them."""

    tables: tuple[Table, ...]
    files: tuple[Path, ...]


def write_report(
    experiment: Experiment, runs: Sequence[Run], results: Mapping[Path, Result]
) -> Report:
    """Write the three files.

    Args:
        experiment: what is compared.
        runs: all of it.
        results: of the runs that were measured so far, by their folders.

    Raises:
        UserError: the runs were measured by different rules.
    """
    done = [each for each in runs if each.folder in results]
    _refuse_other_rules(done, results)
    out = Path(experiment.out)
    first = results[done[0].folder]
    tables = tuple(
        _table(part, done, results, first.protocol[part])
        for part in TITLES
        if part in first.protocol
    )
    _whole(experiment, runs, done, results).save(out / JSON)
    shown = [each for each in done if each.seed == experiment.seeds[0]]
    draw_sheet(experiment, shown, out / SHEET)
    write_text(out / MARKDOWN, _markdown(experiment, runs, done, results, tables))
    return Report(tables, (out / MARKDOWN, out / JSON, out / SHEET))


def _refuse_other_rules(done: Sequence[Run], results: Mapping[Path, Result]) -> None:
    first = done[0].folder
    for each in done[1:]:
        found = differences(results[first], results[each.folder])
        for name, (a, b) in found.items():
            raise UserError(
                f"{each.folder} and {first} were measured by different rules ({name} is {b} and "
                f"{a}); delete both files measured.json to have them measured again."
            )


def _table(
    part: str, done: Sequence[Run], results: Mapping[Path, Result], rules: dict[str, Any]
) -> Table:
    figures = {each.folder: results[each.folder].figures[part] for each in done}
    columns: list[Column] = _COLUMNS[part]([*figures.values()], rules)
    rows = []
    for variant in dict.fromkeys(each.variant for each in done):
        own = [figures[each.folder] for each in done if each.variant == variant]
        rows.append([variant, *(column.cell(own) for column in columns)])
    first = next(iter(figures.values()))
    by_loss = {run["loss"]["in"]: run for run in reversed([*figures.values()])}
    chance = [_chance(column, [first, *by_loss.values()]) for column in columns]
    rows.append(["real", *(column.write(column.real(first)) for column in columns)])
    if part == "clips":
        still = [column.write(column.still(first)) for column in columns]
        rows.append(["real, standing still", *still])
    rows.append(["knowing nothing", *chance])
    return Table(TITLES[part], ["variant", *(column.head for column in columns)], rows)


def _chance(column: Column, runs: Sequence[dict[str, Any]]) -> str:
    values = [value for run in runs if (value := column.chance(run)) is not None]
    return column.write(values[0] if values else None)


def _whole(
    experiment: Experiment,
    runs: Sequence[Run],
    done: Sequence[Run],
    results: Mapping[Path, Result],
) -> Result:
    first = results[done[0].folder]
    figures, made = dict[str, Any](), dict[str, Any]()
    for each in done:
        result = results[each.folder]
        figures.setdefault(each.variant, {})[str(each.seed)] = result.figures
        made.setdefault(each.variant, {})[str(each.seed)] = result.made_with
    recipes = {each.variant: each.recipe for each in runs}
    protocol = {
        **first.protocol,
        "experiment": to_dict(experiment),
        "samples": {name: planning.samples(recipe) for name, recipe in recipes.items()},
        "differing": planning.differences(recipes),
        "recipe": to_dict(runs[0].recipe),
    }
    return Result(first.kind, protocol, made, figures)


def _markdown(
    experiment: Experiment,
    runs: Sequence[Run],
    done: Sequence[Run],
    results: Mapping[Path, Result],
    tables: Sequence[Table],
) -> str:
    recipes = {each.variant: each.recipe for each in runs}
    differing = planning.differences(recipes)
    seen = planning.samples(runs[0].recipe)
    counts = " and ".join(f"{count} {what}" for what, count in seen.items() if count)
    base = experiment.recipe if isinstance(experiment.recipe, str) else "the recipe of its file"
    parts = [
        f"# {Path(experiment.out).name}",
        f"{len(recipes)} variants of {base}, each trained from "
        f"{len(experiment.seeds)} seed{'s' * (len(experiment.seeds) > 1)} on the same {counts}, "
        "counted as often as they were seen (clips on average). Figures of several seeds are "
        "means, with the lowest and the highest.",
        f"Variants differ in {_listed(differing)}. Everything else is equal: data, backbone, "
        "optimiser, and all other keys of the recipe in `table.json`.",
    ]
    if len(done) < len(runs):
        parts.append(f"Not finished: {len(done)} of {len(runs)} runs are measured so far.")
    parts.append(_variants(differing))
    for each in tables:
        parts += [f"## {each.title}", table(each.heads, each.rows)]
    parts.append(_counted(results[done[0].folder]))
    parts += [LOSSES, *_notes(done, results), f"![the same prompts and seeds]({SHEET})"]
    rules = [[name, _said(value)] for name, value in flat(results[done[0].folder].protocol).items()]
    parts += ["## Protocol", table(["rule", "value"], rules)]
    return filled("\n\n".join(part for part in parts if part)) + "\n"


def _variants(differing: dict[str, dict[str, Any]]) -> str:
    """What each variant is, a column for each key in which they differ."""
    if not differing:
        return ""
    names = next(iter(differing.values()))
    rows = [[name, *(_said(values[name]) for values in differing.values())] for name in names]
    return table(["variant", *differing], rows)


def _counted(result: Result) -> str:
    """How many pictures and clips the figures are of."""
    found = []
    for name, figures in result.figures.get("pictures", {}).get("sets", {}).items():
        found.append(f"`{name}` ({SETS[name].title}): {figures['concept']['count']} pictures")
    if "clips" in result.figures:
        found.append(f"clips: {result.figures['clips']['clips']}")
    return f"Drawn for each run, none left out: {'; '.join(found)}."


def _notes(done: Sequence[Run], results: Mapping[Path, Result]) -> list[str]:
    """What a reader must know of these figures in particular."""
    made = [results[each.folder].made_with for each in done]
    machines = {(each["machine"], each["device"], each["threads"]) for each in made}
    told = " and ".join(sorted(f"{name}, {device}, {n} threads" for name, device, n in machines))
    if len(machines) > 1:
        return [f"Speeds do not compare: they were measured on several machines ({told})."]
    return [f"Speeds were measured on one machine ({told}); its other load is not known."]


def _listed(differing: dict[str, Any]) -> str:
    return ", ".join(f"`{key}`" for key in differing) or "nothing"


def _said(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return "; ".join(" ".join(str(v) for v in _told(item).values()) for item in value)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|")


def _told(unit: dict[str, Any]) -> dict[str, Any]:
    """The parts of a unit that say what it is."""
    return {key: unit[key] for key in ("name", "order", "prediction") if key in unit} or unit
