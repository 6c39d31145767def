"""The one form of text that models see: captions and prompts pass through here alike."""

from __future__ import annotations

import unicodedata

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u201b\u02bc", "'"))


def normalize(text: str) -> str:
    """Return `text` in NFKC, lower case, with straight apostrophes and single spaces.

    Captions and prompts pass through here alike. Applying it twice changes nothing.
    """
    # Lower-casing can leave decomposed letters and NFKC can make capitals, so NFKC frames it.
    lowered = unicodedata.normalize("NFKC", text).lower()
    composed = unicodedata.normalize("NFKC", lowered).translate(_APOSTROPHES)
    return " ".join(composed.split())
