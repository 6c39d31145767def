"""What a call of a `Pipeline` gives: pictures or clips, and what they were made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.files import FPS

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


@dataclass
class PipelineOutput:
    """Pictures or clips, and what they were made of.

    Args:
        images: one a seed; empty if clips were drawn.
        codes: (B, t, h, w) long, or latents (B, t, h, w, C).
        seeds: the seed of each picture; with the recipe it draws the picture again.
        recipes: what `mmgen` writes into a picture's metadata, one a picture.
        frames: the frames of each clip, one list a seed; empty if pictures were drawn.
    """

    images: list[Image.Image]
    codes: Tensor
    seeds: list[int]
    recipes: list[dict[str, Any]]
    frames: list[list[Image.Image]] = field(default_factory=list)

    def save(self, path: str | Path, *, scale: int = 1, fps: float = FPS) -> None:
        """Write what was drawn with its recipe inside, for `mmgen replay`; files are replaced.

        Args:
            path: a picture's or clip's name, or a folder, where names come from the prompts. Of
                several pictures STEM.png is a labelled sheet, and they are STEM-1.png and so on.
            scale: enlarges pictures this many times, as `mmgen sample --scale`.
            fps: frames a second of clips.

        Raises:
            UserError: nothing was rendered, or a place or an ending that takes no pictures.
        """
        from mmgen.outputs import check_scale, write

        check_scale("scale", scale)
        write(self, Path(path), scale, fps)
