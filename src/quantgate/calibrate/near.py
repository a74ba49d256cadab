"""Near duplicates: conversations whose words are nearly the same, found by MinHash and then compared in truth.

What counts is what user, tools and assistant said, in shingles of three words (of single characters where a script has
no spaces); system prompts and tool definitions are templates that a whole product shares, and do not count. MinHash
(Broder 1997) with locality-sensitive hashing proposes pairs, and only those whose true Jaccard similarity reaches
``ALIKE`` are near duplicates.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from quantgate.calibrate.conversation import Conversation, spoken

ALIKE = 0.8  # true Jaccard similarity from which two conversations are one
PROPOSED = 0.65  # similarity around which pairs are proposed: below ALIKE, so that few are missed
PERMUTATIONS = 128
SHINGLE = 3  # words
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]|[^\W_]+|[^\w\s]")

Shingles = NDArray[np.uint32]  # sorted, each once


def shingles(conversation: Conversation) -> Shingles:
    """Hashes of every three words in a row, capitals and white space aside."""
    said = " \n ".join(spoken(one) for one in conversation.messages if one["role"] != "system")
    words = ["^", *WORD.findall(said.casefold()), "$"]
    parts = ["\0".join(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))]
    return np.unique(np.array([zlib.crc32(part.encode()) for part in parts], dtype=np.uint32))


def jaccard(a: Shingles, b: Shingles) -> float:
    """Shared shingles over all shingles of both."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


class Near:
    """Conversations that were kept so far; ask ``twin_of`` before ``keep``."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        self._index = MinHashLSH(threshold=PROPOSED, num_perm=PERMUTATIONS, weights=(0.2, 0.8))
        self._kept: dict[Hashable, Shingles] = {}

    def twin_of(self, found: Shingles) -> Hashable | None:
        """The kept conversation that is nearly the same, the most alike first; None where there is none."""
        proposed = [(jaccard(found, self._kept[key]), str(key), key) for key in self._index.query(_sketch(found))]
        alike = [one for one in proposed if one[0] >= ALIKE]
        return max(alike)[2] if alike else None

    def keep(self, key: Hashable, found: Shingles) -> None:
        self._index.insert(key, _sketch(found), check_duplication=False)
        self._kept[key] = found


def _sketch(found: Shingles) -> object:
    from datasketch import MinHash

    made = MinHash(num_perm=PERMUTATIONS, hashfunc=int)  # the shingles are hashes already
    made.update_batch(found.tolist())
    return made
