"""A pen over Pillow for the pictures of this package: smooth boxes, arrows, text, step colours."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLOURS = ("#3c2a78", "#2f62a3", "#1f9593", "#6fc36a", "#f4dc60")  # first step to last
INK, FAINT, EMPTY, PAPER = "#30343f", "#868c99", "#eceef2", "#ffffff"
SHARP = 3  # drawn three times as large, then reduced: smooth edges

Point = tuple[float, float]


class Pen:
    """Draws on one sheet; lengths are in pixels of the finished picture.

    Args:
        width: of the picture.
        height: of the picture.
    """

    def __init__(self, width: float, height: float) -> None:
        self.size = (round(width), round(height))
        self.image = Image.new("RGB", (self.size[0] * SHARP, self.size[1] * SHARP), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def picture(self) -> Image.Image:
        """The finished picture, RGB."""
        return self.image.reduce(SHARP)  # means of squares: flat colours stay exact

    def box(self, box: tuple[float, ...], fill: str, radius: float = 0) -> None:
        """A box (left, top, right, bottom), its corners rounded."""
        scaled = [value * SHARP for value in box]
        self.pen.rounded_rectangle(scaled, radius * SHARP, fill=fill)

    def disc(self, centre: Point, colour: str, ring: bool = False, radius: float = 3) -> None:
        """A dot, or a ring."""
        x, y, r = centre[0] * SHARP, centre[1] * SHARP, radius * SHARP
        fill, width = (None, round(1.3 * SHARP)) if ring else (colour, 0)
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill, colour, width)

    def arrow(self, points: list[Point], colour: str = INK, edge: float = 0) -> None:
        """A line along the points, its head across or down; `edge` pixels of paper around it."""
        if edge:
            self._arrow(points, PAPER, edge)
        self._arrow(points, colour, 0)

    def _arrow(self, points: list[Point], colour: str, grow: float) -> None:
        (x0, y0), (x1, y1) = points[-2:]
        length = max(abs(x1 - x0), abs(y1 - y0))
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        neck = (x1 - 5 * dx, y1 - 5 * dy)
        self.line([*points[:-1], neck], colour, 1.3 + 2 * grow)
        tip, back, wing = 5 + 2 * grow, -grow, 3 + 1.8 * grow  # from the neck, along and across
        head = [(tip, 0.0), (back, wing), (back, -wing)]
        corners = [(neck[0] + a * dx - b * dy, neck[1] + a * dy + b * dx) for a, b in head]
        self.pen.polygon([(x * SHARP, y * SHARP) for x, y in corners], fill=colour)

    def line(self, points: list[Point], colour: str, width: float) -> None:
        """A line along the points."""
        scaled = [(x * SHARP, y * SHARP) for x, y in points]
        self.pen.line(scaled, colour, round(width * SHARP), joint="curve")

    def write(self, at: Point, text: str, size: float, colour: str, anchor: str = "mm") -> float:
        """Write and return the right end, in pixels."""
        font = _font(size * SHARP)
        self.pen.text((at[0] * SHARP, at[1] * SHARP), text, colour, font, anchor)
        return at[0] + font.getlength(text) / SHARP


def step_colour(step: int, steps: int) -> str:
    """Colour of a step: from the first of `COLOURS` to the last, mixed in between."""
    place = (step / (steps - 1) if steps > 1 else 0.5) * (len(COLOURS) - 1)
    low = min(int(place), len(COLOURS) - 2)
    return mix(COLOURS[low], COLOURS[low + 1], place - low)


def mix(one: str, other: str, share: float) -> str:
    """Mix two colours; share 1 is the other one."""
    mixed = (round(a + (b - a) * share) for a, b in zip(_rgb(one), _rgb(other)))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def readable(background: str) -> str:
    """Ink or paper, whichever is read better on the background."""
    red, green, blue = _rgb(background)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


def few_colours(image: Image.Image, colours: int = 256) -> Image.Image:
    """A picture with a palette, for a small file; its top left corner must be paper."""
    # Two rounds of k-means give the few grey letters their own colours.
    few = image.quantize(colours, Image.Quantize.MEDIANCUT, 2, dither=Image.Dither.NONE)
    palette = few.getpalette() or []
    paper = 3 * few.tobytes()[0]  # the corner is paper: white, whatever the averages made of it
    palette[paper : paper + 3] = [255] * 3
    few.putpalette(palette)
    return few


def save_gif(frames: list[Image.Image], path: Path) -> None:
    """Write an animation of about eight seconds that rests on its last frame."""
    both = Image.new("RGB", (frames[0].width, frames[0].height * 2))
    both.paste(frames[0])
    both.paste(frames[-1], (0, frames[0].height))
    palette = few_colours(both, 128)
    flat = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    each = max(60, min(600, 6000 // len(frames)))
    durations = [each] * (len(frames) - 1) + [2000]
    flat[0].save(path, "GIF", save_all=True, append_images=flat[1:], duration=durations, loop=0)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
