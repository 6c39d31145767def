"""Typed configuration: frozen dataclasses from plain data, checked, unknown keys refused.

`from_dict` is the only door between JSON, YAML or `key=value` words and our dataclasses. It
knows nested dataclasses, `X | None`, literals, tuples, lists, dicts and scalars.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from mmgen.errors import ConfigError, suggestion

T = TypeVar("T")


def from_dict(kind: type[T], data: Any, where: str = "configuration") -> T:
    """Build the dataclass `kind` from a dict, checking every key and every value.

    Args:
        kind: a dataclass.
        data: a mapping of its field names to plain values.
        where: what to call the mapping in error messages; "": its keys go by their own names.

    Raises:
        ConfigError: an unknown key (with a suggestion), a missing key, or a value of another type.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{where or 'this'} must be a mapping of keys to values, not {data!r}.")
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ConfigError(
                f"{where or 'The recipe'} has no key '{key}'{suggestion(str(key), fields)}"
            )
    hints = typing.get_type_hints(kind)
    missing = [f.name for f in fields.values() if f.name not in data and _required(f)]
    if missing:
        raise ConfigError(f"{where or 'The recipe'} needs the key '{missing[0]}'; add it.")
    inside = f"{where}." if where else ""
    values = {key: convert(hints[key], value, f"{inside}{key}") for key, value in data.items()}
    return kind(**values)


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass as plain data (tuples become lists) that `from_dict` reads back."""
    return typing.cast(dict[str, Any], _plain(config))


def later(default: T) -> T:
    """Return the field of an option that a published configuration class gained later.

    At its default it does not count in `mmgen.saving.Saved.hash_of_weights`, so that networks from
    before keep their fingerprint.
    """
    field: Any = dataclasses.field(default=default, metadata={"later": True})
    return typing.cast(T, field)


def without_later(config: Any) -> dict[str, Any]:
    """Return a dataclass as plain data without the `later` options that stand at their default."""
    return typing.cast(dict[str, Any], _plain(config, all_fields=False))


def convert(kind: Any, value: Any, where: str) -> Any:
    """Check `value` against the annotation `kind` and return it in that type.

    Raises:
        ConfigError: it does not fit.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(kind), value, where)
    if origin is Literal:
        if value in get_args(kind):
            return value
        hint = suggestion(str(value), [str(option) for option in get_args(kind)])
        raise ConfigError(f"{where} cannot be {value!r}{hint}")
    if dataclasses.is_dataclass(kind):
        if isinstance(value, kind):  # type: ignore[arg-type]
            return value
        return from_dict(typing.cast(type, kind), value, where)
    if origin in (tuple, list):
        return _convert_sequence(origin, get_args(kind), value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a mapping, not {value!r}.")
        inner = get_args(kind)[1]
        return {key: convert(inner, item, f"{where}.{key}") for key, item in value.items()}
    return _convert_scalar(kind, value, where)


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    kinds = {k: option for option in options if (k := _kind_of(option)) is not None}
    if isinstance(value, dict) and len(kinds) > 1:
        kind = str(value.get("kind"))
        if kind not in kinds:
            raise ConfigError(f"{where}.kind cannot be '{kind}'{suggestion(kind, kinds)}")
        return convert(kinds[kind], value, where)
    if isinstance(value, dict):  # the dataclass that knows most of the keys
        options = tuple(sorted(options, key=lambda option: _unknown(option, value)))
    errors = []
    for option in options:
        if option is not type(None):
            try:
                return convert(option, value, where)
            except ConfigError as error:
                errors.append(error)
    raise errors[0]


def _unknown(option: Any, value: dict[str, Any]) -> int:
    """How many keys a dataclass does not know; other options come last."""
    if not dataclasses.is_dataclass(option):
        return len(value) + 1
    return len(set(value) - {item.name for item in dataclasses.fields(option)})


def _kind_of(option: Any) -> str | None:
    """The default of a dataclass's field `kind`, by which it is told from its siblings."""
    if not dataclasses.is_dataclass(option):
        return None
    for item in dataclasses.fields(option):
        if item.name == "kind" and isinstance(item.default, str):
            return item.default
    return None


def _convert_sequence(origin: type, inner: tuple[Any, ...], value: Any, where: str) -> Any:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} must be a list, not {value!r}.")
    if origin is tuple and not (len(inner) == 2 and inner[1] is Ellipsis):
        if len(inner) != len(value):
            raise ConfigError(f"{where} must hold {len(inner)} values, not {len(value)}.")
        kinds: typing.Sequence[Any] = inner
    else:
        kinds = [inner[0]] * len(value)
    items = [convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value))]
    return origin(items)


def _convert_scalar(kind: Any, value: Any, where: str) -> Any:
    # YAML reads 1e-4 as text; some integers are larger than any float.
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    confused = kind is int and isinstance(value, bool)
    if isinstance(kind, type) and isinstance(value, kind) and not confused:
        return value
    name = getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{where} must be of type {name}, not {value!r}.")


def _required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _plain(value: Any, all_fields: bool = True) -> Any:
    if dataclasses.is_dataclass(value):
        own = {f: getattr(value, f.name) for f in dataclasses.fields(value)}
        kept = {f: v for f, v in own.items() if all_fields or not _unused(f, v)}
        return {f.name: _plain(v, all_fields) for f, v in kept.items()}
    if isinstance(value, dict):
        return {key: _plain(item, all_fields) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, all_fields) for item in value]
    return value


def _unused(field: dataclasses.Field[Any], value: Any) -> bool:
    return bool(field.metadata.get("later")) and bool(value == field.default)
