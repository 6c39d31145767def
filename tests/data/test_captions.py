from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmgen.data.captions import GROUP_WORDS, emoji_captions
from mmgen.data.emoji import concepts
from mmgen.data.emoji_styles import STYLES
from mmgen.words import normalize


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert once == " ".join(once.split())


def test_normalising_examples() -> None:
    assert normalize("  O\u2019Neill\u02bcs \t\uff21pple\n") == "o'neill's apple"
    assert normalize("Cafe\u0301") == "caf\u00e9"
    assert normalize("\ufb01sh") == "fish"
    assert normalize("J\u030c") == "\u01f0"  # composes only in lower case


def test_templates_of_the_table() -> None:
    found = {
        c.text: c.weight for c in emoji_captions("a red Apple", "noto", "food-drink", ("fruit",))
    }
    assert found == pytest.approx(
        {
            "a red apple": 0.25,
            "a red apple, noto style": 0.25,
            "a noto style emoji of a red apple": 0.10,
            "a red apple in noto style": 0.10,
            "a drawing of a red apple": 0.10 / 3,
            "a picture of a red apple": 0.10 / 3,
            "an emoji of a red apple": 0.10 / 3,
            "a red apple on a white background": 0.025,
            "a red apple on a white background, noto style": 0.025,
            "red apple": 0.025,
            "red apple, noto style": 0.025,
            "a red apple, fruit": 0.05,
            "a red apple, food": 0.05,
        },
        abs=1e-6,
    )


def test_ink_takes_an_and_the_others_a() -> None:
    for style in STYLES:
        texts = [c.text for c in emoji_captions("an owl", style.word, "animals-nature", ())]
        article = "an" if style.word == "ink" else "a"
        assert f"{article} {style.word} style emoji of an owl" in texts


def test_a_phrase_without_article_or_keywords_keeps_the_whole_weight() -> None:
    found = {c.text: c.weight for c in emoji_captions("spaghetti", "3d", "food-drink", ())}
    assert found["spaghetti"] == pytest.approx(0.25 + 0.025 + 0.05)
    assert found["spaghetti, 3d style"] == pytest.approx(0.25 + 0.025)


def test_every_concept_has_unique_normal_captions_of_weight_one() -> None:
    for concept in concepts():
        for style in concept.styles:
            captions = emoji_captions(concept.phrase, style, concept.group, concept.keywords)
            texts = [caption.text for caption in captions]
            assert len(set(texts)) == len(texts)
            assert all(normalize(text) == text and text for text in texts)
            assert sum(caption.weight for caption in captions) == pytest.approx(1, abs=1e-4)
            assert json.loads(json.dumps(texts)) == texts
    assert {concept.group for concept in concepts()} == set(GROUP_WORDS)
