"""Intervals and tests for graded scores and clusters, number of cases fixed beforehand.

They lean on the normal law, so no gate is judged by them: when most scores do not move, Student's t takes three lucky
cases for certainty. The e-process (``sequential``) is what judges graded scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student

from quantgate.errors import DataError


def contrast_t(baseline: Sequence[float], variant: Sequence[float], margin: float) -> tuple[float, float]:
    """(t, p) of H0: the variant lost the share ``margin`` of the baseline or more, on v - (1 - margin) b."""
    values = np.asarray(variant, float) - (1 - margin) * np.asarray(baseline, float)
    statistic, p, _ = paired_t(values.tolist(), 0.0)
    return statistic, p


def paired_t(differences: Sequence[float], margin: float, alpha: float = 0.05) -> tuple[float, float, float]:
    """(t, p, lower limit at ``alpha``) of H0: mean difference <= -margin; for 100 cases or more, most of them moved.

    Raises DataError when nothing varies: an interval of width 0 is not evidence.
    """
    x = np.asarray(differences, float)
    if len(x) < 2 or np.ptp(x) == 0:
        raise DataError(f"Student's t needs scores that vary, and these {len(x)} do not; use the e-process")
    error, df = float(x.std(ddof=1)) / len(x) ** 0.5, len(x) - 1
    statistic = (float(x.mean()) + margin) / error
    return statistic, float(student.sf(statistic, df)), float(x.mean() - student.isf(alpha, df) * error)


def cluster_error(values: Sequence[float], clusters: Sequence[object]) -> float:
    """Standard error of the mean of cases in clusters: sqrt(sum_c (sum_i e_i)^2) / n (Miller, arXiv 2411.00640)."""
    x = np.asarray(values, float)
    sums: dict[object, float] = {}
    for residual, cluster in zip(x - x.mean(), clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + float(residual)
    return float(np.sqrt(sum(total * total for total in sums.values())) / len(x))


def clopper_pearson(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact two-sided interval of a proportion (Clopper and Pearson, Biometrika 26, 1934)."""
    interval = binomtest(successes, n).proportion_ci(1 - alpha, method="exact")
    return float(interval.low), float(interval.high)
