"""Graded values: an e-process by enumeration, products as defined, and intervals that agree with the tests."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stats.fair import best_stop

from quantgate.errors import DataError
from quantgate.stats import graded
from quantgate.stats.graded import BETS, CENTRES, MOST, Counts

Unit = tuple[float, int, bool]  # odds, 64ths, whether it is the trial's
ODDS = (0.25, 0.5, 0.02, 0.9, 0.25, 0.5)


def counted(units: tuple[Unit, ...]) -> Counts:
    counts: Counts = {}
    for odds, value, trial in units:
        counts.setdefault((odds, value), [0, 0])[trial] += 1
    return counts


@st.composite
def some_counts(draw: st.DrawFn, most: int = 200) -> Counts:
    keys = draw(st.lists(st.tuples(st.sampled_from([0.01, 0.1, 0.5, 0.95]), st.integers(0, 64)), max_size=6))
    return {key: [draw(st.integers(0, most)), draw(st.integers(0, most))] for key in keys}


@given(some_counts(30), st.floats(-0.9, 0.9))
def test_evidence_is_the_mean_of_products_as_defined(counts: Counts, delta: float) -> None:
    total = 0.0
    for centre in CENTRES:
        for bet in BETS:
            log = 0.0
            for (odds, value), sides in counts.items():
                spread = odds * (1 - odds)
                least = max(odds * (1 - centre), (1 - odds) * centre)
                stake = min(bet, MOST / (least + spread))
                for trial, n in enumerate(sides):
                    z = (value / 64 - centre) * (trial - odds) - spread * delta
                    assert 1 + stake * z > 0.05
                    log += n * math.log(1 + stake * z)
            total += math.exp(log) / (len(CENTRES) * len(BETS))
    assert graded.log_worse(counts, delta) == pytest.approx(math.log(total), abs=1e-8)


@pytest.mark.parametrize("delta", [0.0, 0.25])
@pytest.mark.parametrize("lower", [0.0, 0.2])
def test_no_stopping_rule_wins_whatever_the_means_do(delta: float, lower: float) -> None:
    """Values of three sizes; the control's distribution follows what came before, the trial's mean stays within."""

    def draws(past: tuple[Unit, ...]) -> dict[Unit, float]:
        odds = ODDS[len(past)]
        often = 0.6 if sum(value for _, value, trial in past if trial) < 64 else 0.1
        theirs = {0: 1 - often, 32: often * 0.7, 64: often * 0.3}
        excess = delta - lower * often  # the trial's mean above the control's
        ours = {0: 1 - often - excess, 32: often * 0.7, 64: often * 0.3 + excess} if excess >= 0 else None
        if ours is None:
            ours = {0: 1 - often * (1 - lower), 32: often * (1 - lower) * 0.7, 64: often * (1 - lower) * 0.3}
        return {(odds, value, False): p * (1 - odds) for value, p in theirs.items()} | {
            (odds, value, True): p * odds for value, p in ours.items()
        }

    def e(past: tuple[Unit, ...]) -> float:
        return math.exp(graded.log_worse(counted(past), delta))

    value = best_stop(5, draws, e)
    assert value <= 1 + 1e-9
    assert lower or value == pytest.approx(1, abs=1e-9)


def test_no_stopping_rule_promotes_a_trial_beyond_the_margin() -> None:
    def draws(past: tuple[Unit, ...]) -> dict[Unit, float]:
        odds = ODDS[len(past)]
        theirs, ours = {0: 0.7, 64: 0.3}, {0: 0.55, 64: 0.45}
        return {(odds, value, False): p * (1 - odds) for value, p in theirs.items()} | {
            (odds, value, True): p * odds for value, p in ours.items()
        }

    value = best_stop(6, draws, lambda past: math.exp(graded.log_better(counted(past), 0.15)))
    assert value == pytest.approx(1, abs=1e-9)


@given(some_counts(), st.floats(-0.9, 0.9), st.floats(0, 0.5))
def test_evidence_of_worse_falls_and_of_better_rises_with_the_difference(
    counts: Counts, delta: float, more: float
) -> None:
    assert graded.log_worse(counts, delta + more) <= graded.log_worse(counts, delta) + 1e-7
    assert graded.log_better(counts, delta + more) >= graded.log_better(counts, delta) - 1e-7


@settings(max_examples=40)
@given(some_counts(), st.sampled_from([0.01, 0.2]))
def test_interval_agrees_with_the_tests(counts: Counts, alpha: float) -> None:
    low, high = graded.interval(counts, alpha)
    enough = math.log(2 / alpha)
    assert -1 <= low <= 1
    assert -1 <= high <= 1
    assert (low >= 0) == (graded.log_worse(counts) >= enough)
    assert (high <= 0) == (graded.log_better(counts, 0.0) >= enough)


@given(some_counts(), st.randoms(use_true_random=False))
def test_order_of_the_units_leaves_no_trace(counts: Counts, shuffler: random.Random) -> None:
    rows = list(counts.items())
    shuffler.shuffle(rows)
    assert graded.log_worse(dict(rows), 0.1) == graded.log_worse(counts, 0.1)
    assert graded.estimate(dict(rows)) == graded.estimate(counts)


def test_interval_closes_in_on_the_difference_of_means() -> None:
    widths = []
    for n in (100, 1000, 10000):
        counts: Counts = {(0.5, 0): [n * 8 // 10, n * 6 // 10], (0.5, 64): [n * 2 // 10, n * 4 // 10]}
        low, high = graded.interval(counts, 0.05)
        assert low <= 0.2 <= high
        assert graded.estimate(counts) == pytest.approx(0.2)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.12


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, None),
        ({(0.5, 64): [5, 0]}, None),
        ({(0.5, 64): [5, 5], (0.5, 0): [5, 15]}, -0.25),
        ({(0.5, 64): [0, 5], (0.1, 0): [5, 0]}, None),  # nothing at the same odds
    ],
)
def test_estimate_is_the_difference_of_means_where_both_sides_have_units(
    counts: Counts, expected: float | None
) -> None:
    assert graded.estimate(counts) == expected


def test_ends_cross_where_the_odds_cannot_have_been_those() -> None:
    low, high = graded.interval({(0.01, 2): [0, 33]}, 0.2)
    assert low > high


def test_exchanged_roles_turn_the_difference_round() -> None:
    counts: Counts = {(0.25, 0): [40, 9], (0.25, 16): [12, 3], (0.25, 64): [4, 8]}
    forth, back = graded.estimate(counts), graded.estimate(graded.mirrored(counts))
    assert forth is not None
    assert back == pytest.approx(-forth)
    assert graded.mirrored(graded.mirrored(counts)) == counts
    low, high = graded.interval(counts, 0.2)
    assert graded.interval(graded.mirrored(counts), 0.2) == pytest.approx((-high, -low), abs=1e-5)


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_a_value_outside_the_range_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="outside 0"):
        graded.quantized(value)


@given(st.floats(0, 1))
def test_values_are_quantized_to_the_nearest_64th(value: float) -> None:
    assert abs(graded.quantized(value) / 64 - value) <= 1 / 128


def test_nothing_is_no_evidence() -> None:
    assert graded.log_worse({}) == 0.0
    assert graded.interval({}, 0.05) == (-1.0, 1.0)
