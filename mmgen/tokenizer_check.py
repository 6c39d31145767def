"""What `mmgen tokenizer check` measures: PSNR, SSIM, code use, perplexity, bits a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmgen.data.dataset import ImageTextDataset
from mmgen.devices import usable_device
from mmgen.errors import UserError
from mmgen.pipeline_folder import PIPELINE_FILE, find_pipeline, read_info
from mmgen.sample.pictures import grid, save_picture, to_pil
from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.tokenizers_vis.metrics import psnr, ssim
from mmgen.tokenizers_vis.protocol import number_of_codes
from mmgen.tokenizers_vis.usage import CodebookUsage
from mmgen.train.datasets import held_out_pixels

SHOWN = 12  # pictures in the side-by-side view
SIZE = 64  # pixels a side, unless a pipeline knows better


@dataclass
class TokenizerCheck:
    """Figures of one tokenizer on one data set; means over pictures.

    Args:
        model: what was checked, `data` on what.
        pictures: how many.
        psnr: dB. `ssim`: 0 to 1.
        used: share of the codebook that occurs.
        perplexity: exp of the entropy of the code frequencies.
        codebook_size: K.
        tokens: codes a picture.
        bits: `tokens * log2 K`, what a picture costs.
        report: the data set's bad samples.
        pairs: (2S, 3, H, W) originals, then reconstructions.
    """

    model: str
    data: str
    pictures: int
    psnr: float
    ssim: float
    used: float
    perplexity: float
    codebook_size: int
    tokens: int
    bits: float
    report: str
    pairs: Tensor

    def lines(self) -> list[str]:
        """The figures in words."""
        codes = round(self.used * self.codebook_size)
        return [
            f"{self.model} on {self.pictures} pictures of {self.data}",
            f"PSNR        {self.psnr:.2f} dB",
            f"SSIM        {self.ssim:.3f}",
            f"code use    {self.used:.1%} ({codes} of {self.codebook_size})",
            f"perplexity  {self.perplexity:.0f}",
            f"bits        {self.bits:.0f} a picture ({self.tokens} tokens)",
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
    tokenizer, own_size = _load(model)
    tokenizer.to(place)
    size = own_size if size is None else size
    tokenizer.grid_for((size, size))
    dataset = ImageTextDataset(data, image_size=size, drop_caption=0.0)
    total = min(limit, len(dataset))
    usage = CodebookUsage(number_of_codes(tokenizer), window=total)
    scores, originals, rebuilt, seen = [], [], [], 0
    for batch in held_out_pixels(dataset):
        pixels = batch[: limit - seen]
        codes = tokenizer.encode(pixels.to(place))
        assert codes.indices is not None
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
    tokens = math.prod(tokenizer.grid_for((size, size)))
    return TokenizerCheck(
        model=model,
        data=data,
        pictures=seen,
        psnr=float(mean[0]),
        ssim=float(mean[1]),
        used=usage.used,
        perplexity=usage.perplexity,
        codebook_size=number_of_codes(tokenizer),
        tokens=tokens,
        bits=tokens * math.log2(number_of_codes(tokenizer)),
        report=dataset.report(),
        pairs=torch.cat([*originals, *rebuilt]),
    )


def _load(model: str) -> tuple[ConvTokenizer, int]:
    """The tokenizer, and the pixels a side that it is usually looked at with."""
    folder = Path(model)
    if folder.is_dir() and not (folder / PIPELINE_FILE).is_file():
        return ConvTokenizer.from_pretrained(folder), SIZE
    folder = find_pipeline(model)
    return ConvTokenizer.from_pretrained(folder / "vision"), read_info(folder).image_size
