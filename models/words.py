"""Conditions without a table of their own: words that share one vocabulary with the codes, or none.

The vocabulary is `codes | starts | words`: one table and one head for all, so a head may also say a
start or a word. NBP (arXiv 2502.07737) conditions its videos so. Spec: nbp.md 3.2, 3.3.

Shapes: B batch, T condition rows, W width, V ids of the vocabulary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.errors import ConfigError, UserError, suggestion
from mmgen.models.rows import Embedded

if TYPE_CHECKING:
    from mmgen.models.conditions import Given


@dataclass(frozen=True)
class WordConfig:
    """Words, or class labels, as ids behind the codes. Words see each other, the rest sees them.

    Args:
        kind: which condition this is.
        words: number of words, or of classes.
        count: words of every condition.
        starts: ids of learned tokens between codes and words; the first is the begin token, number
            i is learned token i of a plan.
        begin: the begin token stands between the words and the picture.
        late_word: a word that only rows behind it see. (NBP's mask looks for pads among ids that
            are shifted already; with blocks of one token it does hit the pad.)
        unseen_word: a word that no row sees. (The same where NBP has no begin token.)
        texts: what is known by name, as words, in the order of class labels: without a tokenizer
            nothing else can be asked for.
    """

    kind: Literal["words"] = "words"
    words: int = 32000
    count: int = 8
    starts: int = 1
    begin: bool = True
    late_word: int | None = None
    unseen_word: int | None = None
    texts: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a vocabulary without words."""
        if min(self.words, self.count) < 1 or self.starts < self.begin:
            raise ConfigError(
                f"A condition needs words, count and starts of at least 1, not {self.words}, "
                f"{self.count} and {self.starts}."
            )

    @property
    def rows(self) -> int:
        """T."""
        return self.count + self.begin

    @property
    def extra_ids(self) -> int:
        """Ids of the vocabulary that are no codes."""
        return self.starts + self.words

    def words_of(self, subject: str | int) -> tuple[int, ...]:
        """The words of a text that is known by name, or of a class label.

        Raises:
            UserError: there is no such class, or the text is not known.
        """
        if isinstance(subject, str):
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", subject.strip()).lower()  # ApplyEyeMakeup
            if name not in self.texts:
                near = suggestion(name, self.texts) if self.texts else "; give class labels."
                raise UserError(f"These weights know no '{subject}'{near}")
            return self.texts[name]
        labels = len(self.texts) or (self.words if self.count == 1 else 0)
        if not 0 <= subject < labels:
            raise UserError(f"There is no class {subject}; give labels from 0 to {labels - 1}.")
        return list(self.texts.values())[subject] if self.texts else (subject,)


@dataclass(frozen=True)
class NothingConfig:
    """No condition: a picture or clip goes on from what is given of it."""

    kind: Literal["nothing"] = "nothing"

    @property
    def rows(self) -> int:
        """T."""
        return 0

    @property
    def extra_ids(self) -> int:
        """Ids of the vocabulary that are no codes."""
        return 0


class Words(NamedTuple):
    """Conditions as words: `ids` (B, count) long from 0; `dropped` (B,) bool, null rows instead."""

    ids: Tensor
    dropped: Tensor


class WordCondition(nn.Module):
    """Rows of words; the null condition has a row of its own for each word's place."""

    null_rows: Tensor

    def __init__(self, config: WordConfig, width: int) -> None:
        super().__init__()
        self.config = config
        # Drawn once and never trained, so it must travel with the weights.
        self.register_buffer("null_rows", torch.randn(config.count, width) * width**-0.5)

    def forward(self, given: Given, table: Tensor) -> Embedded:
        """Words to rows, the begin token behind them.

        Args:
            given: words (B, count), labels (B,), or `Words`.
            table: (V, W) of the whole vocabulary.

        Raises:
            ConfigError: another number of words, or words that do not exist.
        """
        config, words = self.config, self._checked(given)
        x = F.embedding(words.ids + len(table) - config.words, table)
        x = torch.where(words.dropped[:, None, None], self.null_rows.to(x.dtype), x)
        valid, blind = self._visibility(words.ids)
        block = torch.zeros(config.count, dtype=torch.long, device=x.device)
        if not config.begin:
            return Embedded(x, valid, block, blind)
        begin = table[len(table) - config.extra_ids].expand(len(x), 1, -1)
        return Embedded(
            torch.cat([x, begin], dim=1),
            F.pad(valid, (0, 1), value=True),
            F.pad(block, (0, 1), value=1),
            None if blind is None else F.pad(blind, (0, 1, 0, 1)),
        )

    def null(self, given: Given) -> Given:
        """The same words dropped; whoever sees them stays as it was."""
        ids = self._checked(given).ids
        return Words(ids, torch.ones(len(ids), dtype=torch.bool, device=ids.device))

    def _checked(self, given: Given) -> Words:
        if isinstance(given, Tensor):
            ids = given if given.ndim > 1 else given[:, None]
            given = Words(ids, torch.zeros(len(ids), dtype=torch.bool, device=ids.device))
        if not isinstance(given, Words):
            raise ConfigError("These weights read words or labels; give their ids, no features.")
        if given.ids.shape[1] != self.config.count:
            raise ConfigError(
                f"A condition of these weights has {self.config.count} ids, "
                f"not {given.ids.shape[1]}; pad or cut it."
            )
        wrong = given.ids[(given.ids < 0) | (given.ids >= self.config.words)]
        if len(wrong):
            raise ConfigError(
                f"There is no word or class {int(wrong[0])}; give 0 to {self.config.words - 1}."
            )
        return given

    def _visibility(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Which words are seen at all, (B, count), and where not, (B, count, count)."""
        late, unseen = self.config.late_word, self.config.unseen_word
        valid = torch.ones_like(ids).bool() if unseen is None else ids != unseen
        if late is None:
            return valid, None
        ahead = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
        return valid, ahead & (ids == late)[:, None]


class NoCondition(nn.Module):
    """No rows; what is given is an empty tensor (B, 0), which says how many pictures there are."""

    no_rows: Tensor

    def __init__(self, config: NothingConfig, width: int) -> None:
        super().__init__()
        self.config = config
        # No rows, but on the device and of the type of the weights.
        self.register_buffer("no_rows", torch.zeros(0, width), persistent=False)

    def forward(self, given: Given) -> Embedded:
        """(B, 0) to rows (B, 0, W).

        Raises:
            ConfigError: there is a condition.
        """
        if not isinstance(given, Tensor) or given.shape[1:] != (0,):
            raise ConfigError("These weights take no condition; give frames to go on from.")
        x = self.no_rows.expand(len(given), -1, -1)
        return Embedded(x, torch.ones(len(given), 0, dtype=torch.bool, device=x.device))

    def null(self, given: Given) -> Given:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("These weights have no condition to be guided by; leave guidance off.")
