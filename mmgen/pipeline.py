"""`Pipeline`: text to pictures and pictures to text, from one folder.

A folder holds `pipeline.json` (format, components, sampling defaults, licence, training record) and
one sub-folder a component: `text` (tokenizer), `vision` (visual tokenizer), `transformer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, get_args

import mmgen
from mmgen.config import to_dict
from mmgen.devices import usable_device
from mmgen.errors import ConfigError, UserError, suggestion
from mmgen.files import write_json
from mmgen.pipeline_folder import (
    FORMAT,
    PIPELINE_FILE,
    PipelineInfo,
    SamplingDefaults,
    find_pipeline,
    read_info,
    refuse_incomplete,
    refuse_strangers,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from mmgen.models.schedule import Grid
    from mmgen.models.text import TextTokenizer
    from mmgen.models.unified import UnifiedModel
    from mmgen.request import Request
    from mmgen.sample.draw import DrawSettings
    from mmgen.sample.engine import Step
    from mmgen.sample.guidance import Ramp
    from mmgen.tokenizers_vis.conv import ConvTokenizer

__all__ = ["FORMAT", "Pipeline", "PipelineInfo", "PipelineOutput", "SamplingDefaults"]

OutputType = Literal["pil", "codes"]


@dataclass
class PipelineOutput:
    """Pictures, and what they were made of.

    Args:
        images: one a seed.
        codes: (B, t, h, w) long.
        seeds: the seed of each picture; with the recipe it draws the picture again.
        recipes: what `mmgen` writes into a picture's metadata, one a picture.
    """

    images: list[Image.Image]
    codes: Tensor
    seeds: list[int]
    recipes: list[dict[str, Any]]


class Pipeline:
    """A text tokenizer, a visual tokenizer and a unified transformer that belong together."""

    def __init__(
        self,
        text: TextTokenizer,
        vision: ConvTokenizer,
        transformer: UnifiedModel,
        info: PipelineInfo,
    ) -> None:
        self.text, self.vision, self.transformer, self.info = text, vision, transformer, info
        self.vision.eval()
        self.transformer.eval()
        self._hashed: tuple[list[tuple[int, int]], str] | None = None

    def __repr__(self) -> str:
        """Name, size and units."""
        units = ", ".join(unit.name for unit in self.transformer.config.units)
        return f"Pipeline('{self.info.name}', {self.info.image_size} pixels, units: {units})"

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path | None = None) -> Self:
        """Load a pipeline.

        Args:
            name_or_folder: a folder, or the name of a shipped pipeline (None: the default one). A
                bare name never reaches the network.

        Raises:
            CheckpointError: there is no such pipeline, or its folder is damaged.
        """
        folder = find_pipeline(name_or_folder)
        info = read_info(folder)
        refuse_incomplete(folder)

        # Only now what needs torch: a wrong name is refused at once.
        from mmgen.components import load_component
        from mmgen.models.text import TextTokenizer
        from mmgen.models.unified import UnifiedModel

        text = TextTokenizer.from_pretrained(folder / "text")
        vision = load_component(folder / "vision")
        transformer = UnifiedModel.from_pretrained(folder / "transformer")
        refuse_strangers(folder, text, vision, transformer, info)
        return cls(text, vision, transformer, info)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write the pipeline to `folder`, floating-point weights in `dtype` if given."""
        folder = Path(folder)
        self.text.save_pretrained(folder / "text")
        self.vision.save_pretrained(folder / "vision", dtype)
        self.transformer.save_pretrained(folder / "transformer", dtype)
        write_json(folder / PIPELINE_FILE, to_dict(self.info))

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move the networks.

        Args:
            device: such as "cuda"; None: where they are.
            dtype: float type of the weights; None: as it is. In half precision the logits are
                still drawn from in float32, but tokens differ from those of float32.

        Raises:
            ConfigError: this machine has no such device.
        """
        place = None if device is None else usable_device(device)
        self.vision.to(device=place, dtype=dtype)
        self.transformer.to(device=place, dtype=dtype)
        return self

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.transformer.mask_token.device

    def __call__(
        self,
        prompt: str | list[str],
        *,
        negative_prompt: str | None = None,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        guidance_ramp: Ramp | None = None,
        seed: int | list[int] | None = None,
        unit: str | None = None,
        order: str | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        reproducible: bool = False,
        output_type: OutputType = "pil",
        progress: Callable[[int, int], None] | None = None,
    ) -> PipelineOutput:
        """Draw pictures.

        Args:
            prompt: one text or several; "" asks for anything.
            negative_prompt: what guidance leads away from (default: no caption).
            num_images_per_prompt: pictures for each prompt.
            guidance_scale: 1 switches guidance off.
            guidance_interval: guide only between these shares of the decided tokens, such as
                (0.1, 0.8); default: everywhere.
            guidance_ramp: "linear" and "cosine" let the scale grow from 1 to its value on the way;
                default: "constant".
            seed: picture i has `seed + i`, or its own from a list; None: a random one.
            unit: which of the checkpoint's schedules decides the tokens.
            order: overrides the unit's order, such as "row:1" or "subsample:2".
            temperature: 0 always takes the likeliest token.
            top_k: keep the k likeliest tokens (0: all).
            top_p: keep the likeliest tokens that make up this share.
            min_p: keep tokens at least this likely, relative to the likeliest.
            reproducible: decode pictures one at a time, so that a picture is the same, token for
                token, in any batch.
            output_type: "codes" skips the pixel decoder and leaves `images` empty.
            progress: called with steps done and steps in all.

        Raises:
            ConfigError: a setting is out of range, or the unit or order unknown.
        """
        if output_type not in get_args(OutputType):
            hint = suggestion(str(output_type), get_args(OutputType))
            raise ConfigError(f"output_type cannot be {output_type!r}{hint}")
        request = self.request(
            prompt,
            negative_prompt=negative_prompt,
            num_images_per_prompt=num_images_per_prompt,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
            guidance_ramp=guidance_ramp,
            seed=seed,
            unit=unit,
            order=order,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            reproducible=reproducible,
        )
        codes = self._codes(request, progress)
        weights = {"mmgen": mmgen.__version__, "model": self.info.name, "weights": self.fingerprint}
        recipes = [{**weights, **request.recipe(i)} for i in range(len(request.prompts))]
        images = self.render(codes) if output_type == "pil" else []
        return PipelineOutput(images, codes, request.seeds, recipes)

    def stream(self, prompt: str | list[str], **settings: Any) -> Iterator[Step]:
        """Yield the pictures in progress, a `Step` at a time; `render(step.codes)` shows them.

        Takes the arguments of a call, except `output_type` and `progress`, and checks them at once.
        """
        request = self.request(prompt, **settings)
        return self._side_by_side([self._steps(part) for part in request.parts()])

    def render(self, codes: Tensor) -> list[Image.Image]:
        """Decode codes (B, t, h, w) to pictures."""
        import torch

        from mmgen.request import BATCH
        from mmgen.sample.pictures import to_pil
        from mmgen.tokenizers_vis.protocol import Codes

        with torch.inference_mode():
            pixels = [self.vision.decode(Codes(indices=part)) for part in torch.split(codes, BATCH)]
        return [image for part in pixels for image in to_pil(part)]

    def caption(
        self,
        images: Image.Image | list[Image.Image],
        *,
        seed: int = 0,
        temperature: float = 0.0,
        top_p: float = 1.0,
    ) -> list[str]:
        """Describe pictures with the same weights that draw them.

        Args:
            images: any size; they are fitted to what the pipeline was trained on.
            seed: picture i has `seed + i`.
            temperature: 0 writes the likeliest token each time.
            top_p: as in a call.
        """
        from mmgen.noise import picture_seeds
        from mmgen.request import BATCH
        from mmgen.sample.draw import DrawSettings

        batch = images if isinstance(images, list) else [images]
        if any(not hasattr(image, "convert") for image in batch):
            raise UserError("Give PIL pictures to caption; open files with PIL.Image.open.")
        if not batch:
            raise UserError("There is no picture to caption; give at least one.")
        settings = DrawSettings(temperature=temperature, top_p=top_p)
        seeds = picture_seeds(seed, len(batch))
        return [
            text
            for at in range(0, len(batch), BATCH)
            for text in self._captions(batch[at : at + BATCH], seeds[at : at + BATCH], settings)
        ]

    def _captions(
        self, images: list[Image.Image], seeds: Tensor, settings: DrawSettings
    ) -> list[str]:
        import torch

        from mmgen.data.fit import fit_pixels
        from mmgen.models.schedule import to_slots
        from mmgen.models.unified import plan_for
        from mmgen.sample.text import decode_text

        pixels = torch.stack([fit_pixels(image, self.info.image_size) for image in images])
        model, unit = self.transformer, self.transformer.config.units[0]
        with torch.inference_mode():
            codes = self.vision.encode(pixels.to(self.device)).indices
            assert codes is not None
            plan = plan_for(unit, self.grid)
            cursor = model.begin(len(images))
            slots = to_slots(plan.schedule, codes)
            rows = model.seen_image_rows(plan, slots, unit.name, cursor, model.tables())
            ids = decode_text(model, rows, cursor, seeds, settings, model.config.max_text)
        return [self.text.decode(row) for row in ids.tolist()]

    # -- a call, step by step --------------------------------------------------------------------

    def request(
        self,
        prompt: str | list[str],
        *,
        negative_prompt: str | None = None,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        guidance_ramp: Ramp | None = None,
        seed: int | list[int] | None = None,
        unit: str | None = None,
        order: str | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        reproducible: bool = False,
    ) -> Request:
        """Check the arguments of a call and fill in the defaults."""
        from mmgen.noise import picture_seeds
        from mmgen.request import Request, choose_schedule
        from mmgen.sample.draw import DrawSettings
        from mmgen.sample.engine import DecodeSettings
        from mmgen.sample.guidance import Guidance

        if not isinstance(prompt, (str, list, tuple)) or any(
            not isinstance(p, str) for p in prompt
        ):
            raise UserError(f"A prompt is a text, or a list of texts, not {prompt!r}.")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise UserError("The list of prompts is empty; give at least one text.")
        if num_images_per_prompt < 1:
            raise ConfigError(
                f"The number of pictures of each prompt is {num_images_per_prompt}; give 1 or more."
            )
        prompts = [text for text in prompts for _ in range(num_images_per_prompt)]
        usual = self.info.sampling
        draw = DrawSettings(
            temperature=_first(temperature, usual.temperature),
            top_k=_first(top_k, usual.top_k),
            top_p=_first(top_p, usual.top_p),
            min_p=_first(min_p, usual.min_p),
        )
        start, stop = guidance_interval or (0.0, None)
        guidance = Guidance(
            _first(guidance_scale, usual.guidance_scale),
            start,
            stop,
            ramp=guidance_ramp or "constant",
        )
        if negative_prompt and not guidance.enabled:
            raise ConfigError(
                "A negative prompt does nothing at guidance scale 1; raise the guidance scale."
            )
        settings = DecodeSettings(draw, guidance)
        if order is None:  # an order is free to choose its unit
            unit = unit or usual.unit
        chosen, plan = choose_schedule(self.transformer.config, self.grid, unit, order)
        seeds = picture_seeds(_random_seed() if seed is None else seed, len(prompts)).tolist()
        negative = negative_prompt or ""
        return Request(prompts, negative, seeds, chosen, plan, settings, reproducible)

    def _codes(self, request: Request, progress: Callable[[int, int], None] | None) -> Tensor:
        """Codes (B, t, h, w) of all pictures, one part of the request after the other."""
        import torch

        parts, codes = request.parts(), []
        for number, part in enumerate(parts):
            for step in self._steps(part):
                if progress:
                    progress(number * step.total + step.index, len(parts) * step.total)
            codes.append(step.codes)
        return torch.cat(codes)

    def _side_by_side(self, parts: list[Iterator[Step]]) -> Iterator[Step]:
        """The steps of several decodings as those of one."""
        import torch

        for steps in zip(*parts):
            codes = torch.cat([step.codes for step in steps])
            yield replace(steps[0], codes=codes, entropy=torch.cat([s.entropy for s in steps]))

    def _steps(self, request: Request) -> Iterator[Step]:
        import torch

        from mmgen.sample.engine import decode, text_prefix

        model = self.transformer
        longest = model.config.max_text
        guided = request.settings.guidance.enabled
        texts = request.prompts + [request.negative] * (len(request.prompts) * guided)
        ids, valid = self.text.encode(texts, longest)
        ids, valid = ids.to(self.device), valid.to(self.device)
        count = len(request.prompts)
        negative = (ids[count:], valid[count:]) if guided else None
        prefix = text_prefix(model, request.unit.name, ids[:count], valid[:count], negative)
        seeds = torch.tensor(request.seeds)
        return decode(model, prefix, request.plan, request.unit.name, seeds, request.settings)

    @property
    def grid(self) -> Grid:
        """(t, h, w) of the pictures."""
        return self.vision.grid_for((self.info.image_size, self.info.image_size))

    @property
    def fingerprint(self) -> str:
        """Hash of everything that a picture depends on: text tokenizer and weights."""
        # Hashing takes longer than a step of decoding, so only after the weights were changed.
        networks = (self.transformer, self.vision)
        tensors = [t for network in networks for t in network.state_dict().values()]
        state = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
        if self._hashed is None or self._hashed[0] != state:
            hashes = [self.text.fingerprint, *(each.hash_of_weights() for each in networks)]
            self._hashed = state, "-".join(hashes)
        return self._hashed[1]


T = TypeVar("T")


def _first(given: T | None, usual: T) -> T:
    return usual if given is None else given


def _random_seed() -> int:
    import secrets

    return secrets.randbelow(2**31)
