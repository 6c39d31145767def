"""What stands before the pictures of a call: prompts, class labels, or the frames to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmgen.errors import ConfigError, UserError
from mmgen.lengths import frames_of
from mmgen.request import Frames

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.models.conditions import ClassConfig, Given
    from mmgen.models.decodable import Prefix
    from mmgen.models.schedule import Grid
    from mmgen.models.text import TextTokenizer
    from mmgen.models.unified import UnifiedModel
    from mmgen.pipeline import Pipeline
    from mmgen.request import Request, Subject


def check_subjects(pipe: Pipeline, request: Request) -> None:
    """Refuse subjects that the weights do not draw, before anything is computed.

    Raises:
        UserError: a prompt where classes are drawn, or the other way round, or no text encoder.
    """
    kind, name = condition_kind(pipe), pipe.info.name
    subject = request.subjects[0]
    if kind == "nothing" and not isinstance(subject, Frames):
        raise UserError(f"The weights of '{name}' go on from frames; give some to begin with.")
    if isinstance(subject, Frames) and subject.prompt and kind != "text":
        raise UserError(f"The weights of '{name}' go on from frames alone; leave the prompt out.")
    if isinstance(subject, int) and kind not in ("class", "words"):
        raise UserError(f"The weights of '{name}' draw from text; give a prompt.")
    elif isinstance(subject, str) and kind == "class":
        raise UserError(f"The weights of '{name}' draw classes, not text; give class labels.")
    if kind == "class":
        _refuse_classes(pipe, request)
    if kind == "words":
        word_ids(pipe, request)
    if request.negative and kind != "text":
        raise ConfigError(f"The weights of '{name}' know no negative prompt; leave it out.")
    if kind in ("text", "features") and pipe.text is None:
        raise UserError(
            f"'{name}' has no text encoder; load it with text_encoder=FOLDER "
            "(--text-encoder), the one that it was trained with."
        )


def latent_frames(pipe: Pipeline, subjects: Sequence[Subject], grid: Grid) -> int:
    """How many latent frames the subjects of a call begin with; 0 if they are no frames.

    Raises:
        UserError: the weights take none, their number fills no latent frames, or leaves none.
    """
    beginnings = [each for each in subjects if isinstance(each, Frames)]
    if not beginnings:
        return 0
    if condition_kind(pipe) not in ("nothing", "text") or pipe.transformer.config.grid[0] == 1:
        raise UserError(f"The weights of '{pipe.info.name}' do not go on from frames.")
    if grid[0] == 1:
        raise UserError("A picture does not go on from frames; let num_frames be 2 or more.")
    counts = [frames_of(pipe.vision, latent) for latent in range(1, grid[0])]
    size = pipe.info.image_size
    for each in beginnings:
        frames, height, width = each.pixels.shape[1:]
        if frames not in counts or (height, width) != (size, size):
            raise UserError(
                f"{each.name} begins with {frames} frames of {width}x{height}, and the clip will "
                f"have {frames_of(pipe.vision, grid[0])}; give {', '.join(map(str, counts))} of "
                f"{size}x{size}."
            )
    if len({each.pixels.shape[1] for each in beginnings}) > 1:
        raise UserError("The clips to go on from have different lengths; give as many of each.")
    return counts.index(beginnings[0].pixels.shape[1]) + 1


def condition_kind(pipe: Pipeline) -> str:
    """What stands before a picture: "text" tokens, or the kind of the condition."""
    condition = getattr(pipe.transformer.config, "condition", None)
    return "text" if condition is None else str(condition.kind)


def extra_ids(pipe: Pipeline) -> int:
    """Ids that a head may say although they are no codes."""
    condition = getattr(pipe.transformer.config, "condition", None)
    return int(getattr(condition, "extra_ids", 0))


def part_read(pipe: Pipeline, prompt: str) -> str | None:
    """The part of a prompt that fits what the pipeline reads; None if all of it does."""
    from mmgen.models.text import TextTokenizer
    from mmgen.models.text_features import TextEncoder

    if isinstance(pipe.text, TextEncoder):
        return pipe.text.part_read(prompt)
    if not isinstance(pipe.text, TextTokenizer):
        return None
    longest: int = pipe.two_way()[1].config.max_text
    if len(pipe.text.ids(prompt, longest + 1)) <= longest:
        return None
    read: str = pipe.text.decode(pipe.text.ids(prompt, longest))
    return read.rstrip("\ufffd")  # of a letter that was cut in two


def prefix_of(pipe: Pipeline, request: Request) -> Prefix:
    """Rows before the pictures of a request, with the unconditional branch if it is guided."""
    from mmgen.models.unified import UnifiedModel

    model = pipe.transformer
    if isinstance(model, UnifiedModel):
        return _text_prefix(pipe, model, request)
    given: Any = _given(pipe, request)  # labels where the model takes nothing else
    return model.prefix(given, request.guided)


def _text_prefix(pipe: Pipeline, model: UnifiedModel, request: Request) -> Prefix:
    from mmgen.sample.engine import text_prefix

    text: TextTokenizer = pipe.text  # type: ignore[assignment]
    guided, count = request.guided, len(request.subjects)
    shown = [each.prompt if isinstance(each, Frames) else str(each) for each in request.subjects]
    texts = [*shown, *[request.negative] * (count * guided)]
    ids, valid = text.encode(texts, model.config.max_text)
    ids, valid = ids.to(pipe.device), valid.to(pipe.device)
    negative = (ids[count:], valid[count:]) if guided else None
    return text_prefix(model, request.unit.name, ids[:count], valid[:count], negative)


def given_codes(request: Request) -> Tensor | None:
    """Codes (B, g) of the first slots of a request's plan, if they are decided already."""
    given = request.given
    return None if given is None else given.expand(len(request.subjects), *given.shape)


def codes_of_frames(pipe: Pipeline, request: Request) -> Tensor | None:
    """Codes (B, t, h, w), or latents, of frames to go on from; None if a request has none."""
    import torch

    from mmgen.captioning import codes_of

    clips = [each.pixels for each in request.subjects if isinstance(each, Frames)]
    if not clips:
        return None
    return codes_of(pipe, torch.stack(clips))


def word_ids(pipe: Pipeline, request: Request) -> list[tuple[int, ...]]:
    """The words of each subject.

    Raises:
        UserError: a class that does not exist, or a text that is not known.
    """
    condition: Any = pipe.transformer.config.condition  # type: ignore[union-attr]
    return [condition.words_of(subject) for subject in request.subjects]


def _given(pipe: Pipeline, request: Request) -> Given:
    import torch

    from mmgen.models.text_features import TextEncoder

    kind = condition_kind(pipe)
    if kind == "nothing":
        return torch.zeros(len(request.subjects), 0, dtype=torch.long, device=pipe.device)
    if kind == "words":
        return torch.tensor(word_ids(pipe, request), device=pipe.device)
    if kind == "class":
        return torch.tensor(request.subjects, device=pipe.device)
    assert isinstance(pipe.text, TextEncoder)
    features = pipe.text.encode([str(text) for text in request.subjects])
    return features.to(pipe.device)


def _refuse_classes(pipe: Pipeline, request: Request) -> None:
    condition: ClassConfig = pipe.transformer.config.condition  # type: ignore[union-attr,assignment]
    classes, null = condition.classes, condition.null
    wrong = [s for s in request.subjects if isinstance(s, int) and not 0 <= s < classes + null]
    if wrong:
        more = f" ({classes} is no class in particular)" if null else ""
        raise UserError(f"There is no class {wrong[0]}; give labels from 0 to {classes - 1}{more}.")
