"""Class tables of LlamaGen's descendants: their null row, and guidance where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmgen.errors import ConfigError
from mmgen.models.conditions import ClassConfig, ConditionConfig
from mmgen.pipeline_folder import SamplingDefaults


def classes_of(rows: int, options: Mapping[str, Any], name: str) -> int:
    """Classes of a table, which has a null row only if labels were dropped in training.

    Args:
        rows: of the table.
        options: what the user said.
        name: of the option that counts the classes.

    Raises:
        ConfigError: `class_dropout_prob` is no share of the labels.
    """
    said, dropped = options.get(name), options.get("class_dropout_prob")
    number = isinstance(dropped, (int, float)) and not isinstance(dropped, bool)
    if dropped is not None and not (number and 0 <= dropped <= 1):
        raise ConfigError(f"class_dropout_prob must be a number from 0 to 1, not {dropped!r}.")
    bare = not dropped if said == rows else dropped == 0 and said != rows - 1
    return rows if bare else rows - 1


def table_condition(rows: int, classes: int) -> ClassConfig:
    """The condition of a table that has so many rows for so many classes."""
    return ClassConfig(classes=classes, null=rows > classes)


def guidable(sampling: SamplingDefaults, condition: ConditionConfig) -> SamplingDefaults:
    """The published settings, without guidance where there is no null class to be guided by."""
    if isinstance(condition, ClassConfig) and not condition.null:
        return replace(sampling, guidance_scale=1.0)
    return sampling


def null_notes(condition: ConditionConfig) -> tuple[str, ...]:
    """What to tell the user of a table without a null row."""
    if isinstance(condition, ClassConfig) and not condition.null:
        return (f"{condition.classes} classes and no null class, so no guidance",)
    return ()
