"""Pictures to text, with the weights of a pipeline that draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mmgen.errors import UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from mmgen.pipeline import Pipeline
    from mmgen.progress import Progress
    from mmgen.sample.draw import DrawSettings


def describe(
    pipe: Pipeline,
    images: Image.Image | list[Image.Image] | list[list[Image.Image]],
    seed: int,
    settings: DrawSettings,
    progress: Progress | None = None,
) -> list[str]:
    """Describe pictures or clips; see `Pipeline.caption`.

    Raises:
        UserError: no pictures, clips where the weights know none, or weights that only draw.
    """
    from mmgen import request
    from mmgen.noise import picture_seeds

    pipe.two_way()
    if isinstance(images, list) and images and isinstance(images[0], list):
        batch = _each_once(partial(clip_seen, pipe), images)
        if len({clip.shape for clip in batch}) > 1:
            raise UserError("The clips have different numbers of frames; give as many of each.")
    else:
        batch = _each_once(partial(picture_seen, pipe), pictures_of(images))
    seeds, size = picture_seeds(seed, len(batch)), request.BATCH
    texts = list[str]()
    for at in range(0, len(batch), size):
        if progress is not None:
            progress(at, len(batch))
        texts += _describe(pipe, batch[at : at + size], seeds[at : at + size], settings)
    return texts


def pictures_of(
    images: Image.Image | list[Image.Image] | list[list[Image.Image]],
) -> list[Image.Image]:
    """One picture or several as a list.

    Raises:
        UserError: none, or something that is no PIL picture.
    """
    batch: list[Any] = images if isinstance(images, list) else [images]
    if any(not hasattr(image, "convert") for image in batch):
        raise UserError("Give PIL pictures; open files with PIL.Image.open.")
    if not batch:
        raise UserError("There is no picture; give at least one.")
    return batch


def codes_seen(pipe: Pipeline, images: list[Image.Image]) -> Tensor:
    """Codes (B, t, h, w) of pictures of any size, fitted to what the pipeline was trained on.

    Where the tokenizer has latents, these (B, t, h, w, C).
    """
    return _codes_of_each(pipe, _each_once(partial(picture_seen, pipe), images))


def picture_seen(pipe: Pipeline, image: Image.Image) -> Tensor:
    """Pixels (3, H, W) of a picture, fitted to what the pipeline was trained on."""
    from mmgen.data.fit import fit_pixels

    return fit_pixels(image, pipe.info.image_size)


def clip_seen(pipe: Pipeline, frames: object) -> Tensor:
    """Pixels (3, T, H, W) of the frames of a clip, fitted likewise.

    Raises:
        UserError: the weights were trained on no clips, or these are no frames.
    """
    import torch

    if pipe.trained_frames == 1:
        raise UserError(f"The weights of '{pipe.info.name}' read pictures, no clips.")
    if not isinstance(frames, list):
        raise UserError("Give clips as lists of frames, all of them.")
    return torch.stack([picture_seen(pipe, frame) for frame in pictures_of(frames)], dim=1)


def codes_of(pipe: Pipeline, pixels: Tensor) -> Tensor:
    """Codes (B, t, h, w), or latents, of pixels (B, 3, H, W) or (B, 3, T, H, W)."""
    import torch

    with torch.inference_mode():
        codes = pipe.vision.encode(pixels.to(pipe.device))
    tokens: Tensor = codes.latents if codes.indices is None else codes.indices
    return tokens


def _each_once(look: Callable[[Any], Tensor], things: Sequence[Any]) -> list[Tensor]:
    """What `look` sees of each; the same object, however often it comes, is looked at once."""
    seen = {name: look(thing) for name, thing in {id(each): each for each in things}.items()}
    return [seen[id(thing)] for thing in things]


def _codes_of_each(pipe: Pipeline, pixels: list[Tensor]) -> Tensor:
    """Codes of pixels of one shape; the same tensor, however often it comes, is encoded once."""
    import torch

    own = {id(each): each for each in pixels}
    places = {name: place for place, name in enumerate(own)}
    return codes_of(pipe, torch.stack(list(own.values())))[[places[id(each)] for each in pixels]]


def _describe(
    pipe: Pipeline, pixels: list[Tensor], seeds: Tensor, settings: DrawSettings
) -> list[str]:
    import torch

    from mmgen.models.schedule import grid_of, to_slots
    from mmgen.models.units import plan_for
    from mmgen.sample.text import decode_text

    text, model = pipe.two_way()
    codes = _codes_of_each(pipe, pixels)
    grid = grid_of(codes)
    unit = model.config.first_unit(grid)
    with torch.inference_mode():
        plan = plan_for(unit, grid)
        cursor = model.begin(len(pixels))
        slots = to_slots(plan.schedule, codes)
        rows = model.seen_image_rows(plan, slots, unit.name, cursor, model.tables())
        ids = decode_text(model, rows, cursor, seeds, settings, model.config.max_text)
    return [text.decode(row) for row in ids.tolist()]
