"""Conditions of words in a shared vocabulary, and none: rows, who sees whom, null twins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmgen.errors import ConfigError, UserError
from mmgen.models.conditional import ConditionalModel
from mmgen.models.plan import NONE
from mmgen.models.rows import row_mask
from mmgen.models.units import plan_for
from mmgen.models.words import NothingConfig, WordConfig, Words
from tests.tiny_blocks import CODES, GRID, codes_of, hybrid, plain

IDS = torch.tensor([[1, 3, 2], [1, 2, 2]])


def _mask(model: ConditionalModel, ids: Tensor = IDS) -> Tensor:
    mask = row_mask(model.prefix(ids).rows)
    return torch.ones(1, 4, 4, dtype=torch.bool) if mask is None else mask


def test_words_see_each_other_and_the_begin_token_sees_them() -> None:
    seen = torch.tensor([[1, 1, 1, 0]] * 3 + [[1, 1, 1, 1]]).bool()
    assert torch.equal(_mask(hybrid()), seen[None])


def test_a_late_word_is_seen_from_behind_only() -> None:
    mask = _mask(hybrid(late_word=2))
    assert mask[0, :, 2].tolist() == [False, False, True, True]
    assert mask[1, :, 1].tolist() == [False, True, True, True]
    assert mask[1, :, 0].tolist() == [True] * 4


def test_an_unseen_word_is_seen_by_itself_alone() -> None:
    mask = _mask(hybrid(unseen_word=2))
    assert mask[1, :, 1].tolist() == [False, True, False, False]


def test_rows_come_from_one_table() -> None:
    model = hybrid()
    table, places = model.code_embedding.weight, model.places
    assert places is not None
    rows = model.prefix(IDS).rows.x - places.weight[:4]
    words = CODES + 3  # behind the codes, the begin token and two more
    ids = torch.tensor([words + 1, words + 3, words + 2, CODES])
    torch.testing.assert_close(rows[0], table[ids])


def test_the_null_twin_keeps_the_mask_and_the_begin_token() -> None:
    model = hybrid(late_word=2)
    prefix = model.prefix(IDS, guided=True)
    assert prefix.rows.x.shape == (4, 4, 16)
    both = row_mask(prefix.rows)
    assert both is not None
    assert torch.equal(both[:2], both[2:])
    torch.testing.assert_close(prefix.rows.x[:2, 3], prefix.rows.x[2:, 3])
    assert not torch.allclose(prefix.rows.x[:2, :3], prefix.rows.x[2:, :3])


def test_dropped_words_are_the_null_twin() -> None:
    model = hybrid()
    plan = plan_for(model.config.units[0], GRID)
    half = Words(IDS, torch.tensor([False, True]))
    logits = model(half, codes_of(), plan)
    torch.testing.assert_close(logits[:1], model(IDS, codes_of(), plan)[:1])
    null = model.condition.null(IDS)
    torch.testing.assert_close(logits[1:], model(null, codes_of(), plan)[1:])


def test_a_head_may_say_a_word_which_is_no_code() -> None:
    model = hybrid()
    ids = torch.tensor([0, CODES - 1, CODES, CODES + 5])
    assert model.codes_of(ids).tolist() == [0, CODES - 1, 0, 0]


def test_the_loss_leaves_out_what_nothing_predicts() -> None:
    model = plain()
    plan = plan_for(model.config.units[0], GRID)
    empty = torch.zeros(2, 0, dtype=torch.long)
    predicted = (plan.reads != NONE).any(0)
    assert int(predicted.sum()) == 6
    logits = model(empty, codes_of(), plan)[:, predicted]
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), codes_of()[:, predicted].flatten()
    )
    torch.testing.assert_close(model.loss(empty, codes_of(), plan), expected)


def test_names_and_labels() -> None:
    known = WordConfig(words=9, count=2, texts={"apply eye makeup": (1, 2), "archery": (3, 2)})
    assert known.words_of("ApplyEyeMakeup") == known.words_of("apply eye makeup") == (1, 2)
    assert known.words_of(1) == (3, 2)
    assert WordConfig(words=9, count=1).words_of(8) == (8,)
    with pytest.raises(UserError, match="did you mean 'archery'"):
        known.words_of("archer")
    with pytest.raises(UserError, match="0 to 1"):
        known.words_of(2)
    with pytest.raises(UserError, match="give class labels"):
        WordConfig(words=9, count=1).words_of("archery")


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="has 3 ids, not 2"):
        hybrid().prefix(IDS[:, :2])
    with pytest.raises(ConfigError, match="no word or class 9"):
        hybrid().prefix(IDS + 6)
    with pytest.raises(ConfigError, match="take no condition"):
        plain().prefix(IDS)
    with pytest.raises(ConfigError, match="leave guidance off"):
        plain().prefix(IDS[:, :0], guided=True)
    with pytest.raises(ConfigError, match="at least 1"):
        WordConfig(words=0)
    assert NothingConfig().rows == NothingConfig().extra_ids == 0


def test_a_sequence_longer_than_the_places_is_refused() -> None:
    model = plain(longest=5)
    with pytest.raises(ConfigError, match="5 places"):
        model(torch.zeros(2, 0), codes_of(), plan_for(model.config.units[0], GRID))
