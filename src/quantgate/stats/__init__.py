"""Stats: what evidence is. Paired tests of "did the variant lose more than the margin?", with an error rate that holds.

    finding = judge(baseline_scores, variant_scores, margin=0.03, relative=True)      # scores in [0, 1], paired
    finding.verdict            # pass: proven within the margin; fail: proven beyond it; else inconclusive

Which test judges is registered before the run; never the better of two.

* ``eprocess``: may be looked at after every case; any scores in [0, 1]; the default.
* ``exact``: one look at a number of cases fixed beforehand; scores of 0 and 1; keeps alpha whatever the flip rate.
* ``tango``: the same, by the normal approximation of its score statistic, which passes up to a tenth too often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from quantgate.errors import DataError, UnknownName, UsageError
from quantgate.records import Record
from quantgate.stats import paired
from quantgate.stats.plan import needed_cases, needed_pairs
from quantgate.stats.sequential import Contrast

Verdict = Literal["pass", "fail", "inconclusive"]
TESTS = ("eprocess", "exact", "tango")


class Finding(Record):
    """What a test says about one capability. Changes are fractions, negative for a loss."""

    verdict: Verdict
    test: str
    margin: float
    relative: bool  # changes and limits are shares of the baseline's score, not points of the scale
    n: int
    gains: int  # cases whose score rose
    losses: int  # cases whose score fell
    effect: float | None  # change seen; None when there is nothing to compare with
    low: float | None  # one-sided limits of the true change; None when nothing bounds it
    high: float | None
    evidence_pass: float | None  # against "lost the margin or more": log E (eprocess), else p-value
    evidence_fail: float | None  # against "lost the margin or less"
    needed: int | None  # cases that would probably have decided, if it is undecided
    measurable_loss: bool = False  # passed, and yet a loss is itself proven


def judge(
    baseline: Sequence[float],
    variant: Sequence[float],
    margin: float,
    *,
    relative: bool = True,
    test: str = "eprocess",
    alpha: float = 0.05,
    pass_alpha: float | None = None,
) -> Finding:
    """Judge paired scores. ``pass_alpha`` is the level to pass at, where many variants share alpha.

    Pass is when ``low >= -margin``, fail when ``high <= -margin``, for every test; no pair at all is inconclusive.
    Raises DataError for unpaired scores, or scores outside [0, 1] or NaN; UsageError for a margin, level or test that
    does not exist, and for graded scores with a test that takes 0 and 1 only.
    """
    level = alpha if pass_alpha is None else pass_alpha
    _refuse(baseline, variant, margin, test, (alpha, level))
    if test == "eprocess":
        return _sequential(baseline, variant, margin, relative, alpha, level)
    return _fixed(baseline, variant, margin, relative, test, alpha, level)


def _refuse(
    baseline: Sequence[float], variant: Sequence[float], margin: float, test: str, levels: tuple[float, float]
) -> None:
    if test not in TESTS:
        raise UnknownName("test", test, TESTS, where="judge")
    if not 0.0 < margin < 1.0:
        raise UsageError(
            f"judge: margin {margin} lies outside 0..1; give the loss allowed as a fraction, 0.03 is three percent"
        )
    if not all(0.0 < level < 1.0 for level in levels):
        raise UsageError(f"judge: alpha {levels[0]}, {levels[1]} to pass, must lie between 0 and 1; 0.05 is usual")
    if len(baseline) != len(variant):
        raise DataError(
            f"{len(baseline)} baseline scores and {len(variant)} variant scores; pairs are needed, run both sides"
        )
    for value in (*baseline, *variant):
        if not 0.0 <= value <= 1.0:
            raise DataError(f"score {value} lies outside 0..1; mend the scorer that gave it")
        if test != "eprocess" and value not in (0.0, 1.0):
            raise UsageError(
                f"judge: the test '{test}' takes scores of 0 and 1 only, not {value}; use the test 'eprocess'"
            )


def _sequential(
    baseline: Sequence[float], variant: Sequence[float], margin: float, relative: bool, alpha: float, pass_alpha: float
) -> Finding:
    """The e-process: may be looked at after every case."""
    contrast = Contrast()
    for pair in zip(baseline, variant, strict=True):
        contrast.add(*pair)
    passing, failing = contrast.log_e(margin, relative=relative)
    verdict: Verdict = "inconclusive"
    if failing >= math.log(1 / alpha):
        verdict = "fail"
    elif passing >= math.log(1 / pass_alpha):
        verdict = "pass"
    limits: tuple[float | None, float | None] = (None, None)
    if baseline:
        limits = contrast.limits(relative=relative, pass_alpha=pass_alpha, fail_alpha=alpha, margin=margin)
    needed = None
    if verdict == "inconclusive":
        needed = needed_cases(contrast, margin, relative=relative, pass_alpha=pass_alpha, fail_alpha=alpha)
    return _finding(baseline, variant, margin, relative, "eprocess", verdict, limits, (passing, failing), needed)


def _fixed(
    baseline: Sequence[float],
    variant: Sequence[float],
    margin: float,
    relative: bool,
    test: str,
    alpha: float,
    pass_alpha: float,
) -> Finding:
    """The tests for a number of cases fixed beforehand: binary scores, looked at once."""
    counts = paired.informative(baseline, variant, relative=relative)
    if counts is None:
        return _finding(baseline, variant, margin, relative, test, "inconclusive", (None, None), (None, None), None)
    p_value = paired.exact_p if test == "exact" else paired.score_p
    p_pass = p_value(counts, -margin, relative=relative)
    p_fail = p_value(counts, -margin, relative=relative, at_least=True)
    verdict: Verdict = "fail" if p_fail <= alpha else "pass" if p_pass <= pass_alpha else "inconclusive"
    limits = paired.limits(
        counts, relative=relative, exact=test == "exact", pass_alpha=pass_alpha, fail_alpha=alpha, margin=margin
    )
    needed = None
    if verdict == "inconclusive":
        needed = needed_pairs(counts, len(baseline), margin, test=test, alpha=pass_alpha, relative=relative)
    return _finding(baseline, variant, margin, relative, test, verdict, limits, (p_pass, p_fail), needed)


def _finding(
    baseline: Sequence[float],
    variant: Sequence[float],
    margin: float,
    relative: bool,
    test: str,
    verdict: Verdict,
    limits: tuple[float | None, float | None],
    evidence: tuple[float | None, float | None],
    needed: int | None,
) -> Finding:
    before, after = (
        math.fsum(baseline),
        math.fsum(variant),
    )  # exact sums, so that the order of the cases leaves no trace
    scale = before if relative else float(len(baseline))
    effect = (after - before) / scale if scale else math.inf
    low, high = limits
    return Finding(
        verdict=verdict,
        test=test,
        margin=margin,
        relative=relative,
        n=len(baseline),
        gains=sum(v > b for b, v in zip(baseline, variant, strict=True)),
        losses=sum(v < b for b, v in zip(baseline, variant, strict=True)),
        effect=effect if math.isfinite(effect) else None,
        low=low,
        high=high,
        evidence_pass=evidence[0],
        evidence_fail=evidence[1],
        needed=needed,
        measurable_loss=verdict == "pass" and high is not None and high < 0,
    )


__all__ = ["TESTS", "Finding", "Verdict", "judge"]
