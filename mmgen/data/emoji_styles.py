"""The six emoji styles: which package holds the drawings, and how a drawing becomes pixels.

Every drawing ends as an RGB picture of 256x256 on white. SVG is rasterised by resvg (the wheel
`resvg_py`), which needs no system library.
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.data.npm import Package, obtain, read_members
from mmgen.errors import DataError, UserError

if TYPE_CHECKING:
    from PIL import Image

CANVAS = 256  # pixels a side of the master picture


@dataclass(frozen=True)
class Style:
    """A style word, its package, and the layout of that package (svg, icons, webp)."""

    word: str
    package: Package
    layout: str


STYLES = (
    Style(
        "twemoji",
        Package(
            "@discordapp/twemoji",
            "16.0.1",
            "2278fd609501e20dc646a546c1d7bbcab86a4c38010ded12b45e61f9687b9d0a",
        ),
        "svg",
    ),
    Style(
        "noto",
        Package(
            "@iconify-json/noto",
            "1.2.9",
            "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        ),
        "icons",
    ),
    Style(
        "blob",
        Package(
            "@iconify-json/noto-v1",
            "1.2.5",
            "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        ),
        "icons",
    ),
    Style(
        "flat",
        Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ),
        "icons",
    ),
    Style(
        "3d",
        Package(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        ),
        "webp",
    ),
    Style(
        "ink",
        Package(
            "@iconify-json/fluent-emoji-high-contrast",
            "1.2.6",
            "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
        ),
        "icons",
    ),
)

# Several files of the 3d package fall on one key with different pictures; these are the right ones.
_CHOSEN_3D = ("a9-fe0f", "ae-fe0f", "1f441-200d-1f5e8", "26a7-fe0f")

Draw = Callable[[str, str], "Image.Image"]  # (key, label) -> RGB, CANVAS x CANVAS


def key_of(code: str) -> str:
    """Return a code sequence in the set's form: lower case, no leading zeros, no `fe0f`.

    Example: `0023-FE0F-20E3` -> `23-20e3`.
    """
    parts = (part.lstrip("0") for part in code.lower().split("-"))
    return "-".join(part for part in parts if part != "fe0f")


def slug(label: str) -> str:
    """Return an icon name from a label: ASCII words in lower case, joined by `-`."""
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
    return re.sub("[^a-z0-9]+", "-", plain.lower().replace("'", "")).strip("-")


def open_style(style: Style, packages: Path | None = None) -> Draw:
    """Get a style's package and return the function that draws a concept in it.

    Args:
        style: one of `STYLES`.
        packages: folder with ready .tgz files; None fetches by npm.

    Raises:
        UserError: the package cannot be had.
        DataError: the package is damaged, or it lacks a drawing that is asked for.
    """
    path = obtain(style.package, packages)
    opener = {"svg": _open_svgs, "icons": _open_icons, "webp": _open_webps}[style.layout]
    draw = opener(path)

    def checked(key: str, label: str) -> Image.Image:
        try:
            return draw(key, label)
        except KeyError:
            raise DataError(f"{path} has no drawing for {key} ({label}); fetch it again.") from None

    return checked


def icon_svg(icons: dict[str, Any], name: str) -> str:
    """Return the SVG text of one icon of an Iconify set, following aliases.

    Args:
        icons: the content of `icons.json`.
        name: icon name.

    Raises:
        KeyError: there is no such icon.
    """
    for _ in range(8):  # aliases may point to aliases; the sets here need one step
        if name in icons["icons"]:
            break
        name = icons.get("aliases", {})[name]["parent"]
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{width}" height="{height}" color="#000">{icon["body"]}</svg>'
    )


def _open_svgs(path: Path) -> Draw:
    files = read_members(path, lambda name: bool(re.fullmatch(r"dist/svg/[0-9a-f-]+\.svg", name)))
    drawings = {key_of(Path(name).stem): content for name, content in files.items()}
    return lambda key, label: _rasterise(drawings[key].decode("utf-8"))


def _open_icons(path: Path) -> Draw:
    files = read_members(path, lambda name: name in ("icons.json", "chars.json"))
    try:
        icons = json.loads(files["icons.json"])
        names = {key_of(code): name for code, name in json.loads(files["chars.json"]).items()}
    except (KeyError, ValueError):
        raise DataError(f"{path} lacks a readable icons.json or chars.json.") from None
    if names:
        return lambda key, label: _rasterise(icon_svg(icons, names[key]))
    return lambda key, label: _rasterise(icon_svg(icons, slug(label)))


def _open_webps(path: Path) -> Draw:
    files = read_members(path, lambda name: bool(re.fullmatch(r"assets/[0-9a-f-]+\.webp", name)))
    by_code = {Path(name).stem: content for name, content in files.items()}
    drawings = {key_of(code): content for code, content in by_code.items()}
    drawings |= {key_of(code): by_code[code] for code in _CHOSEN_3D if code in by_code}
    return lambda key, label: _flatten(drawings[key])


def _rasterise(svg: str) -> Image.Image:
    """Rasterise SVG text on white; a drawing that is not square stands in the middle."""
    from PIL import Image

    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise UserError(
            "Drawing emoji needs the wheel resvg_py; install it with `pip install resvg_py==0.5.0`."
        ) from None
    png = svg_to_bytes(
        svg_string=svg, width=CANVAS, height=CANVAS, background="#ffffff", skip_system_fonts=True
    )
    drawn = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    if drawn.size == (CANVAS, CANVAS):
        return drawn
    canvas = Image.new("RGB", (CANVAS, CANVAS), "white")
    canvas.paste(drawn, ((CANVAS - drawn.width) // 2, (CANVAS - drawn.height) // 2))
    return canvas


def _flatten(webp: bytes) -> Image.Image:
    """Decode a WebP with alpha, bring it to the canvas by a box filter, put it over white."""
    from PIL import Image

    drawn = Image.open(io.BytesIO(webp)).convert("RGBA")
    if drawn.size != (CANVAS, CANVAS):
        drawn = drawn.resize((CANVAS, CANVAS), Image.Resampling.BOX)
    canvas = Image.new("RGBA", (CANVAS, CANVAS), "white")
    canvas.alpha_composite(drawn)
    return canvas.convert("RGB")
