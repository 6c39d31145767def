"""What stands before the pictures of a call: prompts, class labels, or the frames to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmgen.errors import ConfigError, UserError
from mmgen.request import Frames

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.models.conditions import ClassConfig, Given
    from mmgen.models.decodable import Prefix
    from mmgen.models.text import TextTokenizer
    from mmgen.models.unified import UnifiedModel
    from mmgen.pipeline import Pipeline
    from mmgen.request import Request


def check_subjects(pipe: Pipeline, request: Request) -> None:
    """Refuse subjects that the weights do not draw, before anything is computed.

    Raises:
        UserError: a prompt where classes are drawn, or the other way round, or no text encoder.
    """
    kind, name = condition_kind(pipe), pipe.info.name
    subject = request.subjects[0]
    if kind == "nothing" and not isinstance(subject, Frames):
        raise UserError(f"The weights of '{name}' go on from frames; give some to begin with.")
    if isinstance(subject, Frames):
        check_frames(pipe, [each for each in request.subjects if isinstance(each, Frames)])
    elif isinstance(subject, int) and kind not in ("class", "words"):
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


def check_frames(pipe: Pipeline, beginnings: Sequence[Frames]) -> None:
    """Refuse frames that the weights cannot go on from.

    Raises:
        UserError: the weights take none, their number fills no latent frames, or leaves none.
    """
    if condition_kind(pipe) != "nothing":
        raise UserError(f"The weights of '{pipe.info.name}' do not go on from frames.")
    stride, latents = getattr(pipe.vision.config, "time_stride", 1), pipe.grid[0]
    counts = [n * stride + 1 for n in range(latents - 1)]
    for each in beginnings:
        frames = each.pixels.shape[1]
        grid = pipe.vision.grid_for(tuple(each.pixels.shape[1:]))
        if frames not in counts or grid[1:] != pipe.grid[1:]:
            size = pipe.info.image_size
            raise UserError(
                f"{each.name} begins with {frames} frames of {each.pixels.shape[3]}x"
                f"{each.pixels.shape[2]}; give {', '.join(map(str, counts))} of {size}x{size}."
            )


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
    texts = [*map(str, request.subjects), *[request.negative] * (count * guided)]
    ids, valid = text.encode(texts, model.config.max_text)
    ids, valid = ids.to(pipe.device), valid.to(pipe.device)
    negative = (ids[count:], valid[count:]) if guided else None
    return text_prefix(model, request.unit.name, ids[:count], valid[:count], negative)


def given_codes(pipe: Pipeline, request: Request) -> Tensor | None:
    """Codes (B, g) that a request begins with, or those of its frames; None if it has none."""
    import torch

    if request.given is not None:
        return request.given.expand(len(request.subjects), *request.given.shape)
    clips = [each.pixels for each in request.subjects if isinstance(each, Frames)]
    if not clips:
        return None
    codes = pipe.vision.encode(torch.stack(clips).to(pipe.device)).indices
    given: Tensor = codes.flatten(1)  # frames are the first slots in order
    return given


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
