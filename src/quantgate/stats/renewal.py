"""Evidence that is renewed inside a period, and the weighted mean of e-values that every test here is made of.

A variant that was good for weeks has gathered evidence in its own favour, which a sudden fault must first undo. So
several copies of one process are started inside a period; a copy begins at 1, counts only what comes after its start,
and takes a weight that was fixed when the period began:

    E = sum_k v_k E_k,   sum v_k = 1,   E_k = 1 before its start

A weighted mean of e-processes of one filtration is one, so E reaches 1 / alpha with probability at most alpha in the
whole period, however many copies there are. What it costs: a fault after start k must overcome log(1 / v_k) as well.

Source: Shin, Ramdas and Rinaldo, "E-detectors", NEJSDS 2024 (arXiv 2203.03532), section 2 (sums over starts); with
weights that sum to 1 it keeps a probability of error in the period, instead of a mean time between errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from quantgate.errors import UsageError


def weights(copies: int, first: float = 0.5) -> tuple[float, ...]:
    """Of copies started one after another, sum 1: ``first`` for the one that sees all, the rest shared alike.

    >>> weights(3)
    (0.5, 0.25, 0.25)
    """
    if copies < 1:
        raise UsageError(f"renewal: {copies} copies carry no evidence; start 1 or more")
    return (1.0,) if copies == 1 else (first, *[(1.0 - first) / (copies - 1)] * (copies - 1))


def log_mix(rows: Iterable[tuple[float, float]]) -> float:
    """log(sum of weight * e) of (weight, log e) rows, without overflow; weights that are missing to 1 count as e = 1.

    So a copy that has not begun may be left out, or stand there with log e = 0. Rows without weight are left out.

    >>> round(log_mix([(0.5, 1000.0), (0.25, 0.0)]), 6)  # 0.5 e^1000 + 0.25 + 0.25
    999.306853
    """
    known = [(weight, log_e) for weight, log_e in rows if weight > 0.0]
    missing = 1.0 - math.fsum(weight for weight, _ in known)
    if missing > 1e-12:
        known.append((missing, 0.0))
    top = max(log_e for _, log_e in known)
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(weight * math.exp(log_e - top) for weight, log_e in known))


def decided_at(alpha: float, weight: float = 1.0) -> float:
    """log(1 / (alpha * weight)): what the log e of one of several processes must reach, weights of all summing to 1.

    The union bound over processes: the chance that any of them errs is at most the sum of alpha * weight, whatever they
    have to do with one another.
    """
    if not (0.0 < alpha < 1.0 and 0.0 < weight <= 1.0):
        raise UsageError(f"evidence: alpha {alpha} and weight {weight} must lie between 0 and 1; 0.01 and 1 are usual")
    return -math.log(alpha) - math.log(weight)


__all__ = ["decided_at", "log_mix", "weights"]
