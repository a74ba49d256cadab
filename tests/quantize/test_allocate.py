"""Budgets of several kinds: every one is kept, and within them nothing drifts less."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quantgate.errors import UsageError
from quantgate.quantize.allocate import Limit, least_drift, least_of

WEIGHTS = {"math": 1.0, "chat": 0.25}
GROUPS, SOURCES = 4, 3


def instance(seed: int):
    rng = np.random.default_rng(seed)
    drift = {name: rng.exponential(1e-3, (GROUPS, SOURCES)) for name in WEIGHTS}
    sizes = rng.integers(100, 100_000, (GROUPS, SOURCES)).astype(float)
    return drift, sizes, rng.exponential(0.3, (GROUPS, SOURCES))


def between(table, share: float) -> float:
    low, high = table.min(axis=1).sum(), table.max(axis=1).sum()
    return float(low + share * (high - low))


def every_choice():
    return itertools.product(range(SOURCES), repeat=GROUPS)


def total(table, choice) -> float:
    return float(table[np.arange(GROUPS), list(choice)].sum())


seeds, shares = st.integers(0, 2**32 - 1), st.floats(0, 1)


@given(seeds, shares, shares)
@settings(max_examples=60, deadline=None)
def test_no_budget_is_exceeded_and_no_mixture_within_all_drifts_less(seed, bytes_share, time_share) -> None:
    drift, sizes, times = instance(seed)
    budget, limit = np.ceil(between(sizes, bytes_share)), Limit("ms", times, between(times, time_share) * (1 + 1e-9))
    allowed = [one for one in every_choice() if total(sizes, one) <= budget and total(times, one) <= limit.most]
    if not allowed:
        with pytest.raises(UsageError, match="no mixture"):
            least_drift(drift, sizes, budget, WEIGHTS, [limit])
        return
    worst = {one: max(total(drift[name], one) / WEIGHTS[name] for name in drift) for one in allowed}
    made = least_drift(drift, sizes, budget, WEIGHTS, [limit])
    assert made.choice in worst
    assert made.bytes <= budget and limit.used(made.choice) <= limit.most
    assert made.drift == pytest.approx(min(worst.values()), rel=1e-3)


@given(seeds, shares)
@settings(max_examples=40, deadline=None)
def test_a_budget_that_is_a_limit_too_changes_nothing(seed, share) -> None:
    drift, sizes, times = instance(seed)
    budget = float(np.ceil(between(sizes, share)))
    alone = least_drift(drift, sizes, budget, WEIGHTS)
    loose = Limit("ms", times, between(times, 1.0) * 2)
    same = Limit("bytes", sizes, budget)
    for limits, most in (([loose], budget), ([same], np.inf), ([same, loose], np.inf)):
        made = least_drift(drift, sizes, most, WEIGHTS, limits)
        assert made.bytes <= budget
        assert made.drift == pytest.approx(alone.drift, rel=1e-3)


@given(seeds, shares)
@settings(max_examples=40, deadline=None)
def test_the_least_of_one_table_within_another_is_that_of_all_mixtures(seed, share) -> None:
    _, sizes, times = instance(seed)
    limit = Limit("ms", times, between(times, share))
    allowed = [total(sizes, one) for one in every_choice() if total(times, one) <= limit.most * (1 - 1e-6)]
    assume(allowed)
    assert least_of(sizes, [limit]) == pytest.approx(min(allowed), rel=1e-3)


def test_too_small_a_limit_names_the_least() -> None:
    drift, sizes, _ = instance(0)
    times = np.full((GROUPS, SOURCES), 0.5)
    with pytest.raises(UsageError, match="a budget of 1 ms is too small; the least is 2"):
        least_drift(drift, sizes, 1e9, WEIGHTS, [Limit("ms", times, 1.0)])
    assert least_of(sizes, [Limit("ms", times, 1.0)]) is None


def test_without_any_budget_the_closest_sources_are_taken() -> None:
    drift, sizes, _ = instance(1)
    one = {"math": drift["math"]}
    assert least_drift(one, sizes, np.inf, WEIGHTS).choice == tuple(drift["math"].argmin(axis=1))
