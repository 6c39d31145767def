"""What `mmgen tokenizer check` measures: PSNR, SSIM, and the use of the bottleneck."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmgen.bottleneck_use import CodeUse, LatentUse, counter_of
from mmgen.components import load_component
from mmgen.data.clip_set import ClipSet
from mmgen.data.dataset import ImageTextDataset
from mmgen.data.sources import open_source
from mmgen.devices import usable_device
from mmgen.errors import CheckpointError, UserError
from mmgen.files import ANIMATION_FORMATS, FILM_FORMATS
from mmgen.motion import Motion, MotionMeter, played_together
from mmgen.pipeline_folder import PIPELINE_FILE, read_info, tokenizer_folder
from mmgen.sample.clip_files import save_clip
from mmgen.sample.pictures import grid, save_picture, to_pil
from mmgen.tokenizers_vis.causal_video import CausalVideoTokenizer
from mmgen.tokenizers_vis.larp import LarpTokenizer
from mmgen.tokenizers_vis.losses import as_frames
from mmgen.tokenizers_vis.metrics import SSIM_WINDOW, psnr, ssim
from mmgen.tokenizers_vis.protocol import Codes
from mmgen.tokenizers_vis.seed import SeedTokenizer
from mmgen.tokenizers_vis.video_conv import VideoConvTokenizer
from mmgen.train.datasets import held_out_pixels

SHOWN = 12  # pictures, or frames of a clip, in a row of the side-by-side view
SHOWN_CLIPS = 4
SIZE = 64  # pixels a side, unless a pipeline knows better
FRAMES = 17  # that are read of a clip, unless the tokenizer knows better; NBP's clips have 17
CLIPS = (CausalVideoTokenizer, LarpTokenizer, VideoConvTokenizer)


@dataclass
class TokenizerCheck:
    """Figures of one tokenizer on one data set; means over pictures, or over all frames of clips.

    Args:
        model: what was checked, `data` on what.
        looked_at: how many, in words.
        psnr: dB. `ssim`: 0 to 1.
        use: of the codebook, or of continuous latents.
        report: the data set's bad samples.
        cropping: how many were cropped; None: none.
        rows: of the side-by-side view, (S, 3, H, W) each: originals, then their reconstructions.
        motion: of clips; None: there was none.
        clips: of the side-by-side view that plays, like `rows` but with every frame.
    """

    model: str
    data: str
    looked_at: str
    psnr: float
    ssim: float
    use: CodeUse | LatentUse
    report: str
    cropping: str | None
    rows: list[Tensor]
    motion: Motion | None = None
    clips: list[Tensor] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The figures in words."""
        return [
            f"{self.model} on {self.looked_at} of {self.data}",
            f"PSNR        {self.psnr:.2f} dB",
            f"SSIM        {self.ssim:.3f}",
            *(self.motion.lines() if self.motion else []),
            *self.use.lines(),
            self.report,
        ]

    def save(self, path: Path) -> None:
        """Write the side-by-side picture, or a clip of clips where the name is that of one."""
        told = {"tokenizer": self.model, "data": self.data}
        if self.clips and path.suffix.lower() in (*ANIMATION_FORMATS, *FILM_FORMATS):
            scale = 2 if self.clips[0].shape[-1] <= 128 else 1
            save_clip(played_together(self.clips[::2], self.clips[1::2], scale), path, told)
            return
        columns = max(map(len, self.rows))
        cells = torch.cat([_padded(row, columns) for row in self.rows])
        scale = 2 if cells.shape[-1] <= 128 else 1
        sheet = grid(to_pil(cells), columns=columns, scale=scale)
        save_picture(sheet, path, told)


@torch.inference_mode()
def check_tokenizer(
    model: str,
    data: str,
    size: int | None,
    limit: int,
    progress: Callable[[int, int], None],
    device: str | None = None,
    allow_bad: float = 0.01,
) -> TokenizerCheck:
    """Reconstruct pictures or clips and measure.

    Args:
        model: folder of a tokenizer or of a pipeline, or the name of a shipped pipeline.
        data: what `open_source` reads; for a tokenizer of clips, what `ClipSet` reads.
        size: pixels a side; None: what the pipeline was trained on, or 64.
        limit: most pictures or clips, at least 1.
        progress: called with pictures done and pictures in all.
        device: where it runs; None: see `usable_device`.
        allow_bad: share of pictures that may be bad (of clips: any).

    Raises:
        UserError: the device, the model, the data or the size cannot be used.
    """
    place = usable_device(device)
    tokenizer, own_size = load_tokenizer(model)
    tokenizer.to(place)
    size = own_size if size is None else size
    if size < SSIM_WINDOW:
        raise UserError(f"SSIM needs pictures of {SSIM_WINDOW} pixels a side or more, not {size}.")
    moving = isinstance(tokenizer, CLIPS)
    samples: ClipSet | ImageTextDataset
    if moving:
        samples = _clips(tokenizer, data, size)
    else:
        samples = _pictures(tokenizer, data, size, allow_bad)
    total = min(limit, len(samples))
    counter = counter_of(tokenizer, total)
    scores, view, seen, motion = [], _View(moving), 0, MotionMeter()
    for batch in _batches(samples):
        pixels = batch[: limit - seen]
        codes = tokenizer.encode(pixels.to(place))
        counter.add(codes)
        decoded = _decoded(tokenizer, codes, moving and pixels.ndim == 5)
        again = as_frames(decoded).clamp(-1, 1).cpu()
        # Frames behind the last whole group are not coded.
        originals = as_frames(pixels)[: len(again)]
        scores.append(torch.stack([psnr(again, originals), ssim(again, originals)], dim=1))
        view.add(originals, again)
        if moving:  # one clip
            motion.add(again, originals)
        seen += len(pixels)
        progress(seen, total)
        if seen >= limit:
            break
    if not seen:
        raise UserError(f"{data} holds nothing that can be read. {samples.report()}")
    frames = sum(map(len, scores))
    mean = torch.cat(scores).mean(0)
    return TokenizerCheck(
        model=model,
        data=data,
        looked_at=f"{seen} clips ({frames} frames)" if moving else f"{seen} pictures",
        psnr=float(mean[0]),
        ssim=float(mean[1]),
        use=counter.use(frames, "frame" if moving else "picture"),
        report=samples.report(),
        cropping=samples.cropping(),
        rows=view.rows,
        motion=motion.result(),
        clips=view.clips,
    )


class _View:
    """Rows of the side-by-side view: of all pictures together, or of each clip."""

    def __init__(self, moving: bool) -> None:
        self.rows: list[Tensor] = []
        self.clips: list[Tensor] = []
        self._moving = moving

    def add(self, originals: Tensor, again: Tensor) -> None:
        """Take the first pictures, or frames of a clip, evenly spaced."""
        if self._moving and len(self.rows) < 2 * SHOWN_CLIPS:
            count = min(SHOWN, len(originals))
            shown = torch.linspace(0, len(originals) - 1, count).round().long()
            self.rows += [originals[shown], again[shown]]
            self.clips += [originals, again]
        elif not self._moving and not self.rows:
            self.rows = [originals[:SHOWN], again[:SHOWN]]


def _padded(row: Tensor, columns: int) -> Tensor:
    return torch.cat([row, row.new_ones(columns - len(row), *row.shape[1:])])  # white


def _pictures(tokenizer: Any, data: str, size: int, allow_bad: float) -> ImageTextDataset:
    tokenizer.grid_for((size, size))
    source = open_source(data, captioned=False)
    return ImageTextDataset(source, image_size=size, drop_caption=0.0, limit_bad=allow_bad)


def _clips(tokenizer: Any, data: str, size: int) -> ClipSet:
    most = getattr(tokenizer.config, "clip", (FRAMES,))[0]

    def fitting(frames: int) -> int:
        return next((n for n in range(frames, 0, -1) if _takes(tokenizer, n, size)), 0)

    if not fitting(most):
        tokenizer.grid_for((most, size, size))  # says why
    return ClipSet(data, size, most, fitting)


def _takes(tokenizer: Any, frames: int, size: int) -> bool:
    try:
        tokenizer.grid_for((size, size) if frames == 1 else (frames, size, size))
    except UserError:
        return False
    return True


def _batches(samples: ImageTextDataset | ClipSet) -> Iterator[Tensor]:
    """Pictures (B, 3, H, W), or clips (1, 3, T, H, W), those of one frame as pictures."""
    if isinstance(samples, ImageTextDataset):
        yield from held_out_pixels(samples)
        return
    for clip in samples:
        yield clip[None] if clip.shape[1] > 1 else clip[None, :, 0]


def _decoded(tokenizer: Any, codes: Codes, moving: bool) -> Tensor:
    """Pixels of codes; Emu3 takes a clip of one latent frame for a picture unless told."""
    decode = tokenizer.decode_clip if moving and hasattr(tokenizer, "decode_clip") else None
    pixels: Tensor = (decode or tokenizer.decode)(codes)
    return pixels


def load_tokenizer(model: str) -> tuple[Any, int]:
    """The visual tokenizer of a folder or name, and the pixels a side it is looked at with.

    Raises:
        CheckpointError: there is none.
    """
    folder = tokenizer_folder(model)
    in_pipeline = (folder.parent / PIPELINE_FILE).is_file()
    size = read_info(folder.parent).image_size if in_pipeline else SIZE
    tokenizer = load_component(folder)
    if isinstance(tokenizer, SeedTokenizer):
        raise CheckpointError(
            f"{folder} holds a tokenizer of SEED, whose codes become pictures only through a "
            "diffusion model; docs/published/seed.md shows how, and there is nothing to compare."
        )
    if not (hasattr(tokenizer, "encode") and hasattr(tokenizer, "decode")):
        kind = type(tokenizer).__name__
        raise CheckpointError(f"{folder} holds a {kind}; give the folder of a visual tokenizer.")
    return tokenizer, size
