"""Recipes: a YAML file plus `key.sub=value` overrides, checked by typed dataclasses.

The YAML is read with the scalars of YAML 1.2 (`no` is a word and `1e-4` a number, not the other
way round as in PyYAML's 1.1), and a key that stands twice is an error instead of a silent winner.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib.resources
import json
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml

from mmgen.config import from_dict, to_dict
from mmgen.errors import ConfigError, suggestion

T = TypeVar("T")

RECIPES = "recipes"  # the folder of those that come with the package


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop (`mmgen.train.loop`).

    Attributes:
        steps: optimiser steps of the whole run.
        out: run folder (log, previews, checkpoints, final product).
        batch_size: samples in one batch of the task.
        accumulation: batches whose gradients are averaged into one step.
        optimizer: "adamw", or "muon": Muon for the weights of linear layers and convolutions,
            AdamW for the others.
        learning_rate: peak learning rate of the optimiser.
        min_learning_rate: where the cosine ends.
        warmup_steps: steps of linear warm-up from zero.
        cooldown: shape of the learning rate after the warm-up.
        betas: decay rates of AdamW's two moments; the first is that of Muon's momentum too.
        weight_decay: decoupled weight decay of tensors with two or more axes.
        clip_norm: largest gradient norm of a network; none: no clipping.
        mixed_precision: type of automatic mixed precision.
        compile: compile the transformer's blocks at the start; a minute or two, then faster steps.
        ema_decay: decay of the averaged weights that evaluation, previews and export use.
        seed: seed of everything random in the run.
        log_every: steps between lines of the log.
        eval_every: steps between evaluations; 0: never.
        preview_every: steps between previews; 0: never.
        save_every: steps between checkpoints.
        keep_last: number of checkpoints kept.
        threads: threads of one CPU operation; none: PyTorch's choice.
        trackers: names of trackers of accelerate that also get the log.
    """

    # What may change between two commands on one run folder: how long, how reported, how fast.
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"steps", "log_every", "eval_every", "preview_every", "save_every", "keep_last", "threads"}
        | {"trackers", "out"}
    )

    steps: int
    out: str
    batch_size: int = 32
    accumulation: int = 1
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-4
    min_learning_rate: float = 0.0
    warmup_steps: int = 100
    cooldown: Literal["cosine", "constant"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip_norm: float | None = 1.0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    ema_decay: float = 0.999
    seed: int = 0
    log_every: int = 10
    eval_every: int = 500
    preview_every: int = 500
    save_every: int = 500
    keep_last: int = 2
    threads: int | None = None
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "log_every", "save_every", "keep_last"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("warmup_steps", "eval_every", "preview_every", "weight_decay", "seed"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        self._require("threads", self.threads is None or self.threads >= 1, "at least 1")
        self._require("clip_norm", self.clip_norm is None or self.clip_norm > 0, "above 0")
        self._require("learning_rate", 0 < self.learning_rate < float("inf"), "above 0")
        low = 0 <= self.min_learning_rate <= self.learning_rate
        self._require("min_learning_rate", low, "between 0 and learning_rate")
        self._require("betas", all(0 <= b < 1 for b in self.betas), "in [0, 1)")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        self._require("out", bool(self.out.strip()), "the name of a folder")

    def _require(self, name: str, good: bool, what: str) -> None:
        if not good:
            raise ConfigError(f"{name} must be {what}, not {getattr(self, name)!r}.")


def load_recipe(source: str | Path, kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a recipe, apply the overrides and check it.

    Args:
        source: path of a YAML file, or the name of a shipped recipe.
        kind: the dataclass that the recipe must fit.
        overrides: words `key=value` or `key.sub=value`; the value is read as YAML.

    Raises:
        ConfigError: no such recipe, bad YAML, an unknown key or a value of another type.
    """
    return from_dict(kind, read_recipe(source, overrides), f"recipe {source}")


def read_recipe(
    source: str | Path, overrides: Sequence[str] = (), shelf: str = RECIPES
) -> dict[str, Any]:
    """Read a recipe as plain data, with the overrides applied.

    Args:
        source: as in `load_recipe`, like `overrides`.
        overrides: words `key=value` or `key.sub=value`.
        shelf: folder of the shipped ones; they are called by its name.
    """
    what = f"{shelf.removesuffix('s')} {source}"
    read = parse_yaml(_text_of(source, shelf), what)
    if read is not None and not isinstance(read, dict):
        raise ConfigError(f"{what} must be a mapping of keys to values, not {read!r}.")
    data: dict[str, Any] = read or {}
    for word in overrides:
        data = override(data, word)
    return data


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return shipped(RECIPES)


def shipped(shelf: str) -> list[str]:
    """Return the names of the YAML files in a folder of this package, such as `recipes`."""
    folder = importlib.resources.files("mmgen.train") / shelf
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def override(data: dict[str, Any], word: str) -> dict[str, Any]:
    """Return a copy of `data` in which the word `key.sub=value` is carried out.

    Raises:
        ConfigError: the word has no key or no `=`, its value is not YAML, or its key leads through
            something that is not a mapping.
    """
    path, equals, text = word.partition("=")
    if not equals or not all(path.strip().split(".")):
        raise ConfigError(f"'{word}' is not an override; write key=value or key.sub=value.")
    value = parse_yaml(text, f"the value of '{word}'")
    return changed(data, path.strip(), value, word)


def changed(data: dict[str, Any], path: str, value: Any, word: str | None = None) -> dict[str, Any]:
    """Return a copy of `data` with another value at the path `key.sub`.

    Args:
        data: nested mappings.
        path: keys with dots between them.
        value: what stands there then.
        word: what to call the change in error messages; default: the path.

    Raises:
        ConfigError: the path leads through something that is not a mapping.
    """
    keys, word = path.split("."), word or path
    result = copy.deepcopy(data)
    place = result
    for depth, key in enumerate(keys[:-1], start=1):
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise ConfigError(f"'{word}': {'.'.join(keys[:depth])} is not a mapping of keys.")
    place[keys[-1]] = value
    return result


def parse_yaml(text: str, where: str) -> Any:
    """Read one YAML document (scalars of YAML 1.2, no tags, no key twice).

    Raises:
        ConfigError: one sentence with the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: {error.problem}; correct the YAML.") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{where} is not readable YAML ({reason}); correct it.") from None
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply; write it flatter.") from None


def dump(recipe: Any) -> str:
    """Return a recipe (dataclass) as YAML that `load_recipe` reads back to the same recipe."""
    text = yaml.dump(
        to_dict(recipe),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=100,
    )
    return str(text)


def fingerprint(recipe: Any) -> str:
    """Hash of everything in a recipe that shapes the result.

    Keys named in a dataclass's `FREE` do not count, nor do keys that have their default value, so
    that a key which a later version adds leaves running runs alone.
    """
    plain = json.dumps(_binding(recipe), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def difference(stored: Any, asked: Any) -> str | None:
    """Name the first binding key in which two recipes differ, with both values; else None."""
    old, new = flatten(_binding(stored)), flatten(_binding(asked))
    values = flatten(to_dict(stored)), flatten(to_dict(asked))
    for key in [*new, *old]:
        if (key in old, old.get(key)) != (key in new, new.get(key)):
            there, here = (value.get(key) for value in values)
            return f"{key} is {there!r} there and {here!r} here"
    return None


def _binding(value: Any) -> Any:
    """Plain data of a recipe without its free keys and its defaults."""
    if isinstance(value, (list, tuple)):
        return [_binding(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    kept = {}
    for item in dataclasses.fields(value):
        own = getattr(value, item.name)
        if item.name not in getattr(value, "FREE", ()) and own != _default(item):
            kept[item.name] = _binding(own)
    return kept


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default  # MISSING, which equals no value


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _text_of(source: str | Path, shelf: str) -> str:
    path, kind = Path(source), shelf.removesuffix("s")
    if not path.is_file():
        names = shipped(shelf)
        if str(source) not in names:
            known = suggestion(str(source), names) if names else "; give the path of a YAML file."
            raise ConfigError(f"There is no {kind} '{source}'{known}")
        file = importlib.resources.files("mmgen.train") / shelf / f"{source}.yaml"
        return file.read_text(encoding="utf-8")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{kind} {source} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{kind} {source} is not UTF-8 text; save it as UTF-8.") from None


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema of YAML 1.2, which refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key '{key.value}' stands twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes every word that YAML 1.1 or 1.2 would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML takes these for line breaks or drops them when they stand unescaped.
        style = '"' if set(data) & set("\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_CORE = {  # YAML 1.2.2, section 10.3.2
    "null": (r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    "int": (r"^(?:[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    "float": (
        r"^(?:[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|[0-9]+[eE][-+]?[0-9]+)|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    "merge": (r"^<<$", ["<"]),
}
_Dumper.add_representer(str, _Dumper.represent_str)
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _CORE.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), _first)
