"""Words of a domain: rare in text at large, and not rare in this traffic.

The background is what the model's tokenizer learned from: a word that it cuts into many pieces was rare there. A word
that takes more pieces than nine tenths of the running words of this traffic, and stands in enough of its conversations
to be no slip of the pen, is jargon. So neither a list of words nor a corpus has to come along, and it works in
every language that is written with spaces.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLOTS = 1 << 20  # of the table in which conversations are counted by word: 4 MiB, whatever the traffic
CACHE = 200_000  # words whose pieces are remembered
READ = 20_000  # characters of a conversation that are looked at
FEWEST = 3  # conversations that hold the word ...
MOST = 0.05  # ... and share of all that hold it at most: "invoice" in every line is no rare word
QUANTILE = 0.9  # of the pieces of running words
LEAST_PIECES = 3
SHARE = 0.03  # of a conversation's words that are jargon, where it counts as such ...
WORDS = 2  # ... and so many different ones
WORD = re.compile(r"[^\W\d_][\w-]{2,29}")


class Jargon:
    """First ``learn`` every conversation, in any order, then ask ``is_jargon``."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._held: NDArray[np.uint32] = np.zeros(SLOTS, dtype=np.uint32)  # conversations by slot of the word
        self._pieces: dict[str, int] = {}
        self._running: Counter[int] = Counter()  # pieces -> running words
        self.conversations = 0
        self._least: int | None = None  # of ``least_pieces``, until more is learned

    def learn(self, text: str) -> None:
        """Count one conversation."""
        self.conversations += 1
        self._least = None
        words = Counter(word.casefold() for word in WORD.findall(text[:READ]))
        slots = [zlib.crc32(word.encode()) % SLOTS for word in words]
        self._held[np.unique(np.array(slots, dtype=np.int64))] += 1
        for pieces, word in zip(self._cut(list(words)), words, strict=True):
            self._running[pieces] += words[word]

    @property
    def least_pieces(self) -> int:
        """Pieces that a word must take to be rare in text at large."""
        total, seen = sum(self._running.values()), 0
        for pieces in sorted(self._running):
            seen += self._running[pieces]
            if seen >= QUANTILE * total:
                return max(LEAST_PIECES, pieces + 1)
        return LEAST_PIECES

    def words(self, text: str) -> list[str]:
        """The different words of a domain in ``text``, in order."""
        if self._least is None:
            self._least = self.least_pieces
        least, most = self._least, max(FEWEST, MOST * self.conversations)
        different = list(dict.fromkeys(word.casefold() for word in WORD.findall(text[:READ])))
        held = [int(self._held[zlib.crc32(word.encode()) % SLOTS]) for word in different]
        likely = [word for word, count in zip(different, held, strict=True) if FEWEST <= count <= most]
        return [word for word, pieces in zip(likely, self._cut(likely), strict=True) if pieces >= least]

    def is_jargon(self, text: str) -> bool:
        found = self.words(text)
        return len(found) >= WORDS and len(found) >= SHARE * len(set(WORD.findall(text[:READ])))

    def _cut(self, words: Sequence[str]) -> list[int]:
        """Pieces of each word as it stands behind a space."""
        new = [word for word in words if word not in self._pieces]
        if len(self._pieces) + len(new) > CACHE:
            self._pieces, new = {}, list(words)
        if new:
            ids = self._tokenizer([f" {word}" for word in new], add_special_tokens=False)["input_ids"]
            self._pieces.update(zip(new, map(len, ids), strict=True))
        return [self._pieces[word] for word in words]
