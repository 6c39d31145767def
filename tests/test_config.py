"""Typed configuration: what fits comes back typed, what does not is one sentence with its place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.config import from_dict, to_dict
from mmgen.errors import ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.unified import UnifiedConfig, Unit
from mmgen.pipeline import PipelineInfo, SamplingDefaults
from mmgen.tokenizers_vis.conv import ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig, IBQConfig, LFQConfig, VQConfig
from mmgen.train.datasets import DataConfig
from mmgen.train.generator_task import GeneratorRecipe
from mmgen.train.recipe import TrainConfig, load_recipe, read_recipe, shipped_recipes
from mmgen.train.tokenizer_task import TokenizerRecipe


@dataclass(frozen=True)
class Circle:
    radius: float
    kind: Literal["circle"] = "circle"


@dataclass(frozen=True)
class Square:
    side: int = 1
    kind: Literal["square"] = "square"


@dataclass(frozen=True)
class Part:
    name: str
    count: int = 0


@dataclass(frozen=True)
class Whole:
    shape: Circle | Square
    parts: tuple[Part, ...] = ()
    pair: tuple[int, float] = (0, 0.0)
    sizes: list[float] = field(default_factory=list)
    notes: dict[str, Part] = field(default_factory=dict)
    limit: float | None = None
    word: int | str = 0
    mode: Literal["fast", "exact"] = "fast"
    on: bool = False
    free: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise ConfigError(f"limit must be 0 or more, not {self.limit}.")


TEXTS = st.text(max_size=5)
FLOATS = st.floats(allow_nan=False)
PARTS = st.builds(Part, TEXTS, st.integers())
WHOLES = st.builds(
    Whole,
    shape=st.builds(Circle, FLOATS) | st.builds(Square, st.integers()),
    parts=st.lists(PARTS, max_size=2).map(tuple),
    pair=st.tuples(st.integers(), FLOATS),
    sizes=st.lists(FLOATS, max_size=2),
    notes=st.dictionaries(TEXTS, PARTS, max_size=2),
    limit=st.none() | st.floats(0, 9),
    word=st.integers() | TEXTS,
    mode=st.sampled_from(["fast", "exact"]),
    on=st.booleans(),
    free=st.dictionaries(TEXTS, st.none() | st.integers() | TEXTS, max_size=2),
)


@settings(max_examples=40, deadline=None)
@given(WHOLES)
def test_any_value_survives_plain_data_and_json(whole: Whole) -> None:
    plain = to_dict(whole)
    assert json.loads(json.dumps(plain)) == plain  # lists all the way down, no tuples
    assert from_dict(Whole, plain) == whole


def test_plain_values_become_the_annotated_types() -> None:
    whole = from_dict(
        Whole,
        {
            "shape": {"kind": "circle", "radius": 2},
            "parts": [{"name": "a"}, Part("b", 3)],
            "pair": [1, 2],
            "sizes": (1, "1e-4"),
            "limit": "2.5",
        },
    )
    assert whole.shape == Circle(2.0) and isinstance(whole.shape.radius, float)  # type: ignore[union-attr]
    assert whole.parts == (Part("a"), Part("b", 3))
    assert whole.pair == (1, 2.0) and isinstance(whole.pair[1], float)
    assert whole.sizes == [1.0, 1e-4] and isinstance(whole.sizes[0], float)
    assert whole.limit == 2.5


BAD: list[tuple[dict[str, Any], str]] = [
    ({"shape": {}, "sized": 1}, "thing has no key 'sized'; did you mean 'sizes'?"),
    ({}, "thing needs the key 'shape'; add it."),
    ({"shape": 3}, "thing.shape must be a mapping of keys to values, not 3."),
    ({"shape": {"side": 1}}, "thing.shape.kind cannot be 'None'"),
    ({"shape": {"kind": "squaer"}}, "thing.shape.kind cannot be 'squaer'; did you mean 'square'?"),
    ({"shape": {"kind": "circle"}}, "thing.shape needs the key 'radius'"),
    ({"shape": {"kind": "square", "side": "1"}}, "thing.shape.side must be of type int, not '1'."),
    ({"shape": {"kind": "square", "side": 1.0}}, "thing.shape.side must be of type int, not 1.0."),
    ({"shape": {"kind": "square", "side": True}}, "thing.shape.side must be of type int"),
    ({"shape": {"kind": "circle", "radius": True}}, "thing.shape.radius must be of type float"),
    ({"shape": {"kind": "circle", "radius": "far"}}, "thing.shape.radius must be of type float"),
    ({"shape": {"kind": "circle", "radius": 10**400}}, "thing.shape.radius"),
    ({"parts": "ab"}, "thing.parts must be a list, not 'ab'."),
    ({"parts": [{"name": "a"}, {"name": 1}]}, "thing.parts[1].name must be of type str, not 1."),
    ({"parts": {"name": "a"}}, "thing.parts must be a list"),
    ({"pair": [1, 2, 3]}, "thing.pair must hold 2 values, not 3."),
    ({"pair": [1.5, 2]}, "thing.pair[0] must be of type int"),
    ({"notes": [1]}, "thing.notes must be a mapping, not [1]."),
    ({"notes": {"x": {"name": "a", "counts": 1}}}, "thing.notes.x has no key 'counts'"),
    ({"mode": "fats"}, "thing.mode cannot be 'fats'; did you mean 'fast'?"),
    ({"mode": 7}, "thing.mode cannot be 7; known are: fast, exact."),
    ({"mode": ["fast"]}, "thing.mode cannot be ['fast']"),
    ({"on": 1}, "thing.on must be of type bool, not 1."),
    ({"on": "yes"}, "thing.on must be of type bool, not 'yes'."),
    ({"word": 1.5}, "thing.word must be of type int, not 1.5."),
    ({"word": None}, "thing.word must be of type int, not None."),
    ({"limit": -1}, "limit must be 0 or more, not -1.0."),
]


@pytest.mark.parametrize(("data", "message"), BAD)
def test_what_does_not_fit_is_one_sentence_with_its_place(data: Any, message: str) -> None:
    whole = {"shape": Square(), **data} if data else {}
    with pytest.raises(ConfigError) as caught:
        from_dict(Whole, whole, "thing")
    told = str(caught.value)
    assert told.startswith(message) and "\n" not in told and told.endswith((".", "?"))


@pytest.mark.parametrize("data", [None, 3, "shape", [("shape", Square())]])
def test_only_a_mapping_is_a_configuration(data: object) -> None:
    with pytest.raises(ConfigError, match="must be a mapping of keys to values"):
        from_dict(Whole, data)


def _unified() -> UnifiedConfig:
    units = (Unit("token", "raster", "shift"), Unit("any", "random", "self", 0.5))
    return UnifiedConfig(BackboneConfig(kv_heads=4), 50, 12, 40, 5, (1, 4, 4), units)


@pytest.mark.parametrize(
    "config",
    [
        BackboneConfig(),
        _unified(),
        *(ConvTokenizerConfig(kind()) for kind in (VQConfig, FSQConfig, LFQConfig, IBQConfig)),
        PipelineInfo(1, "x", 64, SamplingDefaults(unit="token"), "CC0", {"steps": 3}),
        TokenizerRecipe(
            TrainConfig(3, "out"), DataConfig("data", None), ConvTokenizerConfig(FSQConfig())
        ),
        GeneratorRecipe(TrainConfig(3, "out"), DataConfig("data", "val"), "tokenizer"),
    ],
    ids=lambda config: type(config).__name__,
)
def test_our_configurations_survive_json(config: Any) -> None:
    plain = json.loads(json.dumps(to_dict(config)))
    assert from_dict(type(config), plain) == config


def test_shipped_recipes_fit_their_tasks() -> None:
    kinds = {"tokenizer": TokenizerRecipe, "generator": GeneratorRecipe}
    names = shipped_recipes()
    assert len(names) >= 2
    for name in names:
        recipe: Any = load_recipe(name, kinds[read_recipe(name)["task"]])
        assert recipe.train.out.startswith("runs/")
