"""Two searches for the point where a yes-or-no answer turns, where it turns once."""

from __future__ import annotations

from collections.abc import Callable

LIMIT = 200_000  # more cases than anybody has
WIDEST = 1e6  # a relative change beyond this is called unbounded


def smallest(enough: Callable[[int], bool], start: int = 1) -> int:
    """The smallest n >= start for which ``enough(n)``, which stays true once it is; by doubling, then halving.

    Gives up above twice LIMIT, and returns a number beyond it.

    >>> smallest(lambda n: n * n >= 50)
    8
    """
    high = max(start, 1)
    while not enough(high):
        if high > 2 * LIMIT:
            return high
        high *= 2
    low = max(start, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def turning_point(
    before: Callable[[float], bool], low: float, high: float, *, within: float = 1e-8
) -> tuple[float, float]:
    """A bracket (a, b) no wider than ``within``, where ``before`` is true up to a and no longer at b.

    The ends of the range count as true and as false without being asked, so they may lie where nothing can be computed.

    >>> turning_point(lambda x: x < 0.25, 0.0, 1.0, within=0.1)
    (0.1875, 0.25)
    """
    while high - low > within:
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle) else (low, middle)
    return low, high


def side_of(before: Callable[[float], bool], split: float, *, bounded: bool) -> tuple[float, float]:
    """The range in which ``before`` turns, cut at ``split`` so that no rounding contradicts the answer there.

    Changes go from -1 to 1 when ``bounded``; else their upper end is sought by doubling, up to WIDEST.
    """
    if not before(split):
        return -1.0, split
    if bounded:
        return split, 1.0
    low, high = split, 1.0
    while before(high):
        low, high = high, 2.0 * high
        if high >= WIDEST:
            return WIDEST, WIDEST
    return low, high
