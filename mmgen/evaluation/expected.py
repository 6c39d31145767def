"""What real pictures of the emoji set are known to score, measured when the set was made.

Each figure has a spread: shares were rounded to two digits and depend a little on the rasteriser,
KID depends on the draws, and on how a set falls into halves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

STYLES = ("twemoji", "noto", "blob", "flat", "3d", "ink")

# Rows: query. Columns: gallery, in the order of STYLES. Top-1 / top-5 at 64x64.
RETRIEVAL = """
twemoji - .54/.74 .40/.61 .48/.71 .42/.68 .22/.43
noto .52/.73 - .53/.72 .49/.72 .48/.71 .26/.46
blob .38/.59 .50/.71 - .33/.53 .29/.52 .18/.33
flat .45/.67 .47/.67 .32/.53 - .88/.97 .60/.79
3d .43/.65 .48/.72 .32/.54 .88/.97 - .52/.71
ink .20/.39 .22/.39 .16/.32 .54/.72 .47/.66 -
"""
CONCEPT = {
    64: "twemoji .64/.85 noto .69/.87 blob .54/.73 flat .87/.97 3d .84/.96 ink .49/.69 "
    "val .65/.84 test_pair .69/.85 test_concept .63/.83",
    32: "twemoji .65/.85 noto .71/.87 blob .55/.75 flat .89/.98 3d .88/.98 ink .42/.64",
}
KID = {
    64: "twemoji,noto .011 blob,twemoji .005 flat,twemoji .015 3d,twemoji .038 blob,noto .008 "
    "flat,noto .026 3d,noto .025 blob,flat .014 3d,blob .040 3d,flat .044 "
    "train,test_pair .0000 train,test_concept .0024",
    32: "twemoji,noto .008 blob,twemoji .005 flat,twemoji .014 3d,twemoji .020 blob,noto .006 "
    "flat,noto .018 3d,noto .014 blob,flat .012 3d,blob .021 3d,flat .019",
}
KID_OF_INK = {64: (0.133, 0.176), 32: (0.140, 0.179)}  # against any other style, the ends of it
KID_OF_HALVES, LARGEST_HALVES = 0.0002, {64: 0.0007, 32: 0.0011}
COPYING = (
    "test_pair/low .71 test_pair/median .86 test_pair/high .97 "
    "test_concept/low .65 test_concept/median .81 test_concept/high .97"
)
STYLE = "all .75 twemoji .67 noto .65 blob .45 flat .80 3d .89 ink .97"
NEAREST_MEAN = 0.56
# KID and concept score of damaged training pictures at 64x64: of 600 that chance chose.
DAMAGE = {
    "none": (0.000, 0.67, 0.86),
    "resolution / 2": (0.028, 0.61, 0.81),
    "resolution / 4": (0.110, 0.28, 0.52),
    "resolution / 8": (0.223, 0.04, 0.08),
    "noise": (0.116, 0.33, 0.56),
    "captions permuted": (0.000, 0.003, 0.005),
}

SHARE = 0.01  # spread of a share
ROUNDING, DRAWS = 0.0005, 0.03  # of KID: absolute, and relative to it


@dataclass(frozen=True)
class Expected:
    """A known figure, and how far from it a right one may lie; None: nobody measured how far.

    Of a largest value that was seen, a right one may also lie anywhere below.
    """

    value: float
    spread: float | None
    is_largest: bool = False

    def holds(self, found: float) -> bool:
        """Whether a figure is within the spread."""
        if self.spread is None:
            return True
        away = found - self.value
        return (away if self.is_largest else abs(away)) <= self.spread + 1e-9


def expected(size: int) -> dict[str, Expected]:
    """Known figures by their names in `real_figures`, for pictures of `size` pixels a side.

    Sizes other than 64 and 32 have none, 32 only some.
    """
    if size not in CONCEPT:
        return {}
    found = {name: Expected(value, SHARE) for name, value in _tops("concept", CONCEPT[size])}
    found |= {f"kid/{pair}": _kid(value) for pair, value in _pairs(KID[size])}
    low, high = KID_OF_INK[size]
    ink = Expected((low + high) / 2, (high - low) / 2 + DRAWS * high)
    found |= {f"kid/{','.join(sorted((s, 'ink')))}": ink for s in STYLES if s != "ink"}
    for name in ("of a style, mean", "everything"):
        found[f"kid/halves/{name}"] = Expected(0.0, KID_OF_HALVES)
    largest = Expected(LARGEST_HALVES[size], 2 * KID_OF_HALVES, True)  # an extreme varies more
    found["kid/halves/of a style, largest"] = largest
    if size == 64:
        found |= {name: Expected(value, SHARE) for name, value in _retrieval()}
        found |= {f"copying/{n}": Expected(v, SHARE) for n, v in _pairs(COPYING)}
        found |= {f"style/{n}": Expected(v, SHARE) for n, v in _pairs(STYLE)}
        found["style/by nearest mean"] = Expected(NEAREST_MEAN, SHARE)
        for name, (distance, top1, top5) in DAMAGE.items():
            for figure, value in (("kid", distance), ("top1", top1), ("top5", top5)):
                found[f"damage/{name}/{figure}"] = Expected(value, None)
    return found


def _kid(value: float) -> Expected:
    return Expected(value, ROUNDING + DRAWS * value)


def _pairs(words: str) -> Iterator[tuple[str, float]]:
    listed = words.split()
    for name, value in zip(listed[::2], listed[1::2]):
        both = name.split(",")
        styles = all(style in STYLES for style in both)
        yield ",".join(sorted(both)) if styles else name, float(value)


def _tops(kind: str, words: str) -> Iterator[tuple[str, float]]:
    listed = words.split()
    for name, both in zip(listed[::2], listed[1::2]):
        top1, top5 = map(float, both.split("/"))
        yield f"{kind}/{name}/top1", top1
        yield f"{kind}/{name}/top5", top5


def _retrieval() -> Iterator[tuple[str, float]]:
    for line in RETRIEVAL.split("\n")[1:-1]:
        query, *cells = line.split()
        words = [f"{query}>{style} {cell}" for style, cell in zip(STYLES, cells) if cell != "-"]
        yield from _tops("retrieval", " ".join(words))
