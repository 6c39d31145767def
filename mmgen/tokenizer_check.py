"""What `mmgen tokenizer check` measures: PSNR, SSIM, code use, perplexity, bits a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmgen.components import load_component
from mmgen.data.dataset import ImageTextDataset
from mmgen.devices import usable_device
from mmgen.errors import CheckpointError, UserError
from mmgen.pipeline_folder import PIPELINE_FILE, find_pipeline, read_info
from mmgen.sample.pictures import grid, save_picture, to_pil
from mmgen.tokenizers_vis.metrics import psnr, ssim
from mmgen.tokenizers_vis.usage import CodebookUsage
from mmgen.train.datasets import held_out_pixels

SHOWN = 12  # pictures in the side-by-side view
SIZE = 64  # pixels a side, unless a pipeline knows better


@dataclass
class CodeUse:
    """How a discrete tokenizer uses its codebook.

    Args:
        used: share of the codebook that occurs.
        perplexity: exp of the entropy of the code frequencies.
        codebook_size: K.
        tokens: codes a picture, each of which costs log2 K bits.
    """

    used: float
    perplexity: float
    codebook_size: int
    tokens: int

    def lines(self) -> list[str]:
        """The figures in words."""
        bits = self.tokens * math.log2(self.codebook_size)
        codes = round(self.used * self.codebook_size)
        return [
            f"code use    {self.used:.1%} ({codes} of {self.codebook_size})",
            f"perplexity  {self.perplexity:.0f}",
            f"bits        {bits:.0f} a picture ({self.tokens} tokens)",
        ]


@dataclass
class TokenizerCheck:
    """Figures of one tokenizer on one data set; means over pictures.

    Args:
        model: what was checked, `data` on what.
        pictures: how many.
        psnr: dB. `ssim`: 0 to 1.
        use: of the codebook; None for continuous latents.
        report: the data set's bad samples.
        pairs: (2S, 3, H, W) originals, then reconstructions.
    """

    model: str
    data: str
    pictures: int
    psnr: float
    ssim: float
    use: CodeUse | None
    report: str
    pairs: Tensor

    def lines(self) -> list[str]:
        """The figures in words."""
        return [
            f"{self.model} on {self.pictures} pictures of {self.data}",
            f"PSNR        {self.psnr:.2f} dB",
            f"SSIM        {self.ssim:.3f}",
            *(self.use.lines() if self.use else ["code use    none: continuous latents"]),
            self.report,
        ]

    def save(self, path: Path) -> None:
        """Write the side-by-side picture."""
        columns = len(self.pairs) // 2
        sheet = grid(to_pil(self.pairs), columns=columns, scale=2)
        save_picture(sheet, path, {"tokenizer": self.model, "data": self.data})


@torch.inference_mode()
def check_tokenizer(
    model: str,
    data: str,
    size: int | None,
    limit: int,
    progress: Callable[[int, int], None],
    device: str | None = None,
) -> TokenizerCheck:
    """Reconstruct pictures and measure.

    Args:
        model: folder of a tokenizer or of a pipeline, or the name of a shipped pipeline.
        data: what `open_source` reads.
        size: pixels a side; None: what the pipeline was trained on, or 64.
        limit: most pictures, at least 1.
        progress: called with pictures done and pictures in all.
        device: where it runs; None: see `usable_device`.

    Raises:
        UserError: the device, the model, the data or the size cannot be used.
    """
    place = usable_device(device)
    tokenizer, own_size = load_tokenizer(model)
    tokenizer.to(place)
    size = own_size if size is None else size
    tokenizer.grid_for((size, size))
    dataset = ImageTextDataset(data, image_size=size, drop_caption=0.0)
    total = min(limit, len(dataset))
    codebook_size = tokenizer.codebook_size
    usage = CodebookUsage(codebook_size, window=total) if codebook_size else None
    scores, originals, rebuilt, seen = [], [], [], 0
    for batch in held_out_pixels(dataset):
        pixels = batch[: limit - seen]
        codes = tokenizer.encode(pixels.to(place))
        if usage is not None:
            usage.update(codes.indices.cpu())
        again = tokenizer.decode(codes).clamp(-1, 1).cpu()
        scores.append(torch.stack([psnr(again, pixels), ssim(again, pixels)], dim=1))
        if seen < SHOWN:
            originals.append(pixels[: SHOWN - seen])
            rebuilt.append(again[: SHOWN - seen])
        seen += len(pixels)
        progress(seen, total)
        if seen >= limit:
            break
    if not seen:
        raise UserError(f"{data} holds no picture that can be read. {dataset.report()}")
    mean = torch.cat(scores).mean(0)
    use = None
    if usage is not None:
        tokens = math.prod(tokenizer.grid_for((size, size)))
        use = CodeUse(usage.used, usage.perplexity, codebook_size, tokens)
    return TokenizerCheck(
        model=model,
        data=data,
        pictures=seen,
        psnr=float(mean[0]),
        ssim=float(mean[1]),
        use=use,
        report=dataset.report(),
        pairs=torch.cat([*originals, *rebuilt]),
    )


def load_tokenizer(model: str) -> tuple[Any, int]:
    """The visual tokenizer of a folder or name, and the pixels a side it is looked at with.

    Raises:
        CheckpointError: there is none.
    """
    folder, size = Path(model), SIZE
    if not folder.is_dir() or (folder / PIPELINE_FILE).is_file():
        pipeline = find_pipeline(model)
        folder, size = pipeline / "vision", read_info(pipeline).image_size
    tokenizer = load_component(folder)
    if not (hasattr(tokenizer, "encode") and hasattr(tokenizer, "decode")):
        kind = type(tokenizer).__name__
        raise CheckpointError(f"{folder} holds a {kind}; give the folder of a visual tokenizer.")
    return tokenizer, size
