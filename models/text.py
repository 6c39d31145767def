"""Text to ids and back: a small byte-pair encoder, trained on the captions and kept with the model.

Captions and prompts pass through the same normalisation (`mmgen/words.py`), so
that what a user types meets what the model was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmgen.errors import CheckpointError
from mmgen.files import write_text
from mmgen.words import normalize

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
TEXT_FILE = "tokenizer.json"


class TextTokenizer:
    """Byte-pair encoding of captions; every text starts with `<bos>`.

    Args:
        tokenizer: an encoder of the `tokenizers` package whose first ids are `SPECIAL`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # A user who types "<eos>" means these five letters.
        self._tokenizer.encode_special_tokens = True

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 2048) -> TextTokenizer:
        """Learn merges from `texts`; frequent words become one token, any other text still fits."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        splitters: list[Any] = [
            pre_tokenizers.ByteLevel(add_prefix_space=True),  # first: it puts a space in front
            pre_tokenizers.Digits(individual_digits=True),
        ]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splitters)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((normalize(text) for text in texts), trainer)
        return cls(tokenizer)

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the ids (first 16 hexadecimal digits of SHA-256)."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()[:16]

    def ids(self, text: str, max_length: int) -> list[int]:
        """`<bos>` and the ids of one text, cut at `max_length`."""
        encoded = self._tokenizer.encode(normalize(text)).ids if text.strip() else []
        return [BOS, *encoded][:max_length]

    def encode(
        self, texts: list[str], max_length: int, *, end: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Encode a batch, padded on the right.

        Args:
            texts: B texts; an empty one is `<bos>` alone.
            max_length: T is at most this.
            end: close every text with `<eos>`.

        Returns:
            ids (B, T) long and valid (B, T) bool.
        """
        rows = [self.ids(text, max_length - end) + [EOS] * end for text in texts]
        length = max(len(row) for row in rows)
        ids = torch.full((len(rows), length), PAD)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids, torch.arange(length) < torch.tensor([[len(row)] for row in rows])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` up to the first `<eos>`."""
        kept: list[int] = []
        for token in ids:
            if token == EOS:
                break
            if token > UNK:
                kept.append(int(token))
        return str(self._tokenizer.decode(kept)).strip()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `tokenizer.json` to `folder`."""
        write_text(Path(folder) / TEXT_FILE, self._tokenizer.to_str(pretty=True))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> TextTokenizer:
        """Read `tokenizer.json` from `folder`.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        from tokenizers import Tokenizer

        path = Path(folder) / TEXT_FILE
        try:
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise CheckpointError(f"There is no file {path}; the model is incomplete.") from None
        except Exception as error:  # the package raises bare Exception for malformed files
            raise CheckpointError(f"{path} is damaged ({error}); copy it again.") from None
