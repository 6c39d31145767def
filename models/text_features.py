"""Features of prompts for published text-to-image weights: what a T5 encoder says about each word.

`transformers` is imported when an encoder is loaded, not before. The encoder's output is padded on
the right; the transformers of LlamaGen and NAR want it on the left (specs/nar.md 2.5).

Shapes: B texts, T words, C channels.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch

from mmgen.errors import CheckpointError, UserError
from mmgen.models.caption_cleaning import clean_caption
from mmgen.models.conditions import Features, pad_left

LENGTH = 120  # words of every caption, as the published weights were trained


class TextEncoder:
    """A T5 encoder with its tokenizer.

    Args:
        tokenizer: of `transformers`.
        encoder: a `T5EncoderModel`.
        length: T.
    """

    def __init__(self, tokenizer: Any, encoder: Any, length: int = LENGTH) -> None:
        self.tokenizer, self.encoder, self.length = tokenizer, encoder.eval(), length

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, dtype: torch.dtype = torch.bfloat16
    ) -> TextEncoder:
        """Load tokenizer and encoder.

        Args:
            name_or_folder: a folder, or a name of the Hugging Face hub such as
                "google/flan-t5-xl".
            dtype: of the weights; the published features were made in bfloat16.

        Raises:
            UserError: `transformers` is not installed.
            CheckpointError: there is no such encoder.
        """
        try:
            transformers: Any = importlib.import_module("transformers")
        except ImportError:
            raise UserError(
                'Text features need transformers; run: pip install "mmgen-ar[text]".'
            ) from None
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name_or_folder)
            encoder = transformers.T5EncoderModel.from_pretrained(name_or_folder, dtype=dtype)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"{name_or_folder} holds no T5 text encoder ({reason}); give the folder of one."
            ) from None
        return cls(tokenizer, encoder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer and encoder to `folder`."""
        self.tokenizer.save_pretrained(folder)
        self.encoder.save_pretrained(folder)

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move the encoder."""
        self.encoder.to(device)
        return self

    @property
    def channels(self) -> int:
        """C."""
        return int(self.encoder.config.d_model)

    @property
    def fingerprint(self) -> str:
        """Hash of the weights (first 16 hexadecimal digits of SHA-256)."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def part_read(self, text: str) -> str | None:
        """The part of a text that fits; None if all of it does."""
        ids = self.tokenizer(clean_caption(text))["input_ids"]
        if len(ids) <= self.length:
            return None
        return str(self.tokenizer.decode(ids[: self.length - 1], skip_special_tokens=True))

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Features:
        """Features of `texts`, cleaned as the published captions were; padded on the left."""
        words = self.tokenizer(
            [clean_caption(text) for text in texts],
            max_length=self.length,
            padding="max_length",
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, mask = words["input_ids"].to(self.encoder.device), words["attention_mask"]
        said = self.encoder(input_ids=ids, attention_mask=mask.to(ids.device)).last_hidden_state
        return pad_left(said, mask.to(said.device))
