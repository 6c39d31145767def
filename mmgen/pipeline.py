"""`Pipeline`: text or classes to pictures and clips, and pictures to text, from one folder.

A folder holds `pipeline.json` (format, components, sampling defaults, licence, training record) and
one sub-folder a component: `text` (tokenizer or encoder), `vision` (visual tokenizer),
`transformer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, get_args

from mmgen import rendering
from mmgen.calling import CallSettings, EditSettings, check_names, request_of
from mmgen.config import to_dict
from mmgen.devices import usable_device
from mmgen.drawing import draw_codes, draw_stepwise
from mmgen.errors import ConfigError, UserError, suggestion
from mmgen.files import write_json
from mmgen.lengths import call_grid, trained_frames, usual_frames
from mmgen.pipeline_folder import (
    FORMAT,
    PIPELINE_FILE,
    PipelineInfo,
    SamplingDefaults,
    find_pipeline,
    load_parts,
    read_info,
)
from mmgen.pipeline_output import PipelineOutput
from mmgen.recipes import recipes_of
from mmgen.request import Frames, Request

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from mmgen.masks import Box
    from mmgen.models.conditional import ConditionalModel
    from mmgen.models.schedule import Grid
    from mmgen.models.text import TextTokenizer
    from mmgen.models.text_features import TextEncoder
    from mmgen.models.unified import UnifiedModel
    from mmgen.models.velocity import VelocityModel
    from mmgen.progress import Progress
    from mmgen.sample.engine import Step
    from mmgen.sample.flow import Solver
    from mmgen.sample.guidance import Ramp
    from mmgen.scoring import By, Score

__all__ = ["FORMAT", "Pipeline", "PipelineInfo", "PipelineOutput", "SamplingDefaults"]

OutputType = Literal["pil", "codes"]
Weights = Literal["float", "int8"]


class Pipeline:
    """A text component if there is one, a visual tokenizer and a transformer made for each other.

    Args:
        text: tokenizer or encoder of prompts; None where classes are drawn.
        vision: the visual tokenizer.
        transformer: draws its codes.
        info: what `pipeline.json` says.
    """

    def __init__(
        self,
        text: TextTokenizer | TextEncoder | None,
        vision: Any,
        transformer: UnifiedModel | ConditionalModel | VelocityModel,
        info: PipelineInfo,
    ) -> None:
        self.text, self.transformer, self.info = text, transformer, info
        self.vision: Any = vision  # a VisualTokenizer that is a network
        self.vision.eval()
        self.transformer.eval()
        self._hashed: tuple[list[tuple[int, int]], str] | None = None

    def __repr__(self) -> str:
        """Name, size and units."""
        units = ", ".join(unit.name for unit in self.transformer.config.units)
        return f"Pipeline('{self.info.name}', {self.info.image_size} pixels, units: {units})"

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path | None = None,
        *,
        text_encoder: str | Path | None = None,
    ) -> Self:
        """Load a pipeline.

        Args:
            name_or_folder: a folder, the name of a shipped pipeline (None: the default one), or a
                published checkpoint of `mmgen models` as "SYSTEM/NAME", which is downloaded and
                imported at its first use. A name without a slash never reaches the network.
            text_encoder: folder of the T5 encoder that published text-to-image weights were
                trained with, if the pipeline's folder holds none; a name such as
                "google/flan-t5-xl" is fetched from the Hugging Face hub.

        Raises:
            CheckpointError: there is no such pipeline, or its folder is damaged.
        """
        folder = find_pipeline(name_or_folder)
        info = read_info(folder)
        return cls(*load_parts(folder, info, text_encoder), info)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write the pipeline to `folder`, floating-point weights in `dtype` if given.

        Files of a pipeline that lie there are replaced unasked, as in transformers and diffusers.

        Raises:
            ConfigError: its weights are stored as integers.
        """
        if self.is_int8:
            raise ConfigError("Weights stored as int8 are for drawing; save the pipeline before.")
        folder = Path(folder)
        if self.text is not None:
            self.text.save_pretrained(folder / "text")
        self.vision.save_pretrained(folder / "vision", dtype)
        self.transformer.save_pretrained(folder / "transformer", dtype)
        write_json(folder / PIPELINE_FILE, to_dict(self.info))

    def to(
        self,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        weights: Weights | None = None,
    ) -> Self:
        """Move the networks, or store their weights in another way.

        Args:
            device: such as "cuda"; None: where they are.
            dtype: float type of the weights; None: as it is. In half precision the logits are
                still drawn from in float32, but tokens differ from those of float32.
            weights: "int8" stores the transformer's matrices as 8-bit integers, for good: less
                memory and more speed on a CPU, but other tokens than those of float32
                (docs/benchmarks.md). "float": as they are.

        Raises:
            ConfigError: this machine has no such device, or weights cannot be stored so.
        """
        if weights not in (None, *get_args(Weights)):
            hint = suggestion(str(weights), get_args(Weights))
            raise ConfigError(f"weights cannot be {weights!r}{hint}")
        if weights == "float" and self.is_int8:
            raise ConfigError("The weights are stored as int8; load the pipeline again.")
        place = None if device is None else usable_device(device)
        self.vision.to(device=place, dtype=dtype)
        self.transformer.to(device=place, dtype=dtype)
        encoder: Any = self.text  # an encoder is a network, a tokenizer is not
        if place is not None and hasattr(encoder, "to"):
            encoder.to(place)
        if weights == "int8":
            from mmgen.kernels.int8 import store_as_int8

            store_as_int8(self.transformer)
        return self

    @property
    def is_int8(self) -> bool:
        """Whether the transformer's matrices are stored as 8-bit integers."""
        from mmgen.kernels.int8 import is_int8

        return is_int8(self.transformer)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.transformer.parameters()).device

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *,
        class_labels: int | Sequence[int] | Tensor | None = None,
        frames: Tensor | Sequence[Frames] | None = None,
        num_frames: int | None = None,
        negative_prompt: str | None = None,
        num_images_per_prompt: int = 1,
        guidance_scale: float | Sequence[float] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        guidance_ramp: Ramp | None = None,
        seed: int | list[int] | None = None,
        unit: str | None = None,
        order: str | None = None,
        temperature: float | Sequence[float] | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        num_inference_steps: int | Sequence[int] | None = None,
        solver: Solver | None = None,
        reproducible: bool = False,
        output_type: OutputType = "pil",
        progress: Callable[[int, int], None] | None = None,
        watch: Callable[[Step], None] | None = None,
    ) -> PipelineOutput:
        """Draw pictures or clips.

        Args:
            prompt: one text or several; "" asks for anything.
            class_labels: one class or several, for weights that draw classes; the number of
                classes itself asks for none in particular.
            frames: the first frames of clips, (B, 3, T, H, W) in [-1, 1], for weights that go on
                from them; one frame is a picture that begins to move. Where the weights read text,
                `prompt` says what they show.
            num_frames: length of a clip, given frames included; 1: a picture. Clips that are longer
                than those of the training are drawn window by window, each going on from the last
                frames of the one before. None: what the pipeline's defaults say (`usual_frames`).
            negative_prompt: what guidance leads away from (default: no caption).
            num_images_per_prompt: pictures for each prompt or class.
            guidance_scale: 1 switches guidance off. Where a code is drawn in sub-tokens, a list
                gives each its own scale, and likewise its own temperature.
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
            num_inference_steps: of the solver, for weights that draw latents; a list gives each
                block its own number.
            solver: "euler", "heun" or "euler-maruyama", for the same weights.
            reproducible: decode pictures one at a time, so that a picture is the same, token for
                token, in any batch.
            output_type: "codes" skips the pixel decoder and leaves `images` and `frames` empty.
            progress: called with steps done and steps in all.
            watch: called with every `Step`; pictures that are not decoded together follow one
                another, each part beginning with index 1.

        Raises:
            UserError: a setting is out of range, the unit or order unknown, or the weights do not
                draw what was asked for.
        """
        if output_type not in get_args(OutputType):
            hint = suggestion(str(output_type), get_args(OutputType))
            raise ConfigError(f"output_type cannot be {output_type!r}{hint}")
        request = self.request(
            prompt,
            class_labels=class_labels,
            frames=frames,
            num_frames=num_frames,
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
            num_inference_steps=num_inference_steps,
            solver=solver,
            reproducible=reproducible,
        )
        codes = draw_codes(self, request, progress, watch)
        output = PipelineOutput([], codes, request.seeds, recipes_of(self, request))
        if output_type == "pil" and request.is_clip:
            output.frames = self.render_clips(codes)
        elif output_type == "pil":
            output.images = self.render(codes)
        return output

    def request(
        self, prompt: str | list[str] | None = None, **settings: Unpack[CallSettings]
    ) -> Request:
        """Check the settings of a call (`CallSettings`) and fill in the defaults.

        Raises:
            UserError: as in a call.
        """
        check_names("Pipeline.request", settings)
        return request_of(self, prompt, **settings)

    def stream(
        self, prompt: str | list[str] | None = None, **settings: Unpack[CallSettings]
    ) -> Iterator[Step]:
        """Yield the pictures in progress, a `Step` at a time; `render(step.codes)` shows them.

        Takes the settings of a call (`CallSettings`) and checks them at once.
        """
        check_names("Pipeline.stream", settings)
        return draw_stepwise(self, request_of(self, prompt, **settings))

    def stream_frames(
        self, prompt: str | list[str] | None = None, **settings: Unpack[CallSettings]
    ) -> Iterator[list[list[Image.Image]]]:
        """Yield the new frames of each clip of a call, whenever some are finished.

        Takes the settings of a call (`CallSettings`) and checks them at once.

        Raises:
            UserError: as in a call, or what is asked for is no clip.
        """
        from mmgen.unfolding import unfold

        check_names("Pipeline.stream_frames", settings)
        request = request_of(self, prompt, **settings)
        if not request.is_clip:
            raise UserError("A picture has no frames to stream; let num_frames be 2 or more.")
        return unfold(self, draw_stepwise(self, request))

    def render(self, codes: Tensor) -> list[Image.Image]:
        """Decode codes (B, t, h, w), or latents (B, t, h, w, C), to pictures."""
        return rendering.pictures(self, codes)

    def render_clips(self, codes: Tensor) -> list[list[Image.Image]]:
        """Decode codes (B, t, h, w) to clips, a list of frames each."""
        return rendering.clips(self, codes)

    def caption(
        self,
        images: Image.Image | list[Image.Image] | list[list[Image.Image]],
        *,
        seed: int = 0,
        temperature: float = 0.0,
        top_p: float = 1.0,
        progress: Progress | None = None,
    ) -> list[str]:
        """Describe pictures or clips with the same weights that draw them.

        Args:
            images: any size; they are fitted to what the pipeline was trained on. Lists of frames
                are clips, for weights that were trained on them.
            seed: picture i has `seed + i`.
            temperature: 0 writes the likeliest token each time.
            top_p: as in a call.
            progress: called with pictures begun and pictures in all.
        """
        from mmgen.captioning import describe
        from mmgen.sample.draw import DrawSettings

        settings = DrawSettings(temperature=temperature, top_p=top_p)
        return describe(self, images, seed, settings, progress)

    def score(
        self,
        image: Image.Image,
        prompts: str | Sequence[str],
        *,
        by: By = "caption",
        unit: str | None = None,
        progress: Progress | None = None,
    ) -> list[Score]:
        """Say how well texts fit a picture, by likelihoods of the weights that draw.

        Args:
            image: any size; it is fitted to what the pipeline was trained on.
            prompts: one text or several, of which the one with the highest `mean` fits best.
            by: "caption": how likely each text is as the caption of the picture; "picture": how
                likely the picture is for each text.
            unit: the schedule that the picture is read or drawn by; None: that of `caption` and of
                a call.
            progress: called with texts begun and texts in all.

        Raises:
            UserError: nothing to score, weights that only draw, or an unknown unit.
        """
        from mmgen.scoring import score

        return score(self, image, prompts, by, unit, progress)

    def edit(
        self,
        image: Image.Image,
        prompt: str | list[str],
        *,
        mask: Image.Image | None = None,
        box: Box | None = None,
        outpaint: int | Box | None = None,
        steps: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        **settings: Unpack[EditSettings],
    ) -> PipelineOutput:
        """Draw a part of a picture anew; the rest keeps its tokens and its pixels.

        Args:
            image: any size; what the weights see of it is the middle square.
            prompt: one text or several: what the new picture shows.
            mask: white or transparent where the picture is drawn anew; of the picture's shape.
            box: x, y, width, height of the part instead.
            outpaint: pixels to add on the left, top, right and bottom instead, or on each side.
            steps: that the part is drawn in; None: about the root of the number of its tokens.
            progress: called with steps done and steps in all.
            settings: `EditSettings`: as in a call, without its classes, frames, unit and order.

        Raises:
            UserError: weights that decode in fixed orders only, a mask, box or margins that do not
                fit, or a setting out of range.
        """
        from mmgen.editing import edit
        from mmgen.masks import canvas_of

        check_names("Pipeline.edit", settings, EditSettings)
        canvas = canvas_of(image, mask, box, outpaint)
        return edit(self, canvas, prompt, steps, progress, settings)

    def two_way(self) -> tuple[TextTokenizer, UnifiedModel]:
        """Text tokenizer and transformer of weights that read text and write it.

        Raises:
            UserError: these weights only draw.
        """
        from mmgen.models.text import TextTokenizer
        from mmgen.models.unified import UnifiedModel

        if isinstance(self.text, TextTokenizer) and isinstance(self.transformer, UnifiedModel):
            return self.text, self.transformer
        raise UserError(
            f"The weights of '{self.info.name}' only draw; they read and write no text."
        )

    @property
    def grid(self) -> Grid:
        """(t, h, w) of the pictures or clips that a call draws if it does not say."""
        return call_grid(self)

    @property
    def draws_clips(self) -> bool:
        """Whether calls draw clips and not pictures, if they do not say."""
        return self.grid[0] > 1

    @property
    def usual_frames(self) -> int:
        """Frames of a call that does not say; 1 if it draws pictures."""
        return usual_frames(self)

    @property
    def trained_frames(self) -> int:
        """Frames of the clips that the weights were trained on; 1 if they draw pictures alone."""
        return trained_frames(self)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that a picture depends on: text tokenizer and weights."""
        # Hashing takes longer than a step of decoding, so only after the weights were changed.
        networks = (self.transformer, self.vision)
        tensors = [t for network in networks for t in network.state_dict().values()]
        state = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
        if self._hashed is None or self._hashed[0] != state:
            hashes = [each.hash_of_weights() for each in networks]
            if self.text is not None:
                hashes.insert(0, self.text.fingerprint)
            self._hashed = state, "-".join(hashes)
        return self._hashed[1]
