"""The whole card on a tiny pipeline with random weights and a small part of the emoji set."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmgen.data.emoji import SPLITS
from mmgen.data.shards import write_shard
from mmgen.errors import ConfigError, DataError
from mmgen.evaluation import card, pages
from mmgen.evaluation.asking import Ask, Drawn, fresh_asks, plain_asks
from mmgen.evaluation.card import CardSettings, card_text, make_card
from mmgen.evaluation.judge import Judge
from mmgen.evaluation.measure import _portable
from mmgen.evaluation.real import open_real, shards_of
from mmgen.evaluation.sheets import wrapped
from mmgen.evaluation.yardstick import top_scores

sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny_emoji import Small, few_items
from tiny_pipeline import SIZE, tiny_pipeline

RUN = {"train": {"batch_size": 4, "seed": 0, "out": "/some/where/runs/one"}, "loss": {}}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, dict[str, Any]]:
    """A card, and what `make_card` returned."""
    folder = tmp_path_factory.mktemp("card")
    tiny_pipeline().save_pretrained(folder / "pipeline")
    run = folder / "one"
    run.mkdir()
    lines = [{"step": s, "losses": {"image": 9.0 - s}, "seconds": 60.0} for s in (1, 2, 3)]
    text = "\n".join(map(json.dumps, lines))
    (run / "log.jsonl").write_text(text, encoding="utf-8")
    (run / "run.yaml").write_text(json.dumps(RUN), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "FeatureExtractor", Small)
        patch.setattr(pages, "SHOWN", pages.SHOWN[:3])
        figures = make_card(
            folder / "pipeline",
            data,
            folder / "card",
            [run],
            settings=CardSettings(pictures=14, few=4, batch=32),
            hardware="a toaster",
            failures=["It draws noise."],
        )
    return folder / "card", figures


def test_everything_is_written(made: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = made
    names = {path.name for path in folder.iterdir()}
    pictures = {"results.png", "styles.png", "units.png", "curves.png"}
    assert names == pictures | {"README.md", "LICENSES.md", "figures.json"}
    for name in pictures:
        with Image.open(folder / name) as image:
            low, high = image.convert("L").getextrema()
            assert low < 128 and high == 255 and min(image.size) > 200
    stored = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(figures))


def test_figures_hold_every_set_with_its_protocol(made: tuple[Path, dict[str, Any]]) -> None:
    figures = made[1]
    sets = {"train", "fresh", "test_pair_restyle", "test_pair_new", "test_concept"}
    assert set(figures["generated"]) == set(figures["real"]) == sets
    for name in sets:
        for found in (figures["generated"][name], figures["real"][name]):
            concept, copying = found["concept"], found["copying"]
            assert 0 <= concept["top1"] <= concept["top5"] <= 1
            assert copying["low"] <= copying["median"] <= copying["high"] <= 1 + 1e-6
            assert concept["count"] == sum(s["count"] for s in found["by_style"].values())
    assert figures["generated"]["train"]["concept"]["count"] == 14
    assert figures["generated"]["fresh"]["concept"]["count"] == 4
    assert set(figures["units"]) == set(figures["losses"]["units"])
    assert [figures["units"][u]["steps"] for u in ("neighbor", "block", "token")] == [7, 4, 16]
    # The weights are random: a code costs about as much as knowing nothing.
    uniform = figures["losses"]["uniform"]
    assert all(abs(loss - uniform) < 2 for loss in figures["losses"]["units"].values())
    protocol = figures["protocol"]
    assert protocol["features"]["hash"] == "small" and protocol["settings"]["pictures"] == 14
    assert protocol["data"]["pictures"] == len(few_items())
    assert figures["runs"][0]["recipe"]["train"]["out"] == "one"  # no path of a machine
    assert figures["runs"][0]["seconds"] == 180


def test_real_pictures_of_the_set_score_better_than_noise(
    made: tuple[Path, dict[str, Any]],
) -> None:
    real, generated = made[1]["real"]["train"], made[1]["generated"]["train"]
    assert real["concept"]["top1"] == 1.0 > generated["concept"]["top1"]
    assert abs(real["kid"]) < generated["kid"]


def test_the_card_says_what_must_be_said(made: tuple[Path, dict[str, Any]]) -> None:
    text = (made[0] / "README.md").read_text(encoding="utf-8")
    joined = " ".join(text.split())
    for needed in (
        "Twemoji, graphics (c) Twitter, Inc. and other contributors, licensed under CC BY 4.0; "
        "rasterised",
        "Google LLC, Apache License 2.0",
        "Microsoft Corporation, MIT License",
        "Unicode License v3",
        "Weights: CC0",
        "a toaster",
        "It draws noise.",
        "the true caption is the likeliest of 17 captions",
        "curves.png",
        "mmgen data emoji --out data/emoji",
        "mmgen train one python -m mmgen.evaluation.card runs/one/final --data data/emoji "
        "--run runs/one --pictures 14 --few 4 --batch 32 --out card",
    ):
        assert needed in joined, needed
    assert "/some/where" not in text and "nan" not in text.lower().split()
    assert "CC BY 4.0 (twemoji)" in (made[0] / "LICENSES.md").read_text(encoding="utf-8")


def test_card_text_shows_the_figures_it_is_given(made: tuple[Path, dict[str, Any]]) -> None:
    figures = json.loads(json.dumps(made[1]))
    figures["generated"]["test_concept"]["concept"] |= {"top1": 0.123, "top5": 0.456}
    figures["generated"]["test_concept"]["kid"] = 0.0789
    figures["pipeline"]["licence"] = ""
    figures["runs"] = []
    text = card_text(figures, licence="MIT")
    assert "0.12 / 0.46" in text and "0.0789" in text and "46% of the cases" in text
    assert "Weights: MIT" in text and "license: mit" in text and "curves.png" not in text
    # Every table has as many cells in each row as in its head.
    widths = 0
    for line in text.splitlines():
        cells = line.count("|") if line.startswith("|") else 0
        assert not (widths and cells) or cells == widths
        widths = cells


def test_the_judge_holds_real_pictures_apart_from_themselves(data: Path) -> None:
    real = open_real(data, SIZE, Small())  # type: ignore[arg-type]
    judge = Judge(real)
    items = [real.items[i] for i in real.places("train")[:5]]
    asks = tuple(plain_asks(items, seed=3))
    features = real.features[real.places("train")[:5]]
    drawn = Drawn(asks, np.zeros((5, SIZE, SIZE, 3), np.uint8), features, 1.0)
    copied, honest = judge.generated(drawn), judge.real_of(drawn)
    assert copied.copying.low == pytest.approx(1, abs=1e-5)  # they are training pictures
    assert honest.copying.low < 1 - 1e-6  # but the search leaves each one out
    assert copied.concept == honest.concept and copied.kid == pytest.approx(honest.kid)
    _, places = judge.nearest(features)
    assert [real.items[place].id for place in places] == [item.id for item in items]


def test_a_real_picture_never_meets_itself(data: Path) -> None:
    real = open_real(data, SIZE, Small())  # type: ignore[arg-type]
    judge = Judge(real)
    items = [real.items[i] for i in real.places("train")]
    asks = tuple(Ask("a thing", i, item, None) for i, item in enumerate(items))
    drawn = Drawn(asks, np.zeros((1, SIZE, SIZE, 3), np.uint8), real.features, 1.0)
    found = judge.real_of(drawn)
    own = judge.gallery.ranks(
        real.features[real.places("train")],
        [item.concept.key for item in items],
        [item.style for item in items],
    )
    assert found.concept == top_scores(own) and set(found.by_style) == {"any"}
    assert found.style is None


def test_asks_have_their_own_seeds_and_say_what_they_name() -> None:
    items = [item for item in few_items() if item.split == "train"]
    plain = plain_asks(items, seed=7)
    assert [ask.seed for ask in plain] == list(range(7, 7 + len(items)))
    assert plain[0].prompt == f"{items[0].concept.phrase}, {items[0].style} style"
    fresh = fresh_asks(items, seed=7)
    assert {ask.style is None for ask in fresh} == {True, False}
    assert all(ask.style in (None, ask.item.style) for ask in fresh)
    assert all(ask.item.concept.phrase in ask.prompt for ask in fresh)


def test_shards_and_paths(data: Path, tmp_path: Path) -> None:
    assert shards_of(data, "val").endswith("val-0000.tar")
    assert shards_of(data, "train").endswith("train-{0000,0001}.tar")
    with pytest.raises(DataError, match="mmgen data emoji"):
        shards_of(tmp_path, "val")
    assert _portable({"a": ["/x/y/z", "data/emoji", 3]}) == {"a": ["z", "data/emoji", 3]}


def test_the_data_must_be_emoji(tmp_path: Path) -> None:
    for split in SPLITS:
        buffer = io.BytesIO()
        Image.new("RGB", (SIZE, SIZE)).save(buffer, "PNG")
        sample = ("cats_1", {"png": buffer.getvalue(), "txt": b"a cat"})
        write_shard(tmp_path / f"{split}-0000.tar", [sample])
    manifest = {"format": "mmgen-emoji-1", "size": SIZE}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(DataError, match="no picture of the emoji set"):
        open_real(tmp_path, SIZE, Small())  # type: ignore[arg-type]


def test_counts_are_checked() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        CardSettings(pictures=1)


def test_texts_are_wrapped_in_words() -> None:
    lines = wrapped("a jalape\u00f1o on a rather long line of text", 10, 60)
    assert " ".join(lines) == "a jalapeno on a rather long line of text" and len(lines) > 2
