"""No way of stopping wins: the exact value of the best stopping rule against an e-process, by enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

Outcome = TypeVar("Outcome", bound=Hashable)


def best_stop(
    steps: int,
    draws: Callable[[tuple[Outcome, ...]], Mapping[Outcome, float]],
    e: Callable[[tuple[Outcome, ...]], float],
) -> float:
    """max over stopping rules of E[e at the stop]: at most 1 for an e-process, by the definition of one.

    ``draws`` gives the next outcomes and their probabilities after what came before, so the null may be as adversarial
    as it likes; ``e`` is the e-value after some outcomes. Histories that differ in their order only are one, so
    ``draws`` may depend on how many and which, and not on their order.
    """
    known: dict[tuple[Outcome, ...], float] = {}

    def value(past: tuple[Outcome, ...]) -> float:
        key = tuple(sorted(past))  # type: ignore[type-var]
        if key not in known:
            now = e(key)
            if len(key) < steps:
                chances = draws(key)
                assert math.isclose(math.fsum(chances.values()), 1.0, abs_tol=1e-12)
                ahead = math.fsum(p * value((*key, one)) for one, p in chances.items() if p > 0.0)
                now = max(now, ahead)
            known[key] = now
        return known[key]

    return value(())


def ever(
    outcomes: Sequence[Mapping[Outcome, float]], e: Callable[[tuple[Outcome, ...]], float], bar: float
) -> tuple[float, float]:
    """(P(e ever reaches ``bar``), E[e at the end]) over every sequence of independent outcomes, one by one."""
    crossed = mean = 0.0

    def walk(past: tuple[Outcome, ...], chance: float, over: bool) -> None:
        nonlocal crossed, mean
        now = e(past)
        over = over or now >= bar
        if len(past) == len(outcomes):
            crossed += chance * over
            mean += chance * now
            return
        for one, p in outcomes[len(past)].items():
            walk((*past, one), chance * p, over)

    walk((), 1.0, False)
    return crossed, mean
