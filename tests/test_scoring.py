"""Likelihoods of texts and pictures against forwards of growing beginnings, token by token."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from tiny_drawing import conditional_pipeline
from tiny_pipeline import tiny_pipeline

from mmgen import Pipeline
from mmgen.captioning import codes_seen
from mmgen.data.fit import fit_pixels
from mmgen.errors import UserError
from mmgen.models.plan import Input
from mmgen.models.rows import concatenate
from mmgen.models.text import BOS, EOS
from mmgen.models.units import plan_for
from mmgen.scoring import score_captions, score_codes

PROMPTS = ["a red apple", "", "a green square and a red apple"]


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    pipe = tiny_pipeline()
    with torch.no_grad():
        pipe.vision.encoder.conv_out.weight.mul_(10.0)  # else all pictures get one code everywhere
    return pipe


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    image = Image.new("RGB", (40, 30), "red")
    image.paste("blue", (10, 5, 25, 20))
    return image


def sites_of(pipe: Pipeline, picture: Image.Image) -> torch.Tensor:
    with torch.inference_mode():
        return pipe.vision.encode(fit_pixels(picture, 16)[None]).indices.flatten(1)


@torch.inference_mode()
def text_by_hand(pipe: Pipeline, picture: Image.Image, prompt: str) -> list[float]:
    """Log p of each id: the whole sequence is fed again for every one of them."""
    text, model = pipe.two_way()
    unit = model.config.units[0]
    plan = plan_for(unit, pipe.grid)
    slots = sites_of(pipe, picture)[:, plan.schedule.site]
    wanted, found = [*text.ids(prompt, 12), EOS], []
    assert wanted[0] == BOS
    for n in range(1, len(wanted)):
        cursor = model.begin(1)
        parts = [model.seen_image_rows(plan, slots, unit.name, cursor, model.tables())]
        for token in wanted[:n]:
            ids = torch.tensor([[token]])
            parts.append(model.text_rows(ids, torch.ones_like(ids).bool(), cursor))
        logits = model.text_logits(model.run(concatenate(parts)))[0, -1]
        found.append(float(logits.log_softmax(-1)[wanted[n]]))
    return found


@torch.inference_mode()
def codes_by_hand(pipe: Pipeline, picture: Image.Image, prompt: str, name: str) -> list[float]:
    """Log p of each code: only what was fed before it is there at all."""
    text, model = pipe.two_way()
    unit, tables = model.config.unit(name), model.tables()
    plan = plan_for(unit, pipe.grid)
    slots, found = sites_of(pipe, picture)[:, plan.schedule.site], []
    for step in range(plan.steps):
        cursor = model.begin(1)
        ids = torch.tensor([text.ids(prompt, 12)])
        parts = [model.text_rows(ids, torch.ones_like(ids).bool(), cursor)]
        parts.append(model.marker_rows(name, cursor))
        prefix = sum(map(len, parts))
        chosen = plan.rows_for_step(step, 0)
        known = torch.zeros_like(slots)
        before = int(sum(plan.sizes[:step]))
        known[:, :before] = slots[:, :before]
        assert (plan.source[chosen][plan.input[chosen] == Input.SLOT] < before).all()
        parts.append(model.image_rows(plan, chosen, known, name, cursor, tables))
        hidden = model.run(concatenate(parts))
        for slot in plan.slots_of_step(step).tolist():
            reads = torch.full((len(plan.heads), 1), -1)
            for head, row in enumerate(plan.reads[:, slot].tolist()):
                if row == -2:
                    reads[head] = prefix - 1
                elif row >= 0:
                    reads[head] = prefix + chosen.tolist().index(row)
            logits = model.logits(model.queries(hidden, plan.heads, reads), tables)[0, 0]
            found.append(float(logits.log_softmax(-1)[slots[0, slot]]))
    return found


def test_texts_have_the_likelihood_of_the_forward(pipe: Pipeline, picture: Image.Image) -> None:
    scores = pipe.score(picture, PROMPTS)
    assert [score.text for score in scores] == PROMPTS
    for score in scores:
        by_hand = text_by_hand(pipe, picture, score.text)
        assert score.log_likelihoods == pytest.approx(by_hand, abs=1e-4)
        assert score.total == pytest.approx(sum(by_hand), abs=1e-3)
        assert score.mean == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-4)
        assert len(score.tokens) == len(by_hand) and score.tokens[-1] == ""


@pytest.mark.parametrize("unit", ["neighbor", "block", "token", "any"])
def test_pictures_have_the_likelihood_of_the_forward(
    unit: str, pipe: Pipeline, picture: Image.Image
) -> None:
    for score in pipe.score(picture, PROMPTS, by="picture", unit=unit):
        by_hand = codes_by_hand(pipe, picture, score.text, unit)
        assert len(by_hand) == len(score.tokens) == 16
        assert score.log_likelihoods == pytest.approx(by_hand, abs=1e-4)


def test_a_caption_scores_as_a_prompt_does(pipe: Pipeline, picture: Image.Image) -> None:
    other = Image.new("RGB", (16, 16), "green")
    both = score_captions(pipe, [picture, other], ["a red apple", "a square"])
    for image, score in zip((picture, other), both):
        (alone,) = pipe.score(image, score.text)
        assert score.log_likelihoods == pytest.approx(alone.log_likelihoods, abs=1e-5)


def test_many_texts_are_scored_in_parts(
    pipe: Pipeline, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pipe.score(picture, PROMPTS)
    monkeypatch.setattr("mmgen.request.BATCH", 2)
    for one, other in zip(whole, pipe.score(picture, PROMPTS), strict=True):
        assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-5)


def test_what_cannot_be_scored_is_refused(pipe: Pipeline, picture: Image.Image) -> None:
    with pytest.raises(UserError, match="nothing to score"):
        pipe.score(picture, [])
    with pytest.raises(UserError, match="by caption or by picture, not 'text'"):
        pipe.score(picture, "a cat", by="text")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no unit 'tokn'; did you mean 'token'"):
        pipe.score(picture, "a cat", unit="tokn")
    with pytest.raises(UserError, match="only draw"):
        conditional_pipeline().score(picture, "a cat")


def test_a_text_counts_as_far_as_one_is_written_or_read(
    pipe: Pipeline, picture: Image.Image
) -> None:
    text, model = pipe.two_way()
    long = "a red apple and " * 20
    (score,) = score_captions(pipe, [picture], [long])
    assert len(score.tokens) == model.config.max_text and score.tokens[-1] == ""
    read = text.ids(long, model.config.max_text)
    assert score.tokens[:-1] == tuple(text.decode([i]) for i in read[1:])
    codes = pipe.vision.encode(fit_pixels(picture, 16)[None]).indices
    assert score_codes(pipe, codes, [long]) == [score]


def test_progress_begins_with_the_whole(pipe: Pipeline, picture: Image.Image) -> None:
    told: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmgen.request.BATCH", 2)
        watch = lambda done, total: told.append((done, total))  # noqa: E731
        pipe.score(picture, PROMPTS, progress=watch)
        assert told == [(0, 3), (2, 3)]
        told.clear()
        pipe.caption([picture] * 3, progress=watch)
    assert told == [(0, 3), (2, 3)]


def test_a_picture_that_comes_again_is_encoded_once(
    pipe: Pipeline, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, shown = Image.new("RGB", (16, 16), "green"), list[int]()
    encode = pipe.vision.encode
    monkeypatch.setattr(pipe.vision, "encode", lambda x: shown.append(len(x)) or encode(x))
    mixed = codes_seen(pipe, [picture, other, picture, picture])
    assert shown == [2]
    pipe.caption([picture] * 5, temperature=1.0)
    assert shown == [2, 1]
    alone = [codes_seen(pipe, [each])[0] for each in (picture, other, picture, picture)]
    assert torch.equal(mixed, torch.stack(alone)) and not torch.equal(mixed[0], mixed[1])
