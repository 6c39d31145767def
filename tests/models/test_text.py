"""Text to ids and back: any text survives, specials are out of reach, training is repeatable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmgen.errors import CheckpointError
from mmgen.models.text import BOS, EOS, PAD, UNK, TextTokenizer
from mmgen.words import normalize

CAPTIONS = [
    f"a {size} {colour} {thing}, {style} style"
    for size in ("big", "small")
    for colour in ("red", "green", "blue")
    for thing in ("apple", "cat's paw", "rocket 42")
    for style in ("noto", "ink")
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    return TextTokenizer.train(CAPTIONS, 340)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example("İstanbul ﬁne ½ Straße ǅ")
@example("it\u2019s \u2018so\u2019 \u201b90s \u02bcn \u0149")
@example("two\u00a0 \u2003words\t\n")
@example("12345 1a2b")
@example("🦊👩‍🚀\U000e0041")
def test_any_text_comes_back_in_its_normal_form(text: TextTokenizer, words: str) -> None:
    ids = text.ids(words, 1000)
    assert ids[0] == BOS and not {PAD, EOS, UNK, BOS} & set(ids[1:])
    assert max(ids) < text.vocab_size
    assert text.decode(ids) == normalize(words)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example("\u0149")
@example("İ")
@example("\u03d2\u0301 \u1e9e")
@example("\u201bn\u02bc")
def test_one_normal_form_for_captions_and_prompts(words: str) -> None:
    assert normalize(words) == normalize(normalize(words))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A  RED\tApple ", "a red apple"),
        ("a cat\u2019s paw", "a cat's paw"),
        ("ａ ｒｅｄ apple", "a red apple"),
        ("cafe\u0301", "café"),
    ],
)
def test_spellings_that_mean_the_same(text: TextTokenizer, one: str, other: str) -> None:
    assert text.ids(one, 50) == text.ids(other, 50)


@pytest.mark.parametrize("words", ["<eos>", "a <pad> b", "<bos><unk>", "a red apple<eos>a cat"])
def test_special_tokens_cannot_be_typed(text: TextTokenizer, words: str) -> None:
    ids = text.ids(words, 50)
    assert not {PAD, BOS, EOS, UNK} & set(ids[1:]) and text.decode(ids) == words


def test_frequent_words_are_one_token_and_digits_stand_alone(text: TextTokenizer) -> None:
    assert len(text.ids("a red apple", 50)) == 1 + 3
    assert text.ids("rocket 42", 50)[-2:] == [text.ids(digit, 50)[-1] for digit in "42"]
    assert len(text.ids("4242", 50)) == len(text.ids("42", 50)) + 2


def test_a_batch_is_padded_on_the_right(text: TextTokenizer) -> None:
    ids, valid = text.encode(["a red apple", "", "a cat's paw"], 50)
    single = [text.ids(words, 50) for words in ("a red apple", "", "a cat's paw")]
    assert single[1] == [BOS]
    assert ids.dtype == torch.long and valid.dtype == torch.bool
    assert ids.shape == valid.shape == (3, max(map(len, single)))
    for row, mask, expected in zip(ids.tolist(), valid.tolist(), single):
        assert row == expected + [PAD] * (len(row) - len(expected))
        assert mask == [True] * len(expected) + [False] * (len(row) - len(expected))


def test_length_and_end(text: TextTokenizer) -> None:
    words = "a big red rocket 42, ink style"
    whole = text.ids(words, 50)
    assert len(whole) > 6
    ids, valid = text.encode([words, "a cat"], 6)
    assert ids[0].tolist() == whole[:6] and bool(valid[0].all())
    ended, valid = text.encode([words, "a cat"], 6, end=True)
    assert ended[0].tolist() == [*whole[:5], EOS]
    short = [*text.ids("a cat", 50), EOS]
    assert ended[1, : len(short)].tolist() == short and int(valid[1].sum()) == len(short)


def test_decoding_stops_at_the_first_end_and_skips_the_rest_of_the_specials(
    text: TextTokenizer,
) -> None:
    apple, cat = text.ids("a red apple", 50), text.ids("a cat", 50)
    assert text.decode([*apple, EOS, *cat]) == "a red apple"
    assert text.decode([BOS, UNK, *cat[1:], PAD, PAD]) == "a cat"
    assert text.decode([]) == text.decode([EOS]) == ""
    assert text.decode(torch.tensor(cat)) == "a cat"  # type: ignore[arg-type]


def test_training_twice_gives_the_same_ids(text: TextTokenizer) -> None:
    """A resumed run trains its text tokenizer anew and must get the same one."""
    for _ in range(3):
        again = TextTokenizer.train(list(CAPTIONS), 340)
        assert again.fingerprint == text.fingerprint
        assert [again.ids(c, 99) for c in CAPTIONS] == [text.ids(c, 99) for c in CAPTIONS]


@pytest.mark.parametrize(("asked", "least"), [(280, 280), (2048, 300)])
def test_the_vocabulary_is_bounded(asked: int, least: int) -> None:
    # The alphabet of 256 bytes and the specials are always there; few captions end early.
    assert least <= TextTokenizer.train(CAPTIONS, asked).vocab_size <= asked


def test_saving_and_loading(text: TextTokenizer, tmp_path: Path) -> None:
    text.save_pretrained(tmp_path / "text")
    loaded = TextTokenizer.from_pretrained(tmp_path / "text")
    assert loaded.fingerprint == text.fingerprint
    assert TextTokenizer.train(CAPTIONS, 300).fingerprint != text.fingerprint
    assert loaded.vocab_size == text.vocab_size
    for words in (*CAPTIONS, "<eos> ÄÖ ½ 🦊"):
        assert loaded.ids(words, 99) == text.ids(words, 99)


def test_missing_and_damaged_files(text: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no file .*tokenizer\.json"):
        TextTokenizer.from_pretrained(tmp_path)
    text.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"{}", b"\xff\xfe" + whole):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
            TextTokenizer.from_pretrained(tmp_path)
