"""Intervals and tests for graded scores and clusters, number of cases fixed beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, t as student


def contrast_p(baseline: Sequence[float], variant: Sequence[float], margin: float) -> tuple[float, float]:
    """p-values of "lost more than the margin" and "lost less" from Student's t on v - (1 - margin) b."""
    values = np.asarray(variant) - (1 - margin) * np.asarray(baseline)
    statistic = t_statistic(values, 0.0)
    return float(student.sf(statistic, len(values) - 1)), float(student.cdf(statistic, len(values) - 1))


def contrast_limits(
    baseline: Sequence[float], variant: Sequence[float], low_alpha: float, high_alpha: float
) -> tuple[float, float]:
    """One-sided limits of the relative change mean(v) / mean(b) - 1 by the delta method; (-1, 1) for a baseline of 0."""
    b, v = np.asarray(baseline, float), np.asarray(variant, float)
    if not b.mean():
        return -1.0, 1.0
    ratio = v.mean() / b.mean()
    error = (v - ratio * b).std(ddof=1) / len(b) ** 0.5 / b.mean()
    df = len(b) - 1
    return float(ratio - 1 - student.isf(low_alpha, df) * error), float(ratio - 1 + student.isf(high_alpha, df) * error)


def t_statistic(values: Sequence[float], mean: float) -> float:
    """(average - mean) / (s / sqrt(n)); infinite when nothing varies."""
    x = np.asarray(values, float)
    spread = x.std(ddof=1) / len(x) ** 0.5
    distance = float(x.mean() - mean)
    return distance / float(spread) if spread else float(np.sign(distance)) * float("inf")


def paired_t(differences: Sequence[float], margin: float, alpha: float = 0.05) -> tuple[float, float, float]:
    """(t, p, lower limit) of H0: mean difference <= -margin. For about 100 cases or more with many distinct values."""
    x = np.asarray(differences, float)
    statistic, df = t_statistic(x, -margin), len(x) - 1
    limit = x.mean() - student.isf(alpha, df) * x.std(ddof=1) / len(x) ** 0.5
    return statistic, float(student.sf(statistic, df)), float(limit)


def cluster_error(values: Sequence[float], clusters: Sequence[object]) -> float:
    """Standard error of the mean when cases come in clusters: sqrt(sum_c (sum_i e_i)^2) / n (Miller, arXiv 2411.00640)."""
    x = np.asarray(values, float)
    residuals = x - x.mean()
    sums: dict[object, float] = {}
    for residual, cluster in zip(residuals, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + float(residual)
    return float(np.sqrt(sum(total * total for total in sums.values())) / len(x))


def clopper_pearson(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact two-sided interval of a proportion (Clopper and Pearson, Biometrika 26, 1934)."""
    interval = binomtest(successes, n).proportion_ci(1 - alpha, method="exact")
    return float(interval.low), float(interval.high)
