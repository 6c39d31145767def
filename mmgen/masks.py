"""What an edit draws anew: a mask, a box or margins, on the picture and on the grid of its codes.

The weights see the middle square of a picture, as in training. A cell of the grid is drawn anew if
anything masked lies in it; of the pixels, only the masked ones change, and near the others they
pass from the old to the new.

Shapes: H, W pixels of the picture; h, w cells of the grid.
"""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmgen.captioning import pictures_of
from mmgen.data.pictures import PIXEL_LIMIT, to_rgb
from mmgen.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[int, int, int, int]
Mask = npt.NDArray[np.bool_]

SEAM = (2, 16)  # fewest and most pixels from old to new; between them 1/64 of the square's side


@dataclass(frozen=True, eq=False)
class Canvas:
    """A picture and what of it is drawn anew.

    Args:
        seen: RGB, what the weights see: white where margins are to be drawn.
        under: RGB, what shows through at the seam: like `seen`, but margins repeat its edge.
        masked: (H, W) bool, what is drawn anew.
        told: of the edit, for the recipe.
    """

    seen: Image.Image
    under: Image.Image
    masked: Mask
    told: dict[str, Any]

    @property
    def square(self) -> Box:
        """Left, top, right and bottom of the middle square; as torchvision's `center_crop`."""
        width, height = self.seen.size
        side = min(width, height)
        left, top = round((width - side) / 2), round((height - side) / 2)
        return left, top, left + side, top + side

    def cells(self, grid: tuple[int, int]) -> Mask:
        """Which cells (h, w) of the middle square are drawn anew: all that hold masked pixels."""
        left, top, right, bottom = self.square
        inside = self.masked[top:bottom, left:right]
        rows = np.stack(
            [inside[part].any(0) for part in _parts(bottom - top, grid[0])]
        )  # (h, side)
        return np.stack([rows[:, part].any(1) for part in _parts(right - left, grid[1])], axis=1)

    def with_new(self, drawn: Image.Image) -> Image.Image:
        """The picture with a drawn square of any size in the masked part; the rest is untouched."""
        from PIL import Image

        left, top, right, bottom = self.square
        side = (right - left, bottom - top)
        new = drawn.convert("RGB").resize(side, Image.Resampling.BICUBIC)
        share = _soft(self.masked[top:bottom, left:right])  # of the new; at 0 a byte stays itself
        whole = self.under.copy()
        whole.paste(new, (left, top), Image.fromarray((share * 255).round().astype(np.uint8)))
        return whole


def canvas_of(
    image: Image.Image,
    mask: Image.Image | None = None,
    box: Box | None = None,
    outpaint: int | Box | None = None,
) -> Canvas:
    """Lay out an edit.

    Args:
        image: of any size and mode.
        mask: white or transparent where the picture is drawn anew; of the picture's shape.
        box: x, y, width, height of what is drawn anew.
        outpaint: pixels that are added on the left, top, right and bottom, or on each side.

    Raises:
        UserError: no PIL pictures, not exactly one of them, a mask of another shape, or a part
            that is empty, or reaches outside the picture or its middle square.
    """
    if sum(given is not None for given in (mask, box, outpaint)) != 1:
        raise UserError("Say what is drawn anew: give one of a mask, a box and outpaint.")
    pictures_of([image, *([] if mask is None else [mask])])
    picture = to_rgb(image)
    source = {"source": hash_of(picture)}
    if outpaint is not None:
        sides = (outpaint,) * 4 if isinstance(outpaint, int) else outpaint
        if outpaint == 0:
            raise UserError("outpaint is 0, which adds nothing; give a number of pixels above 0.")
        canvas = Canvas(*_with_margins(picture, sides), {"outpaint": list(sides), **source})
    elif box is not None:
        masked = _boxed(picture.size, box)
        canvas = Canvas(picture, picture, masked, {"box": list(box), **source})
    elif mask is not None:
        masked = _painted(picture.size, mask)
        canvas = Canvas(picture, picture, masked, {"mask": _packed(masked), **source})
    _refuse_what_is_not_seen(canvas)
    return canvas


def hash_of(picture: Image.Image) -> str:
    """Hash of the size and pixels of a picture (first 16 hexadecimal digits of SHA-256)."""
    rgb = to_rgb(picture)
    return hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()[:16]


def unpacked(text: str) -> Image.Image:
    """The mask of a recipe.

    Raises:
        UserError: it is damaged.
    """
    from mmgen.data.pictures import BadSample, open_picture

    try:
        return open_picture(base64.b64decode(text, validate=True), "mask")
    except (BadSample, ValueError):
        raise UserError("The mask in the recipe is damaged; give the original file.") from None


def _packed(masked: Mask) -> str:
    """A mask as text: a PNG of one bit a pixel in base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(masked).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _with_margins(picture: Image.Image, sides: Box) -> tuple[Image.Image, Image.Image, Mask]:
    """What is seen, what lies under it, and the margins as a mask."""
    from PIL import Image

    if len(sides) != 4 or min(sides) < 0 or not any(sides):
        raise UserError(
            f"outpaint is {_listed(sides)}; give pixels for left, top, right and bottom, 0 or more "
            "and not all 0."
        )
    left, top, right, bottom = sides
    width, height = picture.width + left + right, picture.height + top + bottom
    if width * height > PIXEL_LIMIT:
        raise UserError(
            f"The picture with margins would be {width}x{height}, more than {PIXEL_LIMIT} pixels; "
            "make it smaller."
        )
    if width != height:
        raise UserError(
            f"The picture with margins would be {width}x{height} pixels, and the weights see "
            f"squares; make the margins {_listed(_squared(picture.size, sides))}, for example."
        )
    margins = ((top, bottom), (left, right))
    repeated = np.pad(np.asarray(picture), (*margins, (0, 0)), mode="edge")
    seen = Image.new("RGB", (width, height), "white")
    seen.paste(picture, (left, top))
    masked = np.pad(np.zeros((picture.height, picture.width), bool), margins, constant_values=True)
    return seen, Image.fromarray(repeated), masked


def _squared(size: tuple[int, int], sides: Box) -> Box:
    """Margins, none smaller, that make a square."""
    left, top, right, bottom = sides
    lack = (size[0] + left + right) - (size[1] + top + bottom)
    down, across = max(lack, 0), max(-lack, 0)
    return (
        left + across // 2,
        top + down // 2,
        right + across - across // 2,
        (bottom + down - down // 2),
    )


def _boxed(size: tuple[int, int], box: Box) -> Mask:
    x, y, width, height = box
    inside = x >= 0 and y >= 0 and x + width <= size[0] and y + height <= size[1]
    if min(width, height) < 1 or not inside:
        raise UserError(
            f"The box {_listed(box)} (x, y, width, height) does not lie in the picture of "
            f"{size[0]}x{size[1]} pixels; give one that does."
        )
    masked = np.zeros((size[1], size[0]), bool)
    masked[y : y + height, x : x + width] = True
    return masked


def _painted(size: tuple[int, int], mask: Image.Image) -> Mask:
    from PIL import Image

    grey = to_rgb(mask).convert("L")  # what is transparent becomes white
    if abs(grey.width * size[1] / size[0] - grey.height) > 1:
        raise UserError(
            f"The mask has {grey.width}x{grey.height} pixels and the picture {size[0]}x{size[1]}; "
            "give a mask of the same shape."
        )
    masked = np.asarray(grey.resize(size, Image.Resampling.NEAREST)) >= 128
    if not masked.any():
        raise UserError(
            "The mask is black everywhere, so nothing would change; paint white what is to be "
            "drawn anew."
        )
    return masked


def _refuse_what_is_not_seen(canvas: Canvas) -> None:
    left, top, right, bottom = canvas.square
    beyond = canvas.masked.copy()
    beyond[top:bottom, left:right] = False
    if beyond.any():
        raise UserError(
            f"What is to be drawn anew reaches outside the middle square (x {left} to {right}, "
            f"y {top} to {bottom}), which is all that the weights see; stay inside, or crop the "
            "picture first."
        )


def _parts(side: int, cells: int) -> list[slice]:
    """The pixels of each cell; one that lies across a border belongs to both."""
    return [slice(i * side // cells, -(-(i + 1) * side // cells)) for i in range(cells)]


def _soft(masked: Mask) -> npt.NDArray[np.float32]:
    """(H, W) from 0 outside the mask to 1 inside, growing over the pixels of the seam."""
    import torch
    import torch.nn.functional as F

    share = np.zeros(masked.shape, np.float32)
    if not masked.any():
        return share
    seam = min(max(round(len(masked) / 64), SEAM[0]), SEAM[1])
    part = tuple(_around(np.asarray(masked.any(1 - axis))) for axis in (0, 1))
    kept = torch.from_numpy(~masked[part])[None].float()
    total = torch.zeros_like(kept)
    for _ in range(seam + 1):
        total += 1 - kept
        kept = F.max_pool2d(kept, 3, 1, 1)
    share[part] = (total[0] / (seam + 1)).numpy()
    return share


def _around(line: Mask) -> slice:
    """From one pixel before the first masked one to one behind the last, where there are any."""
    places = np.flatnonzero(line)
    return slice(max(int(places[0]) - 1, 0), int(places[-1]) + 2)


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
