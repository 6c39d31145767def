"""What a picture is conditioned on, as rows before it: a class label, or features of a caption.

A condition has a null twin, the unconditional branch of guidance. Features are padded on the left,
so that the last row, which predicts the first token, is the caption's last word.

Shapes: B batch, T rows, W width, C channels of a feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.config import later
from mmgen.errors import ConfigError
from mmgen.models.rows import Embedded
from mmgen.models.words import NoCondition, NothingConfig, WordCondition, WordConfig, Words


@dataclass(frozen=True)
class ClassConfig:
    """A label becomes one row.

    Args:
        kind: which condition this is.
        classes: labels are 0 .. classes - 1.
        null: one more row of the table is the null class; without it nothing can be guided.
    """

    kind: Literal["class"] = "class"
    classes: int = 1000
    null: bool = later(True)

    def __post_init__(self) -> None:
        """Refuse a table without classes."""
        if self.classes < 1:
            raise ConfigError(f"There must be one class or more, not {self.classes}.")

    @property
    def rows(self) -> int:
        """T."""
        return 1

    @property
    def extra_ids(self) -> int:
        """Ids of the codes' vocabulary that are no codes."""
        return 0


@dataclass(frozen=True)
class FeatureConfig:
    """Features of a text encoder become one row each, through a small MLP.

    Args:
        kind: which condition this is.
        channels: C.
        rows: T, of every caption; shorter ones are padded on the left.
    """

    kind: Literal["features"] = "features"
    channels: int = 2048
    rows: int = 120

    @property
    def extra_ids(self) -> int:
        """Ids of the codes' vocabulary that are no codes."""
        return 0


class Features(NamedTuple):
    """Captions as features: `values` (B, T, C), `valid` (B, T) bool, padding on the left."""

    values: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> Features:
        """The same on another device."""
        return Features(self.values.to(device), self.valid.to(device))


#: What a caller passes: labels (B,) long, features, words (B, n) long, or an empty tensor (B, 0).
Given = Tensor | Features | Words
ConditionConfig = ClassConfig | FeatureConfig | WordConfig | NothingConfig


class ClassCondition(nn.Module):
    """A table of classes, the null class last if there is one."""

    def __init__(self, config: ClassConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.classes + config.null, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, labels: Given) -> Embedded:
        """Labels (B,) long to rows.

        Raises:
            ConfigError: a label that is no class, or no labels.
        """
        labels = self._checked(labels)
        x = self.table(labels)[:, None]
        return Embedded(x, torch.ones(len(labels), 1, dtype=torch.bool, device=labels.device))

    def null(self, labels: Given) -> Given:
        """The null class in the shape of `labels`.

        Raises:
            ConfigError: there is none.
        """
        if not self.config.null:
            raise ConfigError(
                "These weights have no null class to be guided by; leave guidance off (scale 1)."
            )
        return torch.full_like(self._checked(labels), self.config.classes)

    def _checked(self, labels: Given) -> Tensor:
        if not isinstance(labels, Tensor):
            raise ConfigError("These weights draw classes; give class labels, not text.")
        classes, null = self.config.classes, self.config.null
        wrong = labels[(labels < 0) | (labels >= classes + null)]
        if len(wrong):
            more = f" ({classes} is the null class)" if null else ""
            raise ConfigError(
                f"Class {int(wrong[0])} is unknown; give labels from 0 to {classes - 1}{more}."
            )
        return labels


class FeatureCondition(nn.Module):
    """An MLP over features; the null condition is a fixed block of features."""

    null_values: Tensor

    def __init__(self, config: FeatureConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.inner = nn.Linear(config.channels, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        # Drawn once and never trained, so it must travel with the weights.
        drawn = torch.randn(config.rows, config.channels) * config.channels**-0.5
        self.register_buffer("null_values", drawn)  # (T, C)

    def forward(self, features: Given) -> Embedded:
        """Features to rows; padded ones become zero vectors.

        Raises:
            ConfigError: features of another shape, or none.
        """
        features = self._checked(features)
        values = features.values.to(self.inner.weight.dtype)
        x = self.out(F.gelu(self.inner(values), approximate="tanh"))
        return Embedded(x, features.valid)

    def null(self, features: Given) -> Given:
        """The null block at every place; it sees what its caption sees, so the padding stays."""
        features = self._checked(features)
        return Features(self.null_values.expand(len(features.values), -1, -1), features.valid)

    def _checked(self, features: Given) -> Features:
        if not isinstance(features, Features):
            raise ConfigError("These weights draw captions; give text features, not class labels.")
        expected = (self.config.rows, self.config.channels)
        if tuple(features.values.shape[1:]) != expected:
            raise ConfigError(
                f"Text features have shape {tuple(features.values.shape[1:])}, but the transformer "
                f"was trained on {expected}; use the text encoder that belongs to it."
            )
        return features


def pad_left(values: Tensor, valid: Tensor) -> Features:
    """Move padding from the right to the left, and set it to zero.

    Args:
        values: (B, T, C), the text encoder's output.
        valid: (B, T) bool or 0/1, ones first.
    """
    mask = valid.bool().flip(1)
    length = valid.long().sum(1, keepdim=True)
    places = (torch.arange(values.shape[1], device=values.device) + length) % values.shape[1]
    rolled = values.gather(1, places[..., None].expand_as(values))
    return Features(rolled * mask[..., None], mask)


def make_condition(
    config: ConditionConfig, width: int
) -> ClassCondition | FeatureCondition | WordCondition | NoCondition:
    """The condition of a configuration."""
    match config:
        case ClassConfig():
            return ClassCondition(config, width)
        case FeatureConfig():
            return FeatureCondition(config, width)
        case WordConfig():
            return WordCondition(config, width)
        case NothingConfig():
            return NoCondition(config, width)
