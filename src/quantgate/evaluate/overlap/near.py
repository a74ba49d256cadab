"""Near duplicates: MinHash finds candidates (datasketch's LSH over the cases), the true Jaccard index of each decides.

Two kinds of shingle: 5 words, which survive a change of layout, and 5 characters, which survive typing errors and work
in scripts without spaces. Shingles that many cases of a suite have are its template and count on neither side.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from quantgate.evaluate.overlap.grams import Hashes, rows_of, template_mask
from quantgate.evaluate.overlap.texts import words

SIZE = 5  # words or characters in a shingle
BANDS, ROWS = 21, 3  # finds 94 % of pairs with Jaccard 0.5, 99.98 % with 0.7
LEAST = {"words": 6, "characters": 24}  # shingles below which likeness is chance
ALIKE = 0.5  # Jaccard index from which two texts are near duplicates
SLOTS = 1 << 22
FACTOR = np.uint64(0xD1342543DE82EF95)
SCHEME = "affine32"


@dataclass(frozen=True)
class Alike:
    case: int
    jaccard: float  # of the shingles that are no template's


def word_codes(text: str, found: Sequence[str]) -> Hashes:
    """One number for each word."""
    return np.fromiter([zlib.crc32(word.encode()) + 1 for word in found], np.uint64, len(found))


def character_codes(text: str, found: Sequence[str]) -> Hashes:
    """One number for each character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64) + np.uint64(1)


CODES: dict[str, Callable[[str, Sequence[str]], Hashes]] = {"words": word_codes, "characters": character_codes}


def shingles(codes: Sequence[Hashes]) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of all windows of SIZE codes, text after text, and how many each text has."""
    counts = np.array([max(0, len(one) - SIZE + 1) for one in codes], dtype=np.int64)
    if not counts.sum():
        return np.empty(0, np.uint64), counts
    joined = np.concatenate(codes)
    begins = np.cumsum([0, *(len(one) for one in codes[:-1])])
    at = np.repeat(begins - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    found = np.zeros(len(at), np.uint64)
    for offset in range(SIZE):
        found = (found ^ joined[at + offset]) * FACTOR
        found ^= found >> np.uint64(29)
    return found * FACTOR, counts


class Near:
    """The index of all cases' ``kind`` of shingles. ``texts`` are ``normal``, the rest as in ``Grams``."""

    def __init__(self, kind: str, texts: Sequence[str], suites: Sequence[int], cuts: Sequence[int]) -> None:
        self.kind, self.codes = kind, CODES[kind]
        hashes, counts = shingles([self.codes(one, words(one)) for one in texts])
        parts = np.split(hashes, np.cumsum(counts)[:-1]) if len(counts) else []
        keys, cases = rows_of(parts)
        mask = template_mask(keys, cases, np.asarray(suites, dtype=np.int64), np.asarray(cuts, dtype=np.int64))
        self.template = np.zeros(SLOTS, dtype=bool)
        self.template[_slot(keys[mask])] = True
        self.sets = [np.unique(self._kept(one)) for one in parts]
        a, b = MinHash(num_perm=BANDS * ROWS, scheme=SCHEME).permutations
        self.steps = list(zip(a.tolist(), b.tolist(), strict=True))
        self.permutations = (a, b)
        self.lsh = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self.probe = MinHash(num_perm=BANDS * ROWS, scheme=SCHEME)
        wanted = [at for at, one in enumerate(self.sets) if len(one) >= LEAST[kind]]
        rows = self._signatures([self.sets[at] for at in wanted])
        for at, row in zip(wanted, rows, strict=True):
            self.lsh.insert(at, self._minhash(row))

    def alike(self, texts: Sequence[str], found_words: Sequence[Sequence[str]]) -> list[list[Alike]]:
        """For every ``normal`` text, given with its words, the cases it is a near duplicate of."""
        hashes, counts = shingles([self.codes(*one) for one in zip(texts, found_words, strict=True)])
        kept = ~self.template[_slot(hashes)]
        owners = np.repeat(np.arange(len(texts)), counts)
        sizes = np.bincount(owners[kept], minlength=len(texts))
        parts = np.split(hashes[kept], np.cumsum(sizes)[:-1]) if len(texts) else []
        wanted = [at for at, size in enumerate(sizes.tolist()) if size >= LEAST[self.kind]]
        rows = self._signatures([parts[at] for at in wanted])
        found: list[list[Alike]] = [[] for _ in texts]
        for at, row in zip(wanted, rows, strict=True):
            self.probe.hashvalues = row  # a MinHash for each text would cost more than the question
            candidates = self.lsh.query(self.probe)
            if candidates:
                own = np.unique(parts[at])
                pairs = (Alike(case, _jaccard(own, self.sets[case])) for case in candidates)
                found[at] = [one for one in pairs if one.jaccard >= ALIKE]
        return found

    def _kept(self, hashes: Hashes) -> Hashes:
        return hashes[~self.template[_slot(hashes)]]

    def _signatures(self, sets: Sequence[Hashes]) -> NDArray[np.uint32]:
        """datasketch's affine MinHash of every set, one permutation at a time over all of them."""
        if not sets:
            return np.empty((0, BANDS * ROWS), np.uint32)
        joined = (np.concatenate(sets) >> np.uint64(32)).astype(np.uint32)
        begins = np.cumsum([0, *(len(one) for one in sets[:-1])])
        rows = np.empty((BANDS * ROWS, len(sets)), np.uint32)
        for at, (a, b) in enumerate(self.steps):
            rows[at] = np.minimum.reduceat(joined * np.uint32(a) + np.uint32(b), begins)
        return np.ascontiguousarray(rows.T)

    def _minhash(self, row: NDArray[np.uint32]) -> MinHash:
        return MinHash(num_perm=BANDS * ROWS, scheme=SCHEME, hashvalues=row, permutations=self.permutations)


def _slot(hashes: Hashes) -> NDArray[np.uint64]:
    return hashes & np.uint64(SLOTS - 1)


def _jaccard(one: Hashes, other: Hashes) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)
