"""What stands before the pictures of a call: prompts as tokens or features, or class labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmgen.errors import ConfigError, UserError

if TYPE_CHECKING:
    from mmgen.models.conditions import Given
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
    labelled = isinstance(request.subjects[0], int)
    draws_classes = condition_kind(pipe) == "class"
    if labelled and not draws_classes:
        raise UserError(f"The weights of '{pipe.info.name}' draw from text; give a prompt.")
    if not labelled and draws_classes:
        raise UserError(
            f"The weights of '{pipe.info.name}' draw classes, not text; give class labels."
        )
    if draws_classes:
        _refuse_classes(pipe, request)
    if request.negative and condition_kind(pipe) != "text":
        raise ConfigError(
            f"The weights of '{pipe.info.name}' know no negative prompt; leave it out."
        )
    if not labelled and pipe.text is None:
        raise UserError(
            f"'{pipe.info.name}' has no text encoder; load it with text_encoder=FOLDER "
            "(--text-encoder), the one that it was trained with."
        )


def condition_kind(pipe: Pipeline) -> str:
    """What stands before a picture: "text" tokens, or the kind of the condition."""
    condition = getattr(pipe.transformer.config, "condition", None)
    return "text" if condition is None else str(condition.kind)


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
    return pipe.text.decode(pipe.text.ids(prompt, longest))


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


def _given(pipe: Pipeline, request: Request) -> Given:
    import torch

    from mmgen.models.text_features import TextEncoder

    if isinstance(request.subjects[0], int):
        return torch.tensor(request.subjects, device=pipe.device)
    assert isinstance(pipe.text, TextEncoder)
    features = pipe.text.encode([str(text) for text in request.subjects])
    return features.to(pipe.device)


def _refuse_classes(pipe: Pipeline, request: Request) -> None:
    classes: int = pipe.transformer.config.condition.classes  # type: ignore[union-attr]
    wrong = [s for s in request.subjects if isinstance(s, int) and not 0 <= s <= classes]
    if wrong:
        raise UserError(
            f"There is no class {wrong[0]}; give labels from 0 to {classes - 1} ({classes} is no "
            "class in particular)."
        )
