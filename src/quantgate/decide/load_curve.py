"""The other rates of a sweep, beside the load test that decides: what a curve of latency over load is drawn from."""

from __future__ import annotations

from quantgate.decide.rules import LoadAt
from quantgate.loadtest.result import LoadResult


def curve_of(result: LoadResult, arm: str, rate: float, limit: int | None) -> tuple[LoadAt, ...]:
    """Every rate but ``rate`` at which ``arm`` was asked under ``limit``, with the baseline's arm beside it.

    The lowest rate first; empty where one rate alone was asked. The first arm is the baseline's own and has none
    beside it.
    """
    own = [one for one in result.results if (one.arm, one.limit) == (arm, limit) and one.rate != rate]
    first = result.arms[0]
    beside = {one.rate: one.measured for one in result.results if (one.arm, one.limit) == (first, limit)}
    return tuple(
        LoadAt(rate=one.rate, measured=one.measured, baseline=None if arm == first else beside.get(one.rate))
        for one in sorted(own, key=lambda one: one.rate)
    )
