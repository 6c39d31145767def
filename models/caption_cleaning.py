"""The caption cleaner that published text-to-image weights were trained behind (specs/nar.md 2.5).

Captions of the web hold links, markup, file names and broken encodings. The rules are applied in
the order below, and all of them twice, since one may bare what another one removes. Encodings are
mended first, since no other rule would know the letters.
"""

from __future__ import annotations

import html
import re
from urllib.parse import unquote_plus

Rules = tuple[tuple[re.Pattern[str], str], ...]

FILE_ENDINGS = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
DASHES = "\u058a\u05be\u2010-\u2015\u2212\u2e3a\u2e3b\u301c\u3030\ufe58\ufe63\uff0d"
CJK = "\u31c0-\u4dbf\u4e00-\u9fff"  # strokes, kana extensions, enclosed signs, ideographs


def _rules(*pairs: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), by) for pattern, by in pairs)


BEFORE = _rules(
    (r"\b(?:https?://|www\.)\S+", ""),  # links
    (r"\b[\w-]+(?:\.[\w-]+)*\.(?:com|net|org|edu|gov|co|ru|it)\b\S*", ""),
    (r"<[^<>]*>", ""),  # markup
    (r"@\w+", ""),  # names of accounts
    (f"[{CJK}]+", ""),
    (f"[{DASHES}]", "-"),
    ("[`´«»“”¨]", '"'),
    ("[‘’]", "'"),
    (r"\b\d{1,3}(?:\.\d{1,3}){3}\b", " "),  # addresses of machines
    (r"#\d+\b|\b\d{6,}\b", ""),  # numbers that only name something
    (rf"\S+\.(?:{FILE_ENDINGS})\b", ""),
    (r"[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+", " "),
)
AFTER = _rules(
    (r"\b(?=\w*\d)(?=\w*[a-z])(?!\d+(?:st|nd|rd|th|s|d)\b)[a-z\d]{4,}\b", ""),  # a1b2c3
    (r"\b(?:worldwide )?(?:free )?shipping\b", ""),
    (r"\b(?:free )?download(?: free)?\b", ""),
    (r"\bclick (?:for|on) \w+", ""),
    (rf"\b(?:{FILE_ENDINGS})(?: images?)?\b", ""),
    (r"\bpage \d+\b", ""),
    (r"\b\d+(?:\.\d+)?\s?[x×]\s?\d+(?:\.\d+)?\b", ""),  # sizes
    (r"\s+", " "),
    (r"^[\s\"'_,:;-]+|[\s\"'_,+-]+$", ""),
)
MANY_JOINTS = re.compile(r"\w+(?:[-_]\w+){4,}")  # names-of-files-without-an-ending


def clean_caption(text: str) -> str:
    """A caption as the published text encoders saw it, in lower case.

    Args:
        text: any text.
    """
    return _once(_once(text))


def _once(text: str) -> str:
    text = html.unescape(html.unescape(_without_mojibake(unquote_plus(text)))).lower()
    for pattern, by in BEFORE:
        text = pattern.sub(by, text)
    text = MANY_JOINTS.sub(lambda found: re.sub("[-_]", " ", found[0]), text)
    for pattern, by in AFTER:
        text = pattern.sub(by, text)
    return text.strip()


def _without_mojibake(text: str) -> str:
    """UTF-8 that was read as Windows-1252 or Latin-1, read again."""
    for encoding in ("cp1252", "latin-1"):
        try:
            return text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return text
