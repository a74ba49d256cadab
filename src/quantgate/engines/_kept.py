"""What was read before: the caches of the last conversations, for those that begin alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Keep:
    """How much of past conversations is kept."""

    conversations: int = 8  # 0: none, and every prompt is read from its first token
    bytes: int = 1 << 29
    least: int = 16  # tokens that two must begin with alike; what is shorter is read as quickly


@dataclass(frozen=True)
class Entry(Generic[T]):
    ids: list[int]
    held: T
    bytes: int


class Kept(Generic[T]):
    """Caches by the token ids that they were made of; the one used last is given up last."""

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.entries: list[Entry[T]] = []  # the one used last is the last

    def find(self, ids: Sequence[int]) -> tuple[int, T] | None:
        """The cache with the longest common begin, and how many tokens that is; at least one token is left to read."""
        lengths = [min(common(entry.ids, ids), len(ids) - 1) for entry in self.entries]
        best = max(lengths, default=0)
        if best < max(1, self.keep.least):
            return None
        entry = self.entries.pop(lengths.index(best))
        self.entries.append(entry)
        return best, entry.held

    def fits(self, size: int) -> bool:
        """Whether a cache of ``size`` bytes would be kept at all."""
        return bool(self.keep.conversations) and size <= self.keep.bytes

    def put(self, ids: list[int], held: T, size: int) -> None:
        """Keep a cache of ``size`` bytes; those that it goes on from are given up, then the oldest ones."""
        if not self.fits(size):
            return
        rest = [one for one in self.entries if common(one.ids, ids) < len(one.ids)]
        self.entries = [*rest, Entry(ids, held, size)][-self.keep.conversations :]
        while sum(one.bytes for one in self.entries) > self.keep.bytes:
            del self.entries[0]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike.

    >>> common([1, 2, 3], [1, 2, 4, 5])
    2
    """
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    low, high = 0, most  # alike up to low, not up to high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
