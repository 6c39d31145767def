"""Which caption fits a picture: likelihoods by the weights that draw, in either direction.

They come from one pass without a cache over the rows that training lays out, so they are the
numbers that training made large: natural logarithms, at temperature 1, without guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

from mmgen.captioning import codes_seen, pictures_of
from mmgen.deciders import draws_latents
from mmgen.errors import ConfigError, UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from mmgen.models.units import Unit
    from mmgen.pipeline import Pipeline
    from mmgen.progress import Progress

By = Literal["caption", "picture"]


@dataclass(frozen=True)
class Score:
    """How well a text and a picture fit.

    Args:
        text: as it was given.
        tokens: what was asked for, one by one: the parts of the text and its end, "", or the
            picture's codes in decoding order.
        log_likelihoods: of each of them, given the other side and those before.
    """

    text: str
    tokens: tuple[str, ...]
    log_likelihoods: tuple[float, ...]

    @property
    def total(self) -> float:
        """Log-likelihood of the whole."""
        return sum(self.log_likelihoods)

    @property
    def mean(self) -> float:
        """Log-likelihood of a token."""
        return self.total / len(self.log_likelihoods)


def way_in(by: str) -> By:
    """The way of scoring that a word names.

    Raises:
        ConfigError: there is none.
    """
    if by not in get_args(By):
        raise ConfigError(f"A score is by caption or by picture, not '{by}'.")
    return cast("By", by)


def score(
    pipe: Pipeline,
    image: Image.Image,
    prompts: str | Sequence[str],
    by: By = "caption",
    unit: str | None = None,
    progress: Progress | None = None,
) -> list[Score]:
    """Score texts against one picture; see `Pipeline.score`.

    Raises:
        UserError: nothing to score, weights that only draw, or an unknown unit.
    """
    by = way_in(by)
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts or any(not isinstance(text, str) for text in texts):
        raise UserError("There is nothing to score; give one text or several.")
    if by == "picture" and draws_latents(pipe):
        raise UserError(
            f"The weights of '{pipe.info.name}' draw latents, which have no likelihood to compare; "
            "score by caption."
        )
    own = _unit(pipe, by, unit)
    (codes,) = codes_seen(pipe, pictures_of([image]))
    repeated = codes.expand(len(texts), *codes.shape)
    return _in_parts(pipe, repeated, texts, by, own, progress)


def score_captions(pipe: Pipeline, images: list[Image.Image], texts: list[str]) -> list[Score]:
    """Score each text against the picture of the same number, as the caption of it."""
    return score_codes(pipe, codes_seen(pipe, pictures_of(images)), texts)


def score_codes(pipe: Pipeline, codes: Tensor, texts: list[str]) -> list[Score]:
    """Score each text against codes (B, t, h, w) of the same number, as the caption of them.

    A text counts as far as `Pipeline.caption` could write it: `max_text` tokens, the end included.
    """
    return _in_parts(pipe, codes, texts, "caption", _unit(pipe, "caption", None))


def _unit(pipe: Pipeline, by: By, name: str | None) -> Unit:
    """The unit asked for, or the one that captions are written from, or pictures drawn by."""
    config = pipe.two_way()[1].config
    still = (1, *config.grid[1:])
    usual = pipe.info.sampling.unit if by == "picture" else None
    if usual is None or not config.unit(usual).draws(still):
        usual = config.first_unit(still).name
    unit: Unit = config.unit(name or usual)
    return unit


def _in_parts(
    pipe: Pipeline,
    codes: Tensor,
    texts: list[str],
    by: By,
    unit: Unit,
    progress: Progress | None = None,
) -> list[Score]:
    from mmgen import request

    size, scores = request.BATCH, list[Score]()
    found = _of_texts if by == "caption" else _of_codes
    for at in range(0, len(texts), size):
        if progress is not None:
            progress(at, len(texts))
        scores += found(pipe, codes[at : at + size], texts[at : at + size], unit)
    return scores


def _of_texts(pipe: Pipeline, codes: Tensor, texts: list[str], unit: Unit) -> list[Score]:
    """Likelihoods of texts behind their pictures."""
    import torch

    from mmgen.models.schedule import grid_of, to_slots
    from mmgen.models.units import plan_for

    text, model = pipe.two_way()
    plan = plan_for(unit, grid_of(codes))
    longest = model.config.max_text + 1  # the end is only asked for, never fed
    ids, valid = (each.to(pipe.device) for each in text.encode(texts, longest, end=True))
    with torch.inference_mode():
        slots = to_slots(plan.schedule, codes)
        logits = model.caption_logits(slots, plan, unit.name, ids, valid)
    said = _chosen(logits, ids[:, 1:])
    return [
        Score(words, tuple(text.decode([i]) for i in row[1:length]), tuple(own[: length - 1]))
        for words, row, own, length in zip(texts, ids.tolist(), said, valid.sum(1).tolist())
    ]


def _of_codes(pipe: Pipeline, codes: Tensor, texts: list[str], unit: Unit) -> list[Score]:
    """Likelihoods of pictures behind their texts."""
    import torch

    from mmgen.models.schedule import grid_of, to_slots
    from mmgen.models.units import plan_for

    text, model = pipe.two_way()
    plan = plan_for(unit, grid_of(codes))
    ids, valid = (each.to(pipe.device) for each in text.encode(texts, model.config.max_text))
    with torch.inference_mode():
        slots = to_slots(plan.schedule, codes)
        logits = model.image_logits(ids, valid, slots, plan, unit.name)
    said = _chosen(logits, slots)
    return [
        Score(words, tuple(map(str, row)), tuple(own))
        for words, row, own in zip(texts, slots.tolist(), said)
    ]


def _chosen(logits: Tensor, ids: Tensor) -> list[list[float]]:
    """Log-probabilities (B, N) of ids (B, N) under logits (B, N, V)."""
    log_p = logits.double().log_softmax(-1)
    chosen: list[list[float]] = log_p.gather(-1, ids[..., None])[..., 0].tolist()
    return chosen
