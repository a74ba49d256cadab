"""Texts folded to one form, and patterns that are tried only where a hint of them stands in the text."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

FOLDED: dict[int, str | None] = {
    ord(mark): None for mark in "\u0640\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652\u093c\u0307"
}
FOLDED |= {ord(alef): "\u0627" for alef in "\u0623\u0625\u0622\u0671"}
FOLDED |= {ord(mark): "'" for mark in "\u2018\u2019\u02bc"}
FOLDED |= {wide: chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)}  # full width, as written between Han
FOLDED |= {ord(mark): '"' for mark in "\u201c\u201d\u201e\u00ab\u00bb"}


def fold(text: str) -> str:
    """Lower case, one form of every letter, one blank between words; no marks of Arabic vowels, no nukta of Hindi.

    >>> fold("  Ich KANN\\n\u2019s"), fold("\u0639\u0630\u0631\u064b\u0627")
    ("ich kann 's", '\u0639\u0630\u0631\u0627')
    """
    text = text.casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).translate(FOLDED).casefold()
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Rules:
    """Patterns over folded text, one of whose hints stands in every text that they match."""

    hints: tuple[str, ...]
    pattern: re.Pattern[str]

    def match(self, text: str) -> bool:
        return any(hint in text for hint in self.hints) and self.pattern.search(text) is not None


def rules(hints: str, *patterns: str) -> Rules:
    """``hints`` are divided by ``|``; both are folded as texts are."""
    folded = (unicodedata.normalize("NFC", one).translate(FOLDED) for one in patterns)
    return Rules(tuple(fold(f"^{one}^")[1:-1] for one in hints.split("|")), re.compile("|".join(folded)))
