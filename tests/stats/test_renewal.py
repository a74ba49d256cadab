"""Renewed evidence: a weighted mean that is still an e-process, and finds late faults that old evidence would hide."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stats.fair import ever

from quantgate.errors import UsageError
from quantgate.stats import attribution
from quantgate.stats.attribution import Counts
from quantgate.stats.renewal import decided_at, log_mix, weights

ROWS = st.lists(st.tuples(st.floats(0, 1), st.floats(-50, 50)), min_size=1, max_size=6)


@given(st.integers(1, 1000), st.floats(0.01, 0.99))
def test_weights_of_copies_sum_to_one_and_the_first_gets_its_own(copies: int, first: float) -> None:
    found = weights(copies, first)
    assert len(found) == copies
    assert math.fsum(found) == pytest.approx(1, abs=1e-12)
    assert copies == 1 or found[0] == first


@given(ROWS)
def test_what_is_missing_of_the_weight_stands_for_copies_that_have_not_begun(rows: list[tuple[float, float]]) -> None:
    total = sum(weight for weight, _ in rows)
    rows = [(weight / max(total, 1) * 0.7, log_e) for weight, log_e in rows]
    missing = 1 - math.fsum(weight for weight, _ in rows)
    expected = math.fsum(weight * math.exp(log_e) for weight, log_e in rows) + missing
    assert log_mix(rows) == pytest.approx(math.log(expected), abs=1e-9)
    assert log_mix([*rows, (missing, 0.0)]) == pytest.approx(log_mix(rows), abs=1e-9)


@given(st.permutations([(0.2, 700.0), (0.3, -700.0), (0.1, 3.0), (0.4, 0.0)]))
def test_mixing_is_the_same_in_any_order_and_does_not_overflow(rows: list[tuple[float, float]]) -> None:
    assert log_mix(rows) == 700 + math.log(0.2)


def test_a_process_that_has_lost_everything_leaves_the_others() -> None:
    assert log_mix([(0.5, -math.inf), (0.5, 2.0)]) == pytest.approx(2 + math.log(0.5))
    assert log_mix([]) == 0.0


def renewed(events: tuple[bool, ...], starts: tuple[int, ...]) -> float:
    """log E over copies that count events from their start on, all at odds 1/4."""
    rows = []
    for start, weight in zip(starts, weights(len(starts)), strict=True):
        seen = events[start:]
        counts: Counts = {0.25: [len(seen), sum(seen)]}
        rows.append((weight, attribution.log_worse(counts)))
    return log_mix(rows)


@pytest.mark.parametrize("starts", [(0, 4, 8), (0, 1, 2, 3, 4, 5), (0, 20)])
def test_copies_together_cross_at_most_alpha_of_the_time(starts: tuple[int, ...]) -> None:
    chances = [{True: 0.25, False: 0.75}] * 12
    crossed, mean = ever(chances, lambda past: math.exp(renewed(past, starts)), 5.0)
    assert mean == pytest.approx(1)
    assert 0 < crossed <= 0.2


def test_a_fault_after_weeks_is_found_by_a_copy_and_not_by_the_oldest_evidence() -> None:
    fault = [40, 36]
    old = attribution.log_worse({0.5: [5000 + fault[0], 2400 + fault[1]]})
    copy = attribution.log_worse({0.5: fault})
    assert old < 0
    assert log_mix(zip(weights(30), [old, copy, *[0.0] * 28], strict=True)) > math.log(100)


def test_a_share_of_the_error_rate_is_decided_at_more_evidence() -> None:
    assert decided_at(0.01) == pytest.approx(math.log(100))
    assert decided_at(0.01, 0.1) == pytest.approx(math.log(1000))


@pytest.mark.parametrize(("alpha", "weight"), [(0.0, 1.0), (1.0, 1.0), (0.01, 0.0), (0.01, 1.1)])
def test_error_rates_outside_their_range_are_refused(alpha: float, weight: float) -> None:
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        decided_at(alpha, weight)


def test_no_copies_are_refused() -> None:
    with pytest.raises(UsageError, match="0 copies"):
        weights(0)
