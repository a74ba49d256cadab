"""What translation leaves in a text: numbers, identifiers, tools, names; and how much evidence it is to share them.

Evidence is a likelihood ratio, in bits: how much likelier a text is to hold what it holds if it is a copy of a case,
in whatever language, than if it is another text of the same kind. A number that every tenth text has is worth about
three bits, a rare one the more; a number that only one of the two has costs as much. Rarity is counted in the cases
and in a sample of the traffic themselves, so what a template repeats is worth nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantgate.evaluate.overlap.numbers import DIGITS, numbers, plain

IDENTIFIER = re.compile(r"(?<![\w.@/-])[A-Za-z]\w*(?:[._]\w+)+")
JOINED = re.compile(r"\w\.[^\W\d]|\w_\w")
NAME = re.compile(r"(?<!\w)[A-Z\u00c0-\u00de][^\W\d_]{2,}")
COMMON_NAME = 0.05  # share of texts from which on a capitalised word is no name
KEPT = 0.9  # share of a case's numbers that a copy of it still has
NAME_KEPT = 0.6  # names are inflected, translated, transliterated
ANSWER_KEPT = 0.97
NAMES_BITS = 12.0  # at most, however many names: those of one subject come together
MANY = 500  # cases that are looked at for one text, those with the rarest anchors first


@dataclass(frozen=True)
class Anchors:
    """``firm`` ones count for and against, ``names`` only for; ``answer`` is the number that the answer ends with."""

    firm: frozenset[str]
    names: frozenset[str]
    answer: str | None = None


def anchors_of(
    text: str, answer: str | None, tools: Iterable[str] = (), words: Collection[str] | None = None
) -> Anchors:
    """``answer`` is a text, or None where none is known; ``tools`` are names of functions; ``words`` as in ``numbers``.

    >>> found = anchors_of("Janets Enten legen 16 Eier.", "Also 18.")
    >>> sorted(found.firm), "janet" in found.names, found.answer
    (['16'], True, '18')
    """
    firm = numbers(text, words) | {one.casefold() for one in tools}
    if JOINED.search(text):
        firm |= {one.casefold() for one in IDENTIFIER.findall(text)}
    names = {one.casefold().removesuffix("s") for one in NAME.findall(text)}
    return Anchors(frozenset(firm), frozenset(names), last_number(answer))


def last_number(text: str | None) -> str | None:
    found = DIGITS.findall(text) if text else []
    return plain(found[-1]) if found else None


@dataclass(frozen=True)
class Likeness:
    """The case that a text is most likely a copy of."""

    case: int
    evidence: float  # bits for "a copy of one of the cases" against "of none"
    shared: tuple[str, ...]  # what both have, the rarest first
    firm: int  # how many of them are numbers (the answer among them), identifiers or tools


class Signatures:
    """The index of all cases' anchors; ``background`` are those of other texts of the kind, to count rarity in."""

    def __init__(self, cases: Sequence[Anchors], background: Sequence[Anchors]) -> None:
        self.cases, self.texts = list(cases), len(cases) + len(background)
        self.seen = Counter(key for one in (*cases, *background) for key in _keys(one))
        places: dict[str, list[int]] = {}
        for at, one in enumerate(cases):
            for key in _keys(one):
                places.setdefault(key, []).append(at)
        self.places = {key: np.array(found, dtype=np.int64) for key, found in places.items()}
        self.missing = math.log2(1 - KEPT) * np.array([len(one.firm) for one in cases], dtype=np.float64)
        self.answered = np.array([one.answer is not None for one in cases], dtype=bool)
        self.firm_bits, self.name_bits = np.zeros(len(cases)), np.zeros(len(cases))

    def rarity(self, key: str) -> float:
        """The share of texts that have it."""
        return (self.seen[key] + 0.5) / (self.texts + 1)

    def likeness(self, found: Anchors, but: int | None = None) -> Likeness | None:
        """None when a text shares nothing but names with any case; case ``but`` is left out."""
        keys = [key for key in _keys(found) if key in self.places]
        if all(key[0] == "@" for key in keys):
            return None
        keys = [key for key in keys if key[0] != "@" or self.rarity(key) < COMMON_NAME]
        keys.sort(key=lambda key: len(self.places[key]))
        candidates, budget = list[NDArray[np.int64]](), MANY
        for key in keys:
            if candidates and len(self.places[key]) > budget:
                break
            candidates.append(self.places[key])
            budget -= len(self.places[key])
        cases = np.unique(np.concatenate(candidates)) if len(candidates) > 1 else candidates[0]
        cases = cases if but is None else cases[cases != but]
        return self._best(found, keys, cases) if len(cases) else None

    def _best(self, found: Anchors, keys: Sequence[str], cases: NDArray[np.int64]) -> Likeness:
        unmatched = math.log2(1 - KEPT)
        for key in keys:
            bits, kind = self.name_bits if key[0] == "@" else self.firm_bits, key[0]
            gain = math.log2({"@": NAME_KEPT, "=": ANSWER_KEPT}.get(kind, KEPT) / self.rarity(key))
            bits[self.places[key]] += gain - (2 * unmatched if kind == "#" else 0)
        total = self.firm_bits[cases] + np.minimum(self.name_bits[cases], NAMES_BITS)
        total += self.missing[cases] + unmatched * len(found.firm)
        if found.answer is not None:
            same = np.zeros(len(cases), dtype=bool)
            if (key := f"={found.answer}") in self.places:
                same = np.isin(cases, self.places[key], assume_unique=True)
            total += np.where(self.answered[cases] & ~same, math.log2(1 - ANSWER_KEPT), 0.0)
        for key in keys:
            (self.name_bits if key[0] == "@" else self.firm_bits)[self.places[key]] = 0
        best = int(np.argmax(total))
        evidence = float(np.logaddexp2.reduce(total)) - math.log2(len(self.cases))
        own = set(_keys(self.cases[int(cases[best])]))
        shared = sorted((key for key in keys if key in own), key=self.rarity)
        firm = sum(key[0] != "@" for key in shared)
        return Likeness(int(cases[best]), evidence, tuple(key.removeprefix("#") for key in shared), firm)


def _keys(anchors: Anchors) -> list[str]:
    """``#`` a number, identifier or tool, ``@`` a name, ``=`` the answer."""
    answer = [] if anchors.answer is None else [f"={anchors.answer}"]
    return [*(f"#{one}" for one in anchors.firm), *(f"@{one}" for one in anchors.names), *answer]
