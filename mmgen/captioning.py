"""Pictures to text, with the weights of a pipeline that draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmgen.errors import UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from mmgen.pipeline import Pipeline
    from mmgen.progress import Progress
    from mmgen.sample.draw import DrawSettings


def describe(
    pipe: Pipeline,
    images: Image.Image | list[Image.Image],
    seed: int,
    settings: DrawSettings,
    progress: Progress | None = None,
) -> list[str]:
    """Describe pictures; see `Pipeline.caption`.

    Raises:
        UserError: no pictures, or weights that only draw.
    """
    from mmgen import request
    from mmgen.noise import picture_seeds

    batch = pictures_of(images)
    pipe.two_way()
    seeds, size = picture_seeds(seed, len(batch)), request.BATCH
    texts = list[str]()
    for at in range(0, len(batch), size):
        if progress is not None:
            progress(at, len(batch))
        texts += _describe(pipe, batch[at : at + size], seeds[at : at + size], settings)
    return texts


def pictures_of(images: Image.Image | list[Image.Image]) -> list[Image.Image]:
    """One picture or several as a list.

    Raises:
        UserError: none, or something that is no PIL picture.
    """
    batch = images if isinstance(images, list) else [images]
    if any(not hasattr(image, "convert") for image in batch):
        raise UserError("Give PIL pictures; open files with PIL.Image.open.")
    if not batch:
        raise UserError("There is no picture; give at least one.")
    return batch


def codes_seen(pipe: Pipeline, images: list[Image.Image]) -> Tensor:
    """Codes (B, t, h, w) of pictures of any size, fitted to what the pipeline was trained on.

    Where the tokenizer has latents, these (B, t, h, w, C).
    """
    import torch

    from mmgen.data.fit import fit_pixels

    pixels = torch.stack([fit_pixels(image, pipe.info.image_size) for image in images])
    with torch.inference_mode():
        codes = pipe.vision.encode(pixels.to(pipe.device))
    tokens: Tensor = codes.latents if codes.indices is None else codes.indices
    return tokens


def _describe(
    pipe: Pipeline, images: list[Image.Image], seeds: Tensor, settings: DrawSettings
) -> list[str]:
    import torch

    from mmgen.models.schedule import to_slots
    from mmgen.models.units import plan_for
    from mmgen.sample.text import decode_text

    text, model = pipe.two_way()
    unit = model.config.units[0]
    codes = codes_seen(pipe, images)
    with torch.inference_mode():
        plan = plan_for(unit, pipe.grid)
        cursor = model.begin(len(images))
        slots = to_slots(plan.schedule, codes)
        rows = model.seen_image_rows(plan, slots, unit.name, cursor, model.tables())
        ids = decode_text(model, rows, cursor, seeds, settings, model.config.max_text)
    return [text.decode(row) for row in ids.tolist()]
