"""The e-process: its published values, its order-invariance, and limits that agree with its verdicts."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantgate.stats.sequential import GRID, Contrast, log_e

SCORES = st.one_of(st.sampled_from([0.0, 1.0]), st.sampled_from([0.25, 0.5]), st.floats(0, 1))
PAIRS = st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=60)
ENOUGH = math.log(20)


def contrast(pairs: list[tuple[float, float]]) -> Contrast:
    result = Contrast()
    for pair in pairs:
        result.add(*pair)
    return result


def flips(n: int, gains: int, losses: int) -> Contrast:
    return contrast([(0.0, 1.0)] * gains + [(1.0, 0.0)] * losses + [(1.0, 1.0)] * (n - gains - losses))


@pytest.mark.parametrize(
    ("n", "gains", "losses", "side", "value"),
    [(200, 1, 1, 0, 20.4980), (500, 12, 15, 0, 4.317), (100, 2, 14, 1, 10.62), (150, 0, 0, 0, 19.78)],
)
def test_published_e_values_at_three_points(n: int, gains: int, losses: int, side: int, value: float) -> None:
    found = math.exp(flips(n, gains, losses).log_e(0.03, relative=False)[side])
    assert found == pytest.approx(value, rel=6e-4 if value < 20 else 3e-6)


def test_without_flips_three_points_are_proven_at_case_151() -> None:
    crossed = [n for n in range(140, 160) if flips(n, 0, 0).log_e(0.03, relative=False)[0] >= ENOUGH]
    assert crossed[0] == 151


@given(PAIRS, st.floats(0.01, 0.9), st.booleans())
def test_e_values_are_the_mean_of_products_as_defined(
    pairs: list[tuple[float, float]], margin: float, relative: bool
) -> None:
    keep, c = (1 - margin, 0.0) if relative else (1.0, -margin)
    e_pass = e_fail = 0.0
    for j in range(1, GRID + 1):
        up, down = j / ((GRID + 1) * (c + keep)), j / ((GRID + 1) * (1 - c))
        e_pass += math.prod(1 + up * (v - keep * b - c) for b, v in pairs) / GRID
        e_fail += math.prod(1 - down * (v - keep * b - c) for b, v in pairs) / GRID
    found = contrast(pairs).log_e(margin, relative=relative)
    assert found == pytest.approx((math.log(e_pass), math.log(e_fail)), abs=1e-7)


@given(PAIRS, st.booleans(), st.randoms(use_true_random=False))
def test_order_of_the_cases_leaves_no_trace(
    pairs: list[tuple[float, float]], relative: bool, shuffler: random.Random
) -> None:
    other = list(pairs)
    shuffler.shuffle(other)
    both = [contrast(one) for one in (pairs, other)]
    first, second = ((one.log_e(0.03, relative=relative), limits(one, relative)) for one in both)
    assert first == second


def limits(pairs: Contrast, relative: bool, margin: float = 0.03) -> tuple[float, float | None]:
    return pairs.limits(relative=relative, pass_alpha=0.05, fail_alpha=0.05, margin=margin)


@given(PAIRS, st.booleans(), st.floats(0.01, 0.9))
def test_limits_hold_the_change_seen_and_agree_with_the_e_values(
    pairs: list[tuple[float, float]], relative: bool, margin: float
) -> None:
    seen = contrast(pairs)
    before, after = sum(b for b, _ in pairs), sum(v for _, v in pairs)
    low, high = limits(seen, relative, margin)
    if before > 1e-3:
        change = (after - before) / (before if relative else len(pairs))
        assert low <= change + 1e-9
        assert high is None or change <= high + 1e-9
    passing, failing = seen.log_e(margin, relative=relative)
    assert (low >= -margin) == (passing >= ENOUGH)
    assert (high is not None and high <= -margin) == (failing >= ENOUGH)


@given(PAIRS, st.booleans(), st.floats(0.01, 0.9))
def test_e_values_never_cross_together(pairs: list[tuple[float, float]], relative: bool, margin: float) -> None:
    assert min(contrast(pairs).log_e(margin, relative=relative)) <= 1e-9


@given(PAIRS, st.booleans(), st.floats(-0.9, 0.85), st.floats(0.01, 0.1))
def test_a_wider_margin_is_easier_to_pass_and_harder_to_fail(
    pairs: list[tuple[float, float]], relative: bool, margin: float, more: float
) -> None:
    seen = contrast(pairs)
    narrow, wide = seen.log_e(margin, relative=relative), seen.log_e(margin + more, relative=relative)
    assert wide[0] >= narrow[0] - 1e-9
    assert wide[1] <= narrow[1] + 1e-9


@pytest.mark.parametrize("relative", [False, True])
def test_limits_close_in_with_more_cases(relative: bool) -> None:
    widths = []
    for n in (50, 200, 800, 3200):
        low, high = limits(flips(n, n * 3 // 100, n * 4 // 100), relative)
        assert high is not None
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.04


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(("b", "v"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.2, 1.0), (5e-324, 1.0)])
def test_scores_at_the_ends_of_the_range_give_finite_numbers(b: float, v: float, relative: bool) -> None:
    seen = contrast([(b, v)] * 500)
    assert np.isfinite(seen.log_e(0.03, relative=relative)).all()
    low, high = limits(seen, relative)
    assert math.isfinite(low)
    assert high is None or low <= high < math.inf


def test_relative_gain_may_exceed_the_whole_baseline() -> None:
    low, high = limits(contrast([(0.2, 1.0)] * 400), relative=True)
    assert high is not None
    assert 1 < low < 4 < high < 8


def test_relative_change_of_a_baseline_of_zero_is_open_above() -> None:
    assert limits(contrast([(0.0, 0.0)] * 400), relative=True) == (-1.0, None)


def test_log_e_of_nothing_is_no_evidence() -> None:
    assert log_e([], -0.03, -1.0, 1.0) == (0.0, 0.0)
    assert Contrast().log_e(0.03, relative=True) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("gain", "loss", "verdict", "least", "median"),
    [
        (0.01, 0.01, "pass", 0.95, (120, 330)),
        (0.03, 0.03, "pass", 0.95, (250, 600)),
        (0.03, 0.13, "fail", 0.95, (100, 280)),
        (0.00, 0.30, "fail", 1.00, (15, 50)),
        (0.03, 0.06, "inconclusive", 0.80, (3000, 3000)),
    ],
)
def test_simulated_runs_decide_as_often_and_as_soon_as_published(
    gain: float, loss: float, verdict: str, least: float, median: tuple[int, int]
) -> None:
    """A look after every case, margin three points, at most 3,000 cases; 100 runs each."""
    generator = np.random.default_rng(7)
    ends = []
    for _ in range(100):
        moves = generator.choice([1.0, -1.0, 0.0], size=3000, p=[gain, loss, 1 - gain - loss])
        ends.append(first_crossing(moves, 0.03))
    assert sum(one == verdict for one, _ in ends) / len(ends) >= least
    assert median[0] <= np.median([n for _, n in ends]) <= median[1]


def first_crossing(moves: NDArray[np.float64], margin: float) -> tuple[str, int]:
    """What is decided first and when; all looks at once by running sums, the deciding one by ``log_e`` again."""
    steps = np.arange(1, GRID + 1) / (GRID + 1)
    for_pass = np.cumsum(np.log1p(np.outer((moves + margin) / (1 - margin), steps)), axis=0)
    for_fail = np.cumsum(np.log1p(-np.outer((moves + margin) / (1 + margin), steps)), axis=0)
    crossed = [np.flatnonzero(np.exp(logs).mean(axis=1) >= 20) for logs in (for_pass, for_fail)]
    ends = [(int(where[0]) + 1, side) for side, where in enumerate(crossed) if len(where)]
    if not ends:
        return "inconclusive", len(moves)
    stop, side = min(ends)
    rows = [(value, float((moves[:stop] == value).sum())) for value in (-1.0, 0.0, 1.0)]
    assert log_e(rows, -margin, -1.0, 1.0)[side] >= ENOUGH
    return ("pass", "fail")[side], stop
