"""Results in words and columns: what `mmgen eval` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmgen.evaluation.expected import Expected
from mmgen.evaluation.markdown import set_cells, top
from mmgen.evaluation.results import Result, Row, flat
from mmgen.evaluation.sets import SETS, TESTS

WARNING = "Test splits were looked at: nothing may be chosen by these figures."


@dataclass(frozen=True)
class Table:
    """A title, the heads of columns, and rows of as many cells."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables_of(result: Result, known: dict[str, Expected] | None = None) -> list[Table]:
    """Everything a result holds, its protocol last.

    Args:
        result: of any kind.
        known: figures that real pictures are known to have.
    """
    makers = {
        "real": lambda: [_real(result, known or {})],
        "tokenizer": lambda: [_tokenizer(result)],
        "generator": lambda: list(_generator(result)),
        "pictures": lambda: [_standard("Standard metrics", {"": result.figures})],
    }
    return [*makers[result.kind](), *protocol_tables(result)]


def protocol_tables(result: Result) -> list[Table]:
    """The rules that results must share to be compared, and what may differ."""
    heads = ("name", "value")
    rules = [(name, _said(value)) for name, value in flat(result.protocol).items()]
    made = [(name, _said(value)) for name, value in flat(result.made_with).items()]
    return [Table("Protocol", heads, rules), Table("Made with", heads, made)]


def off(figures: dict[str, Any], known: dict[str, Expected]) -> list[str]:
    """Names of figures that lie outside their spread."""
    return [n for n, value in known.items() if n in figures and not value.holds(figures[n])]


def comparison(rows: Sequence[Row], names: tuple[str, str]) -> Table:
    """Two results side by side."""
    cells = [(r.name, number(r.a), number(r.b), _signed(r.change)) for r in rows]
    return Table("Comparison", ("figure", *names, "change"), cells)


def circumstances(a: Result, b: Result, names: tuple[str, str]) -> Table:
    """What two results were made with, side by side; a star marks what differs."""
    left, right = flat(a.made_with), flat(b.made_with)
    rows = [
        (name, *(_said(each.get(name)) for each in (left, right)))
        for name in [*left, *(name for name in right if name not in left)]
    ]
    marked = [(*row, "*" if row[1] != row[2] else "") for row in rows]
    return Table("Made with", ("name", *names, "differs"), marked)


def looks_at_tests(result: Result) -> bool:
    """Whether figures of a test split are among those of weights."""
    named = [*result.protocol.get("sets", []), *result.protocol.get("data", {})]
    return result.kind != "real" and any(name.startswith(TESTS) for name in named)


def _real(result: Result, known: dict[str, Expected]) -> Table:
    wrong = off(result.figures, known)
    rows = []
    for name, found in result.figures.items():
        right = known.get(name)
        if right is None:
            said = ("-", "", "")
        elif right.spread is None:
            said = (number(right.value), "-", "")
        else:
            verdict = "OFF" if name in wrong else "ok"
            sign = "+" if right.is_largest else "+-"
            said = (number(right.value), f"{sign}{right.spread:.4f}", verdict)
        rows.append((name, number(found), *said))
    heads = ("figure", "found", "expected", "spread", "")
    return Table("Real pictures", heads, rows)


def _tokenizer(result: Result) -> Table:
    extra = [
        (name, head)
        for name, head in (("rfid", "rFID"), ("rsfid", "sFID"), ("lpips", "LPIPS"))
        if any(name in found for found in result.figures.values())
    ]
    heads = ["split", "pictures", "skipped", "PSNR, dB", "SSIM", "codes used", "perplexity"]
    rows = [
        [
            split,
            str(found["pictures"]),
            str(found.get("skipped", 0)),
            f"{found['psnr']:.2f}",
            f"{found['ssim']:.3f}",
            "-" if found["codes_used"] is None else f"{found['codes_used']:.1%}",
            "-" if found["perplexity"] is None else f"{found['perplexity']:.0f}",
            *(number(found.get(name)) for name, _ in extra),
        ]
        for split, found in result.figures.items()
    ]
    return Table("Reconstruction", [*heads, *(head for _, head in extra)], rows)


def _generator(result: Result) -> Iterator[Table]:
    units, real = result.figures["units"], result.figures["real"]
    rows = []
    for name in real:
        for unit, found in units.items():
            rows.append([SETS[name].title, unit, *set_cells(found["sets"][name])])
        rows.append([SETS[name].title, "real", *set_cells(real[name])])
    heads = ["prompts", "by", "n", "concept top-1 / top-5", "style", "KID (of n)"]
    heads += ["nearest trained 5 % / median / 95 %", "same concept"]
    yield Table("Pictures, beside real ones", heads, rows)
    speeds = [
        [
            name,
            found["order"],
            str(found["steps"]),
            *map(number, found["pictures_a_second"].values()),
        ]
        for name, found in units.items()
    ]
    batches = [f"pictures/s, batch {b}" for b in result.made_with["batch_of_speed"]]
    yield Table("Units", ["unit", "order", "steps", *batches], speeds)
    ranks = [
        [
            split,
            str(found["pictures"]),
            str(found["captions"]),
            top(found),
            " / ".join(f"{found['rank'][part]:.0f}" for part in ("low", "median", "high")),
        ]
        for split, found in result.figures["captions"].items()
    ]
    heads = ["split", "pictures", "captions", "top-1 / top-5", "rank 5 % / median / 95 %"]
    yield Table("Rank of the true caption", heads, ranks)
    standard = result.figures["standard"]
    if standard:
        by = {**{name: standard[name] for name in units}, "real": standard["real"]}
        yield _standard("Standard metrics, trained pairs against the training pictures", by)


def _standard(title: str, found: dict[str, Any]) -> Table:
    heads = ["by"] if "" not in found else []
    heads += ["pictures", "FID", "sFID", "precision", "recall", "IS"]
    rows = []
    for name, figures in found.items():
        values = (figures[key] for key in ("fid", "sfid", "precision", "recall", "is"))
        rows.append([*([name] if name else []), str(figures["pictures"]), *map(number, values)])
    return Table(title, heads, rows)


def number(value: float | None) -> str:
    """A figure: whole if it is, else four places, or two where it is large; - for none."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return str(value)
    if value == int(value) and abs(value) >= 1:
        return str(int(value))
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)
