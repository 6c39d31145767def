"""Random small official transformers of NBP: imported, they say what they should."""

from __future__ import annotations

from math import prod
from pathlib import Path
from random import Random
from typing import Any

import official_nbp_network as official
import pytest
import torch
from fuzzing import CLOSE, drawn, imported, told
from official_gpt import drawn as weights_of
from official_nbp import nbp_transformer
from torch import Tensor

from mmgen.errors import UserError
from mmgen.published import nbp

BATCH = 2


class Fuzzed:
    """A random official model, its options, and what it was given."""

    def __init__(self, seed: int, kind: str) -> None:
        self.random = random = Random(seed)
        hybrid, text = kind in ("text", "label"), kind in ("text", "plain text")
        frames = random.randint(1 if hybrid else 2, 4)
        self.grid = (frames, random.randint(1, 4), random.randint(1, 3))
        self.tokens = prod(self.grid)
        self.codes = random.randint(7, 40)
        count = 0 if kind == "plain" else random.randint(2, 10) if text else 1
        divisors = [k for k in range(1, self.tokens + 1) if self.tokens % k == 0]
        self.mode = official.Mode(
            heads=random.randint(1, 4),
            depth=random.randint(1, 3),
            k=random.choice(divisors if hybrid else divisors[:-1]),
            hybrid=hybrid,
            text=text,
            words=random.randint(5, 9) if count else 0,
        )
        specials = self.mode.k if hybrid else int(count > 0)
        self.width = self.mode.heads * random.randint(2, 8)
        fed = count + self.tokens - (0 if hybrid else self.mode.k)
        places = fed + random.choice((0, 0, 3))
        vocabulary = specials + self.mode.words + self.codes
        shapes = nbp_transformer(self.mode.depth, self.width, vocabulary, count, places)
        self.carried = weights_of({key: shape for key, shape in shapes.items() if shape[0]})
        if not count:
            self.carried["transformer.uncond_embedding"] = torch.zeros(0, self.width)
        self.weights = {k.removeprefix("transformer."): t for k, t in self.carried.items()}
        # Ids that no row may see need company, or nothing is seen at all.
        self.condition = torch.randint(self.mode.words or 1, (BATCH, count))
        self.condition[:, :1] = 4
        self.options: dict[str, Any] = {
            **{"unconditional": not count, "hybrid": hybrid, "starts_with_bov": hybrid},
            **{"semi_ar": True, "transformer_dropout": 0.1, "p_drop_cond": None, "pkeep": 1.0},
            **{"cond_stage_key": "text" if text else "label", "cond_token_num": count},
            **{"first_stage_vocab_size": self.codes, "token_number_per_step": self.mode.k},
            **{"block_size": places, "n_layer": self.mode.depth, "n_head": self.mode.heads},
            **{"n_embd": self.width, "latent_grid": list(self.grid)},
            ("text_vocab_size" if text else "class_cond_dim"): self.mode.words or None,
        }
        if not text:
            self.options.pop("text_vocab_size", None)

    def official_ids(self, ids: Tensor) -> Tensor:
        """Of our ids."""
        return (ids + self.mode.shift) % len(self.weights["head.weight"])

    def ask(self, video: Tensor, dropped: bool = False) -> Tensor:
        """Logits by our ids, of video tokens in our ids."""
        official_ids = self.official_ids(video)
        said = official.logits(self.weights, self.mode, self.condition, official_ids, dropped)
        return said.roll(-self.mode.shift, -1)


@pytest.mark.parametrize("kind", ["text", "label"])
@pytest.mark.parametrize("seed", range(16))
def test_hybrid_start(seed: int, kind: str, tmp_path: Path) -> None:
    case = Fuzzed(seed, kind)
    network = imported("nbp", case.carried, case.options, tmp_path)
    codes = torch.randint(case.codes, (BATCH, case.tokens))
    ours = told(network, case.condition, codes)
    torch.testing.assert_close(ours, case.ask(codes), **CLOSE)
    ours = told(network, network.condition.null(case.condition), codes)
    torch.testing.assert_close(ours, case.ask(codes, dropped=True), **CLOSE)
    scale = case.random.choice((1.0, 2.5))
    ids, logits = drawn(network, case.condition, scale)
    cond, null = case.ask(ids), case.ask(ids, dropped=True)
    torch.testing.assert_close(logits, null + (cond - null) * scale, **CLOSE)


@pytest.mark.parametrize("kind", ["plain", "plain text", "plain label"])
@pytest.mark.parametrize("seed", range(10))
def test_given_first_block(seed: int, kind: str, tmp_path: Path) -> None:
    case = Fuzzed(seed, kind)
    k = case.mode.k
    network = imported("nbp", case.carried, case.options, tmp_path)
    codes = torch.randint(case.codes, (BATCH, case.tokens))
    ours = told(network, case.condition, codes)
    torch.testing.assert_close(ours[:, k:], case.ask(codes), **CLOSE)
    count = k * case.random.randint(1, case.tokens // k - 1)
    ids, logits = drawn(network, case.condition, 1.0, given=codes[:, :count])
    torch.testing.assert_close(logits, case.ask(ids)[:, count - k :], **CLOSE)


LABEL = {"n_head": 2, "first_stage_vocab_size": 30, "token_number_per_step": 8}


@pytest.mark.parametrize(
    ("shapes", "options", "said"),
    [
        ((1, 16, 45, 8, 60), {**LABEL, "cond_stage_key": "label"}, "8 rows of a condition"),
        ((1, 16, 45, 1, 60), {**LABEL, "class_cond_dim": 6}, "has 45 ids, and 8 special ones, 6"),
        ((1, 16, 45, 0, 60), LABEL, "has 45 ids, and 0 special ones"),
        ((1, 16, 45, 1, 60), {**LABEL, "latent_grid": [1, 3, 3]}, "9 tokens, which is no multiple"),
        (
            (1, 16, 45, 1, 60),
            {**LABEL, "latent_grid": [1, 8, 8]},
            r"positions \(block_size\) for 59",
        ),
        ((1, 16, 30, 0, 60), {**LABEL, "latent_grid": [9, 1, 8]}, "for 68"),
        ((1, 16, 96016, 8, 60), {"n_head": 2, "first_stage_vocab_size": 64016}, "has 96016 ids"),
    ],
)
def test_sizes_that_contradict_each_other(
    shapes: tuple[int, int, int, int, int], options: dict[str, Any], said: str
) -> None:
    tensors = weights_of({k: s for k, s in nbp_transformer(*shapes).items() if s[0]})
    tensors.setdefault("transformer.uncond_embedding", torch.zeros(0, 16))
    with pytest.raises(UserError, match=said) as raised:
        nbp.convert(tensors, options, "file")
    assert "\n" not in str(raised.value)


def test_a_grid_that_nobody_told_is_said() -> None:
    tensors = weights_of(nbp_transformer(1, 16, 45, 1, 60))
    converted = nbp.convert(tensors, LABEL, "file")
    assert converted.notes == ("latent_grid 5x16x16 assumed; say latent_grid= if it is another",)
    options = {**LABEL, "latent_grid": [1, 4, 8]}
    assert nbp.convert(tensors, options, "file").notes == ()
