"""Word n-grams: the passages that a case shares with traffic, found through one index over the cases.

GPT-3's rule (Brown et al. 2020, appendix C): N is the fifth percentile of the cases' lengths in words, at least 8 and
at most 13, and a shared N-gram is a collision unless it is common. Beside it stands the share of a case's 8-grams that
one conversation holds, because 13-grams alone miss what was cut or lightly edited. Grams that many cases of
a suite have are its template and are in no index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHORTEST, LONGEST = 8, 13
LEAST = 0.25  # share of a case's 8-grams below which nothing is told, unless an N-gram collides
FACTOR = np.uint64(0x9E3779B97F4A7C15)
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Passage:
    """What one text shares with one case."""

    case: int
    share: float  # of the case's 8-grams, its suite's template left out
    collision: bool  # an N-gram in common


class Postings:
    """Hash of a gram -> the cases that have it, without those that ``common`` says are a template's."""

    def __init__(self, hashes: Hashes, cases: NDArray[np.int64], common: NDArray[np.bool_]) -> None:
        kept = ~common
        hashes, cases = hashes[kept], cases[kept]
        self.keys, starts = np.unique(hashes, return_index=True)
        self.starts = np.append(starts, len(hashes))
        self.cases = cases

    def find(self, hashes: Hashes) -> NDArray[np.int64]:
        """For each hash its place among the keys, or -1."""
        if not len(self.keys):
            return np.full(len(hashes), -1)
        at = np.minimum(np.searchsorted(self.keys, hashes), len(self.keys) - 1)
        return np.where(self.keys[at] == hashes, at, -1)

    def spread(self, owners: NDArray[np.int64], keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every (owner, case) of every key: both arrays as long as all its postings together."""
        counts = self.starts[keys + 1] - self.starts[keys]
        first = np.repeat(self.starts[keys] - np.cumsum(counts) + counts, counts)
        return np.repeat(owners, counts), self.cases[first + np.arange(len(first))]


def template_mask(
    hashes: Hashes, cases: NDArray[np.int64], suites: NDArray[np.int64], cuts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which (hash, case) rows, sorted by hash, belong to a gram that a suite's cut calls its template."""
    keys, group = np.unique(hashes, return_inverse=True)
    common = np.zeros(len(keys), dtype=bool)
    for suite, cut in enumerate(cuts):
        common |= np.bincount(group[suites[cases] == suite], minlength=len(keys)) >= cut
    return common[group]


def rows_of(grams: Sequence[Hashes]) -> tuple[Hashes, NDArray[np.int64]]:
    """(hash, case) rows of all cases, each gram of a case once, sorted by hash."""
    sets = [np.unique(one) for one in grams]
    cases = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    hashes = np.concatenate(sets) if sets else np.empty(0, np.uint64)
    order = np.argsort(hashes, kind="stable")
    return hashes[order], cases[order]


class Grams:
    """The index of all cases' words.

    ``texts`` holds each case's words, ``suites`` the number of its suite, ``cuts`` how many cases of a suite make a
    template.
    """

    def __init__(self, texts: Sequence[Sequence[str]], suites: Sequence[int], cuts: Sequence[int]) -> None:
        self.known: dict[str, int] = {}
        for text in texts:
            for word in text:
                self.known.setdefault(word, len(self.known) + 1)
        draw = np.random.default_rng(8)
        self.mixed = draw.integers(1, 2**63, len(self.known) + 1, dtype=np.uint64) | np.uint64(1)
        of, limits = np.asarray(suites, dtype=np.int64), np.asarray(cuts, dtype=np.int64)
        coded = [self._coded(text) for text in texts]
        self.lengths = np.array([_length(coded, of == suite) for suite in range(len(limits))], dtype=np.int64)
        self.eights = self._postings(coded, of, limits, SHORTEST, np.ones(len(texts), dtype=bool))
        self.sizes = np.bincount(self.eights.cases, minlength=len(texts))  # 8-grams of each case
        self.longer = {
            int(n): self._postings(coded, of, limits, int(n), self.lengths[of] == n)
            for n in np.unique(self.lengths[of])
        }

    def _postings(
        self,
        coded: Sequence[NDArray[np.int64]],
        of: NDArray[np.int64],
        cuts: NDArray[np.int64],
        n: int,
        wanted: NDArray[np.bool_],
    ) -> Postings:
        none = np.empty(0, np.uint64)
        grams = [self._hashes(one, n)[0] if want else none for one, want in zip(coded, wanted, strict=True)]
        hashes, cases = rows_of(grams)
        return Postings(hashes, cases, template_mask(hashes, cases, of, cuts))

    def _coded(self, text: Sequence[str]) -> NDArray[np.int64]:
        known = self.known
        return np.fromiter([known.get(word, 0) for word in text], np.int64, len(text))

    def _hashes(self, coded: NDArray[np.int64], n: int) -> tuple[Hashes, NDArray[np.int64]]:
        """Hashes of all windows of ``n`` known words, and where they begin."""
        count = len(coded) - n + 1
        if count < 1:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        unknown = np.concatenate(([0], np.cumsum(coded == 0)))
        at = np.flatnonzero(unknown[n:] == unknown[:-n])
        values, found = self.mixed[coded], np.zeros(len(at), np.uint64)
        for offset in range(n):
            found = found * FACTOR + values[at + offset]
        return found, at

    def passages(self, texts: Sequence[Sequence[str]]) -> list[list[Passage]]:
        """For every text (its words) what it shares with which cases."""
        parts, starts, at = [], [], 0
        for text in texts:  # a word that no case knows stands between two texts, so no window spans them
            parts += [self._coded(text), np.zeros(1, np.int64)]
            starts.append(at)
            at += len(text) + 1
        found: list[list[Passage]] = [[] for _ in texts]
        if not parts:
            return found
        coded, begins = np.concatenate(parts), np.asarray(starts)
        shared = self._shared(coded, begins, self.eights, SHORTEST)
        collided = set[tuple[int, int]]()
        for n, postings in self.longer.items():
            collided |= set(self._shared(coded, begins, postings, n))
        for text_at, case in shared.keys() | collided:
            share, collision = (
                shared.get((text_at, case), 0) / max(1, int(self.sizes[case])),
                (text_at, case) in collided,
            )
            if collision or share >= LEAST:
                found[text_at].append(Passage(case, share, collision))
        return found

    def _shared(
        self, coded: NDArray[np.int64], begins: NDArray[np.int64], postings: Postings, n: int
    ) -> dict[tuple[int, int], int]:
        """(text, case) -> how many different grams they share."""
        hashes, at = self._hashes(coded, n)
        keys = postings.find(hashes)
        hit = keys >= 0
        texts, width = np.searchsorted(begins, at[hit], side="right") - 1, max(1, len(postings.keys))
        rows = np.unique(texts * width + keys[hit])
        texts, cases = postings.spread(rows // width, rows % width)
        pairs, counts = np.unique(texts * len(self.sizes) + cases, return_counts=True)
        where = zip((pairs // len(self.sizes)).tolist(), (pairs % len(self.sizes)).tolist(), strict=True)
        return dict(zip(where, counts.tolist(), strict=True))


def _length(coded: Sequence[NDArray[np.int64]], wanted: NDArray[np.bool_]) -> int:
    """N of GPT-3's rule for the cases of one suite."""
    lengths = [len(one) for one, want in zip(coded, wanted, strict=True) if want]
    return int(np.clip(np.percentile(lengths, 5), SHORTEST, LONGEST)) if lengths else LONGEST
