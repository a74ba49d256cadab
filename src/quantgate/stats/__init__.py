"""Stats: what evidence is. Paired tests of "did the variant lose more than the margin?", with an error rate that holds.

    finding = judge(baseline_scores, variant_scores, margin=0.03, relative=True)      # scores in [0, 1], paired
    finding.verdict            # pass: proven within the margin; fail: proven beyond it; else inconclusive

Which test judges is registered before the run; never the better of two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from quantgate.errors import DataError, UnknownName, UsageError
from quantgate.records import Record
from quantgate.stats.intervals import contrast_limits, contrast_p
from quantgate.stats.paired import PairedCounts, exact_p, tango_limits, tango_p
from quantgate.stats.plan import needed_cases, power_cases
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
    low: float | None  # one-sided limits of the true change
    high: float | None
    evidence_pass: float | None  # log E for "no worse than the margin", or p-value
    evidence_fail: float | None
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

    Raises DataError for unpaired scores, or scores outside [0, 1] or NaN.
    """
    if len(baseline) != len(variant):
        raise DataError(f"{len(baseline)} baseline scores and {len(variant)} variant scores; pairs are needed, run both sides")
    for value in (*baseline, *variant):
        if not 0.0 <= value <= 1.0:
            raise DataError(f"score {value} lies outside 0..1; mend the scorer that gave it")
    level = alpha if pass_alpha is None else pass_alpha
    if test not in TESTS:
        raise UnknownName("test", test, TESTS, where="judge")
    if test != "eprocess" and len(baseline):
        return _fixed(baseline, variant, margin, relative, test, alpha, level)
    return _sequential(baseline, variant, margin, relative, alpha, level)


def _sequential(
    baseline: Sequence[float], variant: Sequence[float], margin: float, relative: bool, alpha: float, pass_alpha: float
) -> Finding:
    """The e-process: may be looked at after every case."""
    contrast = Contrast()
    for b, v in zip(baseline, variant, strict=True):
        contrast.add(b, v)
    passing, failing = contrast.log_e(margin, relative=relative)
    # Both at once needs evidence for two contradicting claims; the safe reading is the failure.
    verdict: Verdict = "inconclusive"
    if failing >= math.log(1 / alpha):
        verdict = "fail"
    elif passing >= math.log(1 / pass_alpha):
        verdict = "pass"
    low, high = contrast.limits(relative=relative, pass_alpha=pass_alpha, fail_alpha=alpha) if baseline else (None, None)
    needed = None
    if verdict == "inconclusive":
        needed = needed_cases(*contrast.against(margin, relative=relative), pass_alpha=pass_alpha, fail_alpha=alpha)
    return _finding(
        baseline, variant, margin, relative, "eprocess", verdict, (low, high), (passing, failing), needed
    )


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
    if any(score not in (0.0, 1.0) for score in (*baseline, *variant)):
        raise UsageError(f"judge: the test '{test}' takes scores of 0 and 1 only; use the test 'eprocess' for graded scores")
    if relative:
        return _contrast_t(baseline, variant, margin, test, alpha, pass_alpha)
    gains = sum(v > b for b, v in zip(baseline, variant, strict=True))
    losses = sum(v < b for b, v in zip(baseline, variant, strict=True))
    counts = PairedCounts(len(baseline), gains, losses)
    low, _ = tango_limits(counts, pass_alpha)
    _, high = tango_limits(counts, alpha)
    p = exact_p(counts, margin) if test == "exact" else tango_p(counts, margin)
    verdict: Verdict = "fail" if high < -margin else "pass" if p <= pass_alpha else "inconclusive"
    flips = max((gains + losses) / counts.n, 0.01)
    needed = power_cases(flips, margin, alpha=pass_alpha) if verdict == "inconclusive" else None
    return _finding(baseline, variant, margin, relative, test, verdict, (low, high), (p, None), needed)


def _contrast_t(
    baseline: Sequence[float], variant: Sequence[float], margin: float, test: str, alpha: float, pass_alpha: float
) -> Finding:
    """A relative margin at fixed n: Student's t on v - (1 - margin) b, from 100 cases up."""
    if len(baseline) < 100:
        raise UsageError(
            f"judge: {len(baseline)} cases are too few for the test '{test}' with a relative margin, which needs 100; "
            "use the test 'eprocess', or relative: false"
        )
    p_pass, p_fail = contrast_p(baseline, variant, margin)
    low, high = contrast_limits(baseline, variant, pass_alpha, alpha)
    verdict: Verdict = "fail" if p_fail <= alpha else "pass" if p_pass <= pass_alpha else "inconclusive"
    return _finding(baseline, variant, margin, True, "contrast_t", verdict, (low, high), (p_pass, p_fail), None)


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
    moves = [v - b for b, v in zip(baseline, variant, strict=True)]
    scale = sum(baseline) if relative else float(len(moves))
    low, high = limits
    return Finding(
        verdict=verdict,
        test=test,
        margin=margin,
        relative=relative,
        n=len(moves),
        gains=sum(move > 0 for move in moves),
        losses=sum(move < 0 for move in moves),
        effect=sum(moves) / scale if scale else None,
        low=low,
        high=high,
        evidence_pass=evidence[0],
        evidence_fail=evidence[1],
        needed=needed,
        measurable_loss=verdict == "pass" and high is not None and high < 0,
    )


__all__ = ["TESTS", "Finding", "PairedCounts", "Verdict", "judge"]
