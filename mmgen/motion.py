"""How well a tokenizer keeps the motion of clips, in figures and side by side.

What a picture's PSNR does not see is whether errors stand still or change from frame to frame,
which shows as flicker. So here the same PSNR is taken of the differences of successive frames.
Errors that stand still leave those alone; errors that are drawn anew in each frame put it 3 dB
below the PSNR of the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmgen.sample.pictures import grid, to_pil
from mmgen.tokenizers_vis.metrics import psnr_of

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Motion:
    """The motion of reconstructions against that of their clips; means over steps between frames.

    Args:
        psnr: dB, of the differences of successive frames; of their mean squared error, so that
            steps without any error do not outweigh the others.
        kept: their mean absolute value over that of the clips: below 1 something stands still that
            moved, above 1 something moves that stood still; 0 / 0 is 1.
    """

    psnr: float
    kept: float

    def lines(self) -> list[str]:
        """The figures in words."""
        return [
            f"motion      {self.psnr:.2f} dB PSNR of frame differences, "
            f"{self.kept:.2f} of the clips' own motion"
        ]


class MotionMeter:
    """Adds up the steps between frames of clips."""

    def __init__(self) -> None:
        self._errors: list[Tensor] = []  # (T - 1,) mean squares
        self._ours, self._theirs = 0.0, 0.0

    def add(self, again: Tensor, clip: Tensor) -> None:
        """Take a reconstruction and its clip, (T, 3, H, W) both in [-1, 1]."""
        ours, theirs = again.diff(dim=0), clip.diff(dim=0)
        self._errors.append((ours - theirs).double().square().mean((1, 2, 3)))
        self._ours += float(ours.abs().double().mean((1, 2, 3)).sum())
        self._theirs += float(theirs.abs().double().mean((1, 2, 3)).sum())

    def result(self) -> Motion | None:
        """What was found; None: no clip had two frames."""
        steps = torch.cat(self._errors) if self._errors else torch.empty(0)
        if not len(steps):
            return None
        still = float("inf") if self._ours else 1.0
        found = float(psnr_of(steps.mean()))
        return Motion(found, self._ours / self._theirs if self._theirs else still)


def played_together(
    above: Sequence[Tensor], below: Sequence[Tensor], scale: int
) -> list[Image.Image]:
    """Clips beside each other as the frames of one: one row above the other.

    Args:
        above, below: as many clips, (T, 3, H, W) in [-1, 1] each; those that end hold their end.
        scale: how many times frames are enlarged.
    """
    clips = [*above, *below]
    count = max(map(len, clips))
    shown = [
        to_pil(torch.stack([clip[min(i, len(clip) - 1)] for clip in clips])) for i in range(count)
    ]
    return [grid(frames, columns=len(above), scale=scale) for frames in shown]
