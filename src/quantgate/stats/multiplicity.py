"""Many tests, one error rate: Holm, Benjamini-Hochberg, fixed sequence, e-Bonferroni."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the family-wise error rate (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the false discovery rate (Benjamini and Hochberg, JRSS B 57, 1995)."""
    count = len(p_values)
    order = sorted(range(count), key=lambda index: p_values[index], reverse=True)
    adjusted, running = [0.0] * count, 1.0
    for place, index in enumerate(order):
        running = min(running, p_values[index] * count / (count - place))
        adjusted[index] = running
    return adjusted


def fixed_sequence(passed: Sequence[bool]) -> list[bool]:
    """Which of a pre-declared sequence of tests count: all up to the first that did not pass (Maurer et al. 1995)."""
    counted, running = [], True
    for one in passed:
        running = running and one
        counted.append(running)
    return counted


def e_bonferroni(alpha: float, tests: int) -> float:
    """The e-value that one of ``tests`` must reach for a family-wise error of ``alpha``: tests / alpha (Markov)."""
    return tests / alpha
