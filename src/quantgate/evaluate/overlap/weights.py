"""Whether two texts that look alike ask the same: most of what is rare in the one is also in the other.

Cases of a template ("Write the last two of: horse, fig", "... of: tie, hammer") share most of their passages and ask
different things. What makes a case is its rare words and its numbers, each worth the bits of its rarity.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from quantgate.evaluate.overlap.numbers import numbers
from quantgate.evaluate.overlap.texts import normal, words

SAME = 0.8  # of the bits of the text that has fewer
LONG_WORD, TYPED = 4, 0.8  # letters of a word that can be mistyped and known again; how alike it must then be
SAME_NUMBERS = 0.75  # of the numbers of the text that has fewer


@dataclass(frozen=True)
class Weighed:
    """What makes a text: its words, what they are worth together, its numbers."""

    words: frozenset[str]
    bits: float
    numbers: frozenset[str]


class Weights:
    """How rare each word is among ``texts``, each given as its words."""

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        seen, count = Counter[str](), 0
        for text in texts:
            seen.update(set(text))
            count += 1
        self.bits = {word: -math.log2((times + 0.5) / (count + 1)) for word, times in seen.items()}
        self.unseen = -math.log2(0.5 / (count + 1))

    def weigh(self, text: str) -> Weighed:
        found = frozenset(words(normal(text)))
        return Weighed(found, self._sum(found), numbers(text))

    def _sum(self, found: Iterable[str]) -> float:
        bits, unseen = self.bits, self.unseen
        return sum([bits.get(word, unseen) for word in found])

    def difference(self, one: Weighed, other: Weighed) -> str:
        """What speaks against one problem, in words; nothing where both ask the same."""
        fewer = min(len(one.numbers), len(other.numbers))
        if fewer and len(one.numbers & other.numbers) < SAME_NUMBERS * fewer:
            return "other numbers"
        if self._sum(one.words & other.words) >= SAME * min(one.bits, other.bits):
            return ""
        less, more = sorted((one, other), key=lambda text: text.bits)
        rest = more.words - less.words
        same = [word for word in less.words if word in more.words or _mistyped(word, rest)]
        return "" if self._sum(same) >= SAME * less.bits else "other words where it matters"


def _mistyped(word: str, others: Iterable[str]) -> bool:
    """Whether one of ``others`` is ``word`` but for a letter or two."""
    if len(word) < LONG_WORD:
        return False
    near = (one for one in others if one[:1] == word[:1] and abs(len(one) - len(word)) <= 1)
    return any(SequenceMatcher(None, word, one).ratio() >= TYPED for one in near)
