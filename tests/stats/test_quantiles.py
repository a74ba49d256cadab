"""Quantiles: intervals from order statistics against tables and simulation; the ratio of paired arms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binom

from quantgate.errors import DataError
from quantgate.stats.quantiles import dependence, quantile, ranks, ratio_of_quantiles


@pytest.mark.parametrize(("n", "expected"), [(6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (50, (18, 33)), (100, (40, 61))])
def test_ranks_of_the_median_are_those_of_the_sign_test_tables(n: int, expected: tuple[int, int]) -> None:
    """Conover, Practical Nonparametric Statistics, table A3: 95 % limits of a median."""
    assert ranks(n, 0.5, 0.05) == expected


def test_a_tail_needs_enough_values_to_be_bounded_above() -> None:
    """The largest of n bounds p95 from above with 97.5 % only where 0.95^n <= 0.025: from 72 values on."""
    assert ranks(71, 0.95, 0.05)[1] == 72 and ranks(72, 0.95, 0.05)[1] == 72
    assert quantile([1.0] * 71, 0.95).high is None and quantile([1.0] * 72, 0.95).high == 1.0


@given(st.integers(1, 400), st.floats(0.01, 0.99), st.sampled_from([0.01, 0.05, 0.2]))
def test_ranks_enclose_with_at_least_the_promised_chance_and_no_narrower_pair_does(
    n: int, q: float, alpha: float
) -> None:
    low, high = ranks(n, q, alpha)
    assert binom.cdf(low - 1, n, q) <= alpha / 2 + 1e-12
    assert high == n + 1 or 1 - binom.cdf(high - 1, n, q) <= alpha / 2 + 1e-12
    assert binom.cdf(low, n, q) > alpha / 2 - 1e-12
    assert high == 1 or 1 - binom.cdf(high - 2, n, q) > alpha / 2 - 1e-12


def test_intervals_cover_the_true_tail_of_a_skewed_law_as_often_as_promised() -> None:
    chance, hits, rounds = np.random.default_rng(5), 0, 2000
    truth = -math.log(0.05)  # p95 of the exponential law
    for _ in range(rounds):
        found = quantile(chance.exponential(size=200).tolist(), 0.95)
        hits += (found.low or 0) <= truth <= (found.high or math.inf)
    assert 0.95 - 0.015 <= hits / rounds <= 0.985


def queue(n: int, load: float, chance: np.random.Generator) -> list[float]:
    """Times in an M/M/1 queue with service rate 1, in order, from its steady state on (Lindley's recursion)."""
    wait, found = 0.0 if chance.random() > load else chance.exponential(1 / (1 - load)), []
    for gap, served in zip(chance.exponential(1 / load, n), chance.exponential(1.0, n), strict=True):
        found.append(wait + served)
        wait = max(0.0, wait + served - gap)
    return found


def test_intervals_in_a_queue_cover_once_its_neighbours_count_as_alike() -> None:
    """Times in an M/M/1 queue are exponential with rate 1 - load, so the true p95 is known.

    The estimate is a little short where memory is long: 0.89 here, and 0.97 without a queue.
    """
    chance, rounds, load = np.random.default_rng(8), 300, 0.7
    truth, plain, aware = -math.log(0.05) / (1 - load), 0, 0
    for _ in range(rounds):
        series = queue(1200, load, chance)
        found = quantile(series, 0.95)
        assert found.value is not None
        alike = quantile(series, 0.95, dependence=dependence([one > found.value for one in series]))
        plain += (found.low or 0) <= truth <= (found.high or math.inf)
        aware += (alike.low or 0) <= truth <= (alike.high or math.inf)
    assert plain / rounds <= 0.75, "as if independent, four in ten intervals miss"
    assert aware / rounds >= 0.86


def test_dependence_of_independent_values_is_near_one_and_of_repeated_ones_their_number() -> None:
    chance = np.random.default_rng(2)
    alone = [bool(one) for one in chance.random(10_000) < 0.05]
    assert 1.0 <= dependence(alone) <= 1.7
    tens = [bool(one) for one in np.repeat(chance.random(1000) < 0.05, 10)]
    assert 6 <= dependence(tens) <= 15
    assert dependence([True] * 100) == dependence([]) == dependence([True, False] * 10) == 1.0


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.floats(1, 50))
@example(2, 0.984375, 2.0)
def test_dependence_only_widens(n: int, q: float, alike: float) -> None:
    low, high = ranks(n, q, 0.05)
    wide = ranks(n, q, 0.05, alike)
    assert wide[0] <= low and wide[1] >= high


def test_requests_that_never_answered_stand_above_all_others() -> None:
    found = quantile([0.1] * 94, 0.95, beyond=6)
    assert found.value is None and found.low == 0.1 and found.high is None
    assert quantile([0.1] * 99, 0.95, beyond=1).value == 0.1


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_a_quantile_lies_within_its_own_interval(values: list[float], q: float) -> None:
    found = quantile(values, q)
    assert found.value in values
    assert found.low is None or found.low <= found.value
    assert found.high is None or found.high >= found.value


def test_nothing_has_no_quantile() -> None:
    with pytest.raises(DataError):
        quantile([], 0.5)
    with pytest.raises(DataError):
        quantile([1.0], 1.0)


def noisy(blocks: int, speed: float, seed: int) -> list[tuple[list[float], list[float]]]:
    """Stretches of a machine whose speed wanders by a factor of ten: the arms share it."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(blocks):
        weather = math.exp(chance.normal(0, 0.8))
        found.append(
            (
                (weather * chance.lognormal(0, 0.1, 30)).tolist(),
                (speed * weather * chance.lognormal(0, 0.1, 30)).tolist(),
            )
        )
    return found


def test_the_paired_ratio_survives_a_machine_whose_speed_wanders() -> None:
    found = ratio_of_quantiles(noisy(20, 0.7, 1), 0.5, seed=0)
    assert found.low is not None and found.high is not None and found.value is not None
    assert found.low <= 0.7 <= found.high and found.high - found.low < 0.25


def test_ratio_limits_cover_about_as_often_as_promised() -> None:
    hits = 0
    for seed in range(100):
        found = ratio_of_quantiles(noisy(12, 0.8, seed), 0.5, seed=seed, rounds=400)
        hits += (found.low or 0) <= 0.8 <= (found.high or math.inf)
    assert hits >= 85


def test_the_ratio_is_fixed_by_its_seed_and_open_where_blocks_are_few_or_answers_lost() -> None:
    blocks = noisy(8, 0.5, 3)
    assert ratio_of_quantiles(blocks, 0.95, seed=4) == ratio_of_quantiles(blocks, 0.95, seed=4)
    few = ratio_of_quantiles(blocks[:5], 0.95, seed=4)
    assert few.value is not None and few.low is None and few.high is None
    lost = [(base, [math.inf] * len(other)) for base, other in blocks]
    assert ratio_of_quantiles(lost, 0.95, seed=4).value is None
    assert ratio_of_quantiles([], 0.5, seed=0).value is None
