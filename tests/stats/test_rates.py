"""The rate of one side alone: an e-process by enumeration, answers known by hand, limits that agree with the tests."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stats.fair import best_stop, ever

from quantgate.errors import DataError
from quantgate.stats import rates

COUNTS = st.integers(0, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize("bound", [0.005, 0.2, 0.7])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_no_stopping_rule_wins_against_rates_within_the_bound(bound: float, share: float) -> None:
    """The rate moves with what came before, and never beyond its bound."""

    def above(past: tuple[bool, ...]) -> dict[bool, float]:
        rate = bound * (1.0 if sum(past) % 2 else share)
        return {True: rate, False: 1 - rate}

    def below(past: tuple[bool, ...]) -> dict[bool, float]:
        rate = 1 - (1 - bound) * (1.0 if sum(past) % 2 else share)
        return {True: rate, False: 1 - rate}

    assert best_stop(30, above, lambda past: math.exp(rates.log_above(sum(past), len(past), bound))) <= 1 + 1e-9
    assert best_stop(30, below, lambda past: math.exp(rates.log_below(sum(past), len(past), bound))) <= 1 + 1e-9


def test_ever_crossing_has_probability_alpha_at_most_over_every_sequence() -> None:
    chances = [{True: 0.3, False: 0.7}] * 14
    crossed, mean = ever(chances, lambda past: math.exp(rates.log_above(sum(past), len(past), 0.3)), 5.0)
    assert mean == pytest.approx(1)
    assert 0 < crossed <= 0.2


def test_one_unit_multiplies_by_what_was_staked_on_it() -> None:
    expected = sum(a / (1 + (a - 1) * 0.1) for a in rates.ABOVE) / len(rates.ABOVE)
    assert math.exp(rates.log_above(1, 1, 0.1)) == pytest.approx(expected)
    expected = sum(1 / (1 + (a - 1) * 0.1) for a in rates.BELOW) / len(rates.BELOW)
    assert math.exp(rates.log_below(0, 1, 0.1)) == pytest.approx(expected)


@pytest.mark.parametrize(("floor", "needed"), [(0.005, 901), (0.02, 224)])
def test_so_many_units_without_a_bad_one_prove_a_rate_below_the_floor(floor: float, needed: int) -> None:
    proven = [n for n in range(1, 2000) if rates.log_below(0, n, floor) >= math.log(20)]
    assert proven[0] == needed
    assert proven == list(range(needed, 2000))


@given(COUNTS, st.floats(0.001, 0.9), st.floats(1, 1.1))
def test_evidence_falls_for_above_and_rises_for_below_with_the_bound(
    counts: tuple[int, int], bound: float, more: float
) -> None:
    assert rates.log_above(*counts, bound * more) <= rates.log_above(*counts, bound) + 1e-7
    assert rates.log_below(*counts, bound * more) >= rates.log_below(*counts, bound) - 1e-7


@given(COUNTS, st.sampled_from([0.01, 0.2]))
def test_interval_holds_the_rate_seen_and_agrees_with_the_tests(counts: tuple[int, int], alpha: float) -> None:
    bad, n = counts
    low, high = rates.interval(bad, n, alpha)
    assert low <= bad / max(n, 1) <= high or n == 0
    enough = math.log(2 / alpha)
    assert not 0 < low < 1 or rates.log_above(bad, n, low) >= enough
    assert not 0 < high < 1 or rates.log_below(bad, n, high) >= enough


def test_interval_closes_in_on_the_rate() -> None:
    widths = [high - low for n in (100, 1000, 10000, 100000) for low, high in [rates.interval(n // 50, n, 0.05)]]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.003
    assert rates.interval(0, 0, 0.05) == (0.0, 1.0)


@pytest.mark.parametrize(("bad", "n"), [(2, 1), (-1, 5)])
def test_more_bad_units_than_units_are_refused(bad: int, n: int) -> None:
    with pytest.raises(DataError, match="bad units of"):
        rates.log_above(bad, n, 0.1)


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_bounds_that_exclude_nothing_give_no_evidence(bound: float) -> None:
    assert rates.log_above(3, 5, bound) == rates.log_below(3, 5, bound) == 0.0
