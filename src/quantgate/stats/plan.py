"""Planning: how many cases a margin needs before anything is spent."""

from __future__ import annotations

import math
from collections import Counter

from quantgate.stats.paired import PairedCounts, exact_p, score_p
from quantgate.stats.search import LIMIT, smallest
from quantgate.stats.sequential import Contrast, log_e

SHARES = 100_000  # parts that shares of answers are rounded to


def power_cases(
    flip_rate: float, margin: float, *, alpha: float = 0.05, power: float = 0.80, change: float = 0.0
) -> int:
    """Cases for a fixed-n test to decide with probability ``power`` when a share ``flip_rate`` of answers flips.

    n = (z_alpha + z_power)^2 (flip_rate - change^2) / (margin + change)^2, the normal approximation; ``margin`` and
    ``change`` in parts of the scale, ``change`` off ``-margin``. With few flips ``fewest_cases`` is the larger number.
    """
    from scipy.stats import norm

    z = float(norm.isf(alpha) + norm.isf(1 - power))
    return math.ceil(z * z * (flip_rate - change * change) / (margin + change) ** 2)


def fewest_cases(
    margin: float, *, test: str = "eprocess", alpha: float = 0.05, relative: bool = False, baseline: float = 1.0
) -> int:
    """The fewest cases with which a margin in (0, 1) can be proven at all: no answer may flip.

    A ``relative`` margin depends on the baseline's score in (0, 1]: cases that both get wrong prove nothing.
    """

    def enough(n: int) -> bool:
        if test == "eprocess":
            return log_e([(0.0, n)], -margin, -1.0, 1.0)[0] >= math.log(1 / alpha)
        return (exact_p if test == "exact" else score_p)(PairedCounts(n, 0, 0), -margin, relative=relative) <= alpha

    # (1 - margin)^n is the chance of no loss at all, which none of the valid tests can beat
    floor = 1 if test == "tango" else math.ceil(math.log(alpha) / math.log1p(-margin))
    n = smallest(enough, start=floor)
    return math.ceil(n / baseline) if relative else n


def likely_cases(
    flip_rate: float,
    margin: float,
    *,
    test: str = "eprocess",
    alpha: float = 0.05,
    relative: bool = False,
    baseline: float = 1.0,
) -> int | None:
    """Cases after which a variant that loses nothing is proven, when a share ``flip_rate`` of answers flips.

    As many are gained as lost. For tests at a fixed number: with probability 0.80, and never fewer than
    ``fewest_cases``. For the e-process: where its expected logarithm crosses, which about half of all such runs reach
    earlier. ``baseline`` is the baseline's score, which ``flip_rate`` must leave room for. None: no number of cases.
    """
    scaled = margin * baseline if relative else margin
    least = fewest_cases(margin, test=test, alpha=alpha, relative=relative, baseline=baseline)
    if test != "eprocess":
        return max(least, power_cases(flip_rate, scaled, alpha=alpha))
    each = min(flip_rate / 2, baseline, 1 - flip_rate / 2)
    right = min(baseline - each, 1 - 2 * each)
    shares = {(1.0, 0.0): each, (0.0, 1.0): each, (1.0, 1.0): right, (0.0, 0.0): 1 - 2 * each - right}
    pairs = Contrast(Counter({pair: round(share * SHARES) for pair, share in shares.items()}))

    def proven(n: int) -> bool:
        return pairs.log_e(margin, relative=relative, scale=n / SHARES)[0] >= math.log(1 / alpha)

    return smallest(proven, start=least) if proven(LIMIT) else None


def needed_cases(
    contrast: Contrast, margin: float, *, relative: bool, pass_alpha: float, fail_alpha: float
) -> int | None:
    """Cases after which the e-process would decide if answers went on as they did.

    The pairs seen are scaled up until one side crosses; once it has, it stays above, because log E is convex in the
    scale and starts at 0. None when the change seen lies so near the margin that no number of cases decides.
    """
    n = contrast.n

    def decided(total: int) -> bool:
        passing, failing = contrast.log_e(margin, relative=relative, scale=total / n)
        return passing >= math.log(1 / pass_alpha) or failing >= math.log(1 / fail_alpha)

    return smallest(decided, start=n) if n and decided(LIMIT) else None


def needed_pairs(counts: PairedCounts, n: int, margin: float, *, test: str, alpha: float, relative: bool) -> int | None:
    """Cases with which a test at a fixed number would decide, with probability 0.8, if answers went on as they did.

    ``counts`` of ``n`` cases visited, of which a relative margin may have left some out; more than ``n``.
    """
    right = (counts.n - counts.gains) / counts.n if relative else 1.0
    scaled = margin * right  # in parts of the scale
    if not scaled or scaled + counts.change == 0:
        return None
    flips = (counts.gains + counts.losses) / counts.n
    likely = power_cases(flips, scaled, alpha=alpha, change=counts.change)
    least = fewest_cases(margin, test=test, alpha=alpha, relative=relative, baseline=right)
    total = math.ceil(max(likely, least) * n / counts.n)
    return max(total, n + 1) if total <= LIMIT else None
