"""Event attribution: an e-process by enumeration, answers known by hand, and intervals that agree with the tests."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stats.fair import best_stop, ever

from quantgate.stats import attribution
from quantgate.stats.attribution import FACTORS, WEIGHTS, WEIGHTS_BETTER, Counts

ODDS = (0.1, 0.5, 0.02, 0.25, 0.9, 0.1, 0.5, 0.98, 0.05, 0.25, 0.5, 0.1)  # of one event after another
RATIOS = [1.0, 0.4, 1.25, 3.0]


def owner(odds: float, ratio: float) -> float:
    """That a bad event is the trial's."""
    return odds * ratio / (odds * ratio + 1 - odds)


def counted(events: tuple[tuple[float, bool], ...]) -> Counts:
    counts: Counts = {}
    for odds, trial in events:
        row = counts.setdefault(odds, [0, 0])
        row[0] += 1
        row[1] += trial
    return counts


@st.composite
def some_counts(draw: st.DrawFn) -> Counts:
    odds = draw(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=5, unique=True))
    return {one: [n := draw(st.integers(0, 3000)), draw(st.integers(0, n))] for one in odds}


def test_weights_of_both_directions_sum_to_one() -> None:
    assert math.fsum(WEIGHTS) == pytest.approx(1, abs=1e-15)
    assert math.fsum(WEIGHTS_BETTER) == pytest.approx(1, abs=1e-15)
    assert len(WEIGHTS) == len(WEIGHTS_BETTER) == len(FACTORS)


def test_one_event_of_the_trial_multiplies_by_what_was_staked_on_it() -> None:
    by_hand = sum(w * (0.1 * a / (0.1 * a + 0.9)) / 0.1 for a, w in zip(FACTORS, WEIGHTS, strict=True))
    assert math.exp(attribution.log_worse({0.1: [1, 1]})) == pytest.approx(by_hand, rel=1e-12)
    by_hand = sum(w * (0.9 / (0.1 * a + 0.9)) / 0.9 for a, w in zip(FACTORS, WEIGHTS, strict=True))
    assert math.exp(attribution.log_worse({0.1: [1, 0]})) == pytest.approx(by_hand, rel=1e-12)


@given(some_counts(), st.floats(0.1, 10))
def test_evidence_is_the_mixture_of_products_as_defined(counts: Counts, ratio: float) -> None:
    small = {odds: [min(n, 40), min(trial, min(n, 40))] for odds, (n, trial) in counts.items()}
    expected = 0.0
    for a, w in zip(FACTORS, WEIGHTS, strict=True):
        product = w
        for odds, (n, trial) in small.items():
            g, theta = owner(odds, ratio), owner(odds, a * ratio)
            product *= (theta / g) ** trial * ((1 - theta) / (1 - g)) ** (n - trial)
        expected += product
    assert attribution.log_worse(small, ratio) == pytest.approx(math.log(expected), abs=1e-9)


@pytest.mark.parametrize("null", RATIOS)
@pytest.mark.parametrize("share_of_null", [1.0, 0.8, 0.2])
def test_no_stopping_rule_wins_against_a_trial_within_the_ratio(null: float, share_of_null: float) -> None:
    """Odds change from event to event, as in a ramp that is moved by hand."""

    def draws(past: tuple[tuple[float, bool], ...]) -> dict[tuple[float, bool], float]:
        odds = ODDS[len(past)]
        ours = owner(odds, null * share_of_null)
        return {(odds, True): ours, (odds, False): 1 - ours}

    def e(past: tuple[tuple[float, bool], ...]) -> float:
        return math.exp(attribution.log_worse(counted(past), null))

    value = best_stop(9, draws, e)
    assert value <= 1 + 1e-9
    assert share_of_null < 1 or value == pytest.approx(1, abs=1e-9)  # on the edge it is a fair game


@pytest.mark.parametrize("margin", [1.0, 1.25, 3.0])
@pytest.mark.parametrize("times_margin", [1.0, 1.3, 4.0])
def test_no_stopping_rule_promotes_a_trial_beyond_the_margin(margin: float, times_margin: float) -> None:
    def draws(past: tuple[tuple[float, bool], ...]) -> dict[tuple[float, bool], float]:
        odds = ODDS[len(past)]
        ours = owner(odds, margin * times_margin)
        return {(odds, True): ours, (odds, False): 1 - ours}

    def e(past: tuple[tuple[float, bool], ...]) -> float:
        return math.exp(attribution.log_better(counted(past), margin))

    assert best_stop(9, draws, e) <= 1 + 1e-9


@pytest.mark.parametrize("ratio", [1.0, 0.7])
def test_no_stopping_rule_wins_over_units_whose_base_rate_follows_the_evidence(ratio: float) -> None:
    """Whole units, good ones too; the world raises the rate of bad events whenever the trial seems to be behind."""
    odds = 0.25

    def draws(past: tuple[str, ...]) -> dict[str, float]:
        base = 0.9 if past.count("trial") * 3 > past.count("control") else 0.15
        ours, theirs = odds * base * ratio, (1 - odds) * base
        return {"trial": ours, "control": theirs, "good": 1 - ours - theirs}

    def e(past: tuple[str, ...]) -> float:
        ours, theirs = past.count("trial"), past.count("control")
        return math.exp(attribution.log_worse({odds: [ours + theirs, ours]}))

    assert best_stop(16, draws, e) <= 1 + 1e-9


@pytest.mark.parametrize("alpha", [0.5, 0.2, 0.1])
def test_ever_crossing_has_probability_alpha_at_most_over_every_sequence(alpha: float) -> None:
    chances = [{(odds, True): odds, (odds, False): 1 - odds} for odds in ODDS]
    crossed, mean = ever(chances, lambda past: math.exp(attribution.log_worse(counted(past))), 1 / alpha)
    assert mean == pytest.approx(1, abs=1e-9)
    assert 0 < crossed <= alpha


@given(some_counts(), st.floats(0.02, 50), st.floats(1.0, 3.0))
def test_evidence_of_worse_falls_and_of_better_rises_with_the_ratio(counts: Counts, ratio: float, more: float) -> None:
    assert attribution.log_worse(counts, ratio * more) <= attribution.log_worse(counts, ratio) + 1e-7
    assert attribution.log_better(counts, ratio * more) >= attribution.log_better(counts, ratio) - 1e-7


@given(some_counts(), st.randoms(use_true_random=False))
def test_order_of_the_events_leaves_no_trace(counts: Counts, shuffler: random.Random) -> None:
    rows = list(counts.items())
    shuffler.shuffle(rows)
    assert attribution.log_worse(dict(rows)) == attribution.log_worse(counts)
    assert attribution.interval(dict(rows), 0.01) == attribution.interval(counts, 0.01)


@given(some_counts())
def test_exchanged_roles_turn_the_ratio_over(counts: Counts) -> None:
    other = attribution.mirrored(counts)
    ratio, inverse = attribution.estimate(counts), attribution.estimate(other)
    if ratio and inverse:
        assert inverse == pytest.approx(1 / ratio, rel=1e-6)
    assert sum(n for n, _ in other.values()) == sum(n for n, _ in counts.values())
    twice = attribution.mirrored(other)
    assert attribution.log_worse(twice) == pytest.approx(attribution.log_worse(counts), abs=1e-6)


def test_odds_that_meet_when_mirrored_lose_no_event() -> None:
    counts: Counts = {0.1: [3, 1], math.nextafter(0.1, 0): [5, 2]}
    assert attribution.mirrored(counts) == {0.9: [8, 5]}


@settings(max_examples=60)
@given(some_counts(), st.sampled_from([0.01, 0.05, 0.3]))
def test_interval_agrees_with_the_tests_and_holds_the_estimate(counts: Counts, alpha: float) -> None:
    low, high = attribution.interval(counts, alpha)
    enough = math.log(2 / alpha)
    assert (low is not None and low >= 1) == (attribution.log_worse(counts) >= enough)
    assert (high is not None and high <= 1) == (attribution.log_better(counts, 1.0) >= enough)
    ratio = attribution.estimate(counts)
    if ratio is not None:
        assert low is None or low <= ratio * (1 + 1e-6)
        assert high is None or high >= ratio * (1 - 1e-6)


def test_interval_rejects_up_to_its_ends_and_no_further() -> None:
    counts: Counts = {0.1: [300, 60], 0.5: [40, 26]}
    low, high = attribution.interval(counts, 0.01)
    assert low is not None
    assert high is not None
    enough = math.log(200)
    assert attribution.log_worse(counts, low) >= enough > attribution.log_worse(counts, low * 1.00001)
    assert attribution.log_better(counts, high) >= enough > attribution.log_better(counts, high / 1.00001)


def test_interval_is_open_where_nothing_bounds_it() -> None:
    assert attribution.interval({}, 0.01) == (None, None)
    low, high = attribution.interval({0.1: [40, 0]}, 0.01)  # hardly any of the trial's: no lower end
    assert low is None
    assert high is not None
    low, high = attribution.interval({0.1: [40, 40]}, 0.01)
    assert low is not None
    assert low > 5
    assert high is None


@pytest.mark.parametrize(
    ("counts", "ratio"),
    [
        ({0.1: [100, 10]}, 1.0),
        ({0.5: [30, 20]}, 2.0),
        ({0.1: [300, 55]}, 55 / 245 * 9),
        ({0.5: [30, 20], 0.2: [90, 30]}, 2.0),
        ({0.5: [30, 0]}, 0.0),
        ({0.5: [30, 30]}, None),
        ({}, None),
    ],
)
def test_estimate_is_the_likeliest_ratio(counts: Counts, ratio: float | None) -> None:
    assert attribution.estimate(counts) == (None if ratio is None else pytest.approx(ratio, rel=1e-7))


@given(some_counts(), st.integers(0, 10**6))
def test_events_at_odds_of_zero_or_one_say_nothing(counts: Counts, n: int) -> None:
    more = {**counts, 0.0: [n, 0], 1.0: [n, n]}
    assert attribution.log_worse(more) == attribution.log_worse(counts)
    assert attribution.interval(more, 0.05) == attribution.interval(counts, 0.05)


@pytest.mark.parametrize("trial", [0, 10**5, 10**7])
def test_very_many_events_give_finite_numbers(trial: int) -> None:
    counts: Counts = {0.02: [10**7, trial], 0.98: [10**7, trial]}
    assert math.isfinite(attribution.log_worse(counts))
    assert math.isfinite(attribution.log_better(counts))
