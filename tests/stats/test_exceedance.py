"""Frozen quantiles: e-processes by enumeration, thresholds by hand, and what a promotion must exclude."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stats.fair import best_stop

from quantgate.errors import DataError
from quantgate.stats import attribution, exceedance
from quantgate.stats.attribution import Counts
from quantgate.stats.exceedance import BETS, LEVELS, MOST, RANKED, RANKS

Unit = tuple[float, int, bool]  # odds, how many levels it is beyond (1 to 6), whether it is the trial's
ODDS = (0.25, 0.5, 0.02, 0.9, 0.25, 0.5)


def counted(units: tuple[Unit, ...]) -> list[Counts]:
    levels: list[Counts] = [{} for _ in LEVELS]
    for odds, beyond, trial in units:
        for level in levels[:beyond]:
            row = level.setdefault(odds, [0, 0])
            row[0] += 1
            row[1] += trial
    return levels


@st.composite
def some_levels(draw: st.DrawFn) -> list[Counts]:
    units = st.tuples(st.sampled_from([0.02, 0.1, 0.5, 0.98]), st.integers(1, 6), st.booleans())
    many = draw(st.lists(st.tuples(units, st.integers(1, 200)), max_size=12))
    return counted(tuple(one for one, n in many for _ in range(n)))


def of_tails(tails: dict[int, float]) -> dict[int, float]:
    """Probability of being beyond exactly so many levels, from that of being beyond at least so many."""
    keys = sorted(tails)
    return {at: tails[at] - tails.get(after, 0.0) for at, after in zip(keys, [*keys[1:], 99], strict=True)}


def draws_of(control: dict[int, float], trial: dict[int, float], past: tuple[Unit, ...]) -> dict[Unit, float]:
    odds = ODDS[len(past)]
    return {(odds, at, False): p * (1 - odds) for at, p in of_tails(control).items()} | {
        (odds, at, True): p * odds for at, p in of_tails(trial).items()
    }


@pytest.mark.parametrize(("ratio", "factor"), [(1.0, 1.0), (1.0, 0.6), (0.8, 0.8), (1.25, 1.25)])
def test_no_stopping_rule_wins_against_tails_within_the_ratio(ratio: float, factor: float) -> None:
    """Three sizes of values; how often the control's are long follows what came before."""

    def draws(past: tuple[Unit, ...]) -> dict[Unit, float]:
        long = 0.5 if sum(beyond for _, beyond, trial in past if trial) < 4 else 0.2
        control = {1: 1.0, 2: long, 4: long * 0.4}
        trial = {1: 1.0, 2: long * factor, 4: long * 0.4 * factor}
        return draws_of(control, trial, past)

    value = best_stop(5, draws, lambda past: math.exp(exceedance.log_worse(counted(past), ratio)))
    assert value <= 1 + 1e-9
    assert (ratio, factor) != (1.0, 1.0) or value == pytest.approx(1, abs=1e-9)


def test_no_stopping_rule_promotes_where_one_level_alone_is_beyond_the_margin() -> None:
    """Far better at the median and beyond the margin in the tail: the least of the levels must not be fooled."""

    def draws(past: tuple[Unit, ...]) -> dict[Unit, float]:
        return draws_of({1: 1.0, 2: 0.6, 4: 0.2}, {1: 1.0, 2: 0.31, 4: 0.3}, past)

    assert best_stop(5, draws, lambda past: math.exp(exceedance.log_better(counted(past), 1.5))) <= 1 + 1e-9


def test_evidence_is_the_weighted_mean_of_levels_and_ranks_as_defined() -> None:
    units: tuple[Unit, ...] = ((0.25, 1, False), (0.25, 6, True), (0.5, 3, True), (0.5, 2, False), (0.5, 4, True))
    levels = counted(units)
    expected = sum(0.1 * math.exp(attribution.log_worse(one)) for one in levels[1:])
    for bet in BETS:
        product = 1.0
        for odds, beyond, trial in units:
            most = MOST / max((RANKS[-1] - 0.5) * odds, (0.5 - RANKS[0]) * (1 - odds))
            product *= 1 + min(bet, most) * (RANKS[beyond - 1] - 0.5) * (trial - odds)
        expected += RANKED / len(BETS) * product
    assert exceedance.log_worse(levels) == pytest.approx(math.log(expected), abs=1e-12)


def test_ranks_are_centred_so_that_the_share_of_units_alone_moves_nothing() -> None:
    chances = [high - low for low, high in zip(LEVELS, (*LEVELS[1:], 1.0), strict=True)]
    assert sum(p * rank for p, rank in zip(chances, RANKS, strict=True)) == pytest.approx(0.5)


@settings(max_examples=50)
@given(some_levels(), st.floats(0.1, 5), st.floats(1, 2))
def test_evidence_of_worse_falls_and_of_better_rises_with_the_ratio(
    levels: list[Counts], ratio: float, more: float
) -> None:
    assert exceedance.log_worse(levels, ratio * more) <= exceedance.log_worse(levels, ratio) + 1e-9
    assert exceedance.log_better(levels, ratio * more) >= exceedance.log_better(levels, ratio) - 1e-9


@settings(max_examples=30)
@given(some_levels(), st.sampled_from([0.01, 0.3]))
def test_interval_agrees_with_the_tests(levels: list[Counts], alpha: float) -> None:
    low, high = exceedance.interval(levels, alpha)
    enough = math.log(2 / alpha)
    assert (low is not None and low >= 1) == (exceedance.log_worse(levels) >= enough)
    assert (high is not None and high <= 1) == (exceedance.log_better(levels, 1.0) >= enough)


def test_estimate_is_that_of_the_level_with_most_to_say() -> None:
    levels: list[Counts] = [{0.5: [1000, 500]}] + [{0.5: [100, 50]} for _ in LEVELS[1:]]
    levels[4] = {0.5: [90, 60]}
    assert exceedance.telling(levels) == 4
    assert exceedance.estimate(levels) == pytest.approx(2.0)


@pytest.mark.parametrize("worse", ["more", "less"])
def test_a_quantile_is_beyond_itself_as_often_as_it_says(worse: exceedance.Worse) -> None:
    values = [float(one) for one in range(1000)]
    thresholds = exceedance.frozen(values, worse)
    assert thresholds is not None
    beyond = [
        sum(column) for column in zip(*(exceedance.exceed(one, thresholds, worse) for one in values), strict=True)
    ]
    assert beyond == [1000, 500, 250, 100, 50, 10]


def test_thresholds_wait_for_enough_values_and_leave_out_what_is_no_number() -> None:
    values = [float(one) for one in range(exceedance.LEAST)]
    assert exceedance.frozen(values[1:]) is None
    assert exceedance.frozen([*values[1:], math.nan, math.inf]) is None
    assert exceedance.frozen([*values, math.nan, -math.inf]) == exceedance.frozen(values)
    assert exceedance.frozen([], least=0) is None


def test_equal_values_are_beyond_nothing_but_the_first_level() -> None:
    thresholds = exceedance.frozen([2.0] * 300)
    assert thresholds is not None
    assert exceedance.exceed(2.0, thresholds) == (True, False, False, False, False, False)
    assert exceedance.exceed(2.1, thresholds) == (True,) * 6
    assert exceedance.exceed(math.nan, thresholds) == (False,) * 6


def test_counts_of_other_levels_are_refused() -> None:
    with pytest.raises(DataError, match="counts of 5 levels, 6 are expected"):
        exceedance.log_worse([{}] * 5)


def test_nothing_is_no_evidence() -> None:
    nothing: list[Counts] = [{} for _ in LEVELS]
    assert exceedance.log_worse(nothing) == 0.0
    assert exceedance.log_better(nothing) == 0.0
    assert exceedance.interval(nothing, 0.01) == (None, None)
    assert exceedance.estimate(nothing) is None
