"""Texts folded to one form, and patterns that are tried only where a hint of them stands in the text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantgate.manner.needles import Needles, divided, needles

RUN = 4
BITS = 16
SPREAD, HIGH = np.uint32(2654435769), np.uint32(32 - BITS)
COMMON = b" eaitnorslhducmpgfyb"  # the most common first; all others are rarer
FOLDED: dict[int, str | None] = {
    ord(mark): None for mark in "\u0640\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652\u093c\u0307"
}
FOLDED |= {ord(alef): "\u0627" for alef in "\u0623\u0625\u0622\u0671"}
FOLDED |= {ord(mark): "'" for mark in "\u2018\u2019\u02bc"}
FOLDED |= {wide: chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)}  # full width, as written between Han
FOLDED |= {ord(mark): '"' for mark in "\u201c\u201d\u201e\u00ab\u00bb"}
SEVERAL = re.compile(f"[{''.join(map(chr, FOLDED))}]")


def fold(text: str) -> str:
    """Lower case, one form of every letter, one blank between words; no marks of Arabic vowels, no nukta of Hindi.

    >>> fold("  Ich KANN\\n\u2019s"), fold("\u0639\u0630\u0631\u064b\u0627")
    ("ich kann 's", '\u0639\u0630\u0631\u0627')
    """
    text = text.casefold()
    if not text.isascii():
        whole = unicodedata.normalize("NFC", text)
        if whole != text or SEVERAL.search(text):
            text = whole.translate(FOLDED).casefold()
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Clause:
    """A pattern, and sets of strings of which one each stands in every text that it matches."""

    needles: Needles
    pattern: re.Pattern[str]

    def match(self, text: str) -> bool:
        return all(any(map(text.__contains__, some)) for some in self.needles) and bool(self.pattern.search(text))


@dataclass(frozen=True, slots=True)
class Rules:
    """Patterns over folded text, one of whose hints stands in every text that they match."""

    hints: tuple[str, ...]
    clauses: tuple[Clause, ...]

    def match(self, text: str) -> bool:
        return any(hint in text for hint in self.hints) and any(one.match(text) for one in self.clauses)


def rules(hints: str, *patterns: str) -> Rules:
    """``hints`` are divided by ``|``; both are folded as texts are."""
    folded = "|".join(unicodedata.normalize("NFC", one).translate(FOLDED) for one in patterns)
    parts = divided(folded)
    clauses = [Clause(needles(one), re.compile(one)) for one in parts] if parts else [Clause((), re.compile(folded))]
    return Rules(tuple(fold(f"^{one}^")[1:-1] for one in hints.split("|")), tuple(clauses))


class Bank:
    """Many rules at once: one look at the runs of four bytes of a text tells which patterns may match at all."""

    def __init__(self, named: Mapping[str, Rules]) -> None:
        self._clauses = tuple((name, one.hints, clause) for name, one in named.items() for clause in one.clauses)
        self._always = [at for at, (_, _, clause) in enumerate(self._clauses) if not clause.needles]
        self._runs: dict[int, list[tuple[str, int]]] = {}  # a run -> who has it
        self._short: dict[str, list[int]] = {}
        for at, (_, _, clause) in enumerate(self._clauses):
            for one in max(clause.needles, key=_least, default=()):
                if len(one.encode()) < RUN:
                    self._short.setdefault(one, []).append(at)
                else:
                    self._runs.setdefault(rarest(one), []).append((one, at))
        self._table = np.zeros(1 << BITS, dtype=bool)
        self._table[_places(np.array([*self._runs], dtype=np.uint32))] = True

    def first(self, text: str) -> str | None:
        """The name of the first that matches a folded text."""
        found = set(self._always)
        raw = text.encode("utf-8", "replace")
        if len(raw) >= RUN:
            runs = np.ndarray((len(raw) - RUN + 1,), np.uint32, raw, strides=(1,))
            for run in runs[self._table.take(_places(runs))].tolist():
                found.update(at for one, at in self._runs.get(run, ()) if one in text)
        for one in filter(text.__contains__, self._short):
            found.update(self._short[one])
        for at in sorted(found):
            name, hints, clause = self._clauses[at]
            if clause.match(text) and any(hint in text for hint in hints):
                return name
        return None


def _places(runs: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Where runs stand in a table of ``BITS`` bits (Fibonacci hashing); some stand in one place."""
    return (runs * SPREAD) >> HIGH


def _least(some: tuple[str, ...]) -> int:
    return min(len(one.encode()) for one in some)


def rarest(needle: str) -> int:
    """Of the runs of ``RUN`` bytes in it, the one with the rarest letters."""
    raw = needle.encode()
    runs = [raw[at : at + RUN] for at in range(len(raw) - RUN + 1)]
    best = max(runs, key=lambda run: sum(COMMON.find(sign) % len(COMMON) for sign in run))
    return int(np.frombuffer(best, np.uint32)[0])
