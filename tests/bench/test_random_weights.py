"""Published sizes with random weights are the published sizes."""

from __future__ import annotations

import pytest

from mmgen.bench import random_weights
from mmgen.bench.random_weights import names, random_pipeline
from mmgen.errors import UserError

PARAMETERS = {"llamagen/GPT-B": 110_888_448, "nar/GPT-B": 130_551_552, "nar/GPT-XL": 815_991_040}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_published(name: str) -> None:
    network = random_weights._converted(name).network
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


def test_a_small_one_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"n_layer": 1, "dim": 64, "n_head": 2, "model_type": "c2i"}
    monkeypatch.setitem(random_weights.SYSTEMS["nar"].PRESETS, "GPT-nano", small)
    pipe, again = random_pipeline("nar/GPT-nano"), random_pipeline("nar/GPT-nano")
    codes = pipe(class_labels=[3], seed=1, output_type="codes").codes
    assert codes.shape == (1, 1, 16, 16) and pipe.info.image_size == 256
    assert again.transformer.fingerprint == pipe.transformer.fingerprint


def test_every_size_has_a_name_and_others_are_refused() -> None:
    assert {"llamagen/GPT-B", "nar/GPT-B", "nar/GPT-M"} <= set(names())
    with pytest.raises(UserError, match="no published size 'nar/GPT-b'; did you mean"):
        random_pipeline("nar/GPT-b")
