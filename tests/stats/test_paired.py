"""Known answers from papers and other programs, and what the paired tests promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from quantgate.errors import DataError
from quantgate.stats.intervals import clopper_pearson, contrast_t
from quantgate.stats.paired import (
    PairedCounts,
    exact_p,
    informative,
    limits,
    mcnemar_p,
    newcombe_limits,
    score_p,
    score_z,
    wilson,
)


@st.composite
def some_counts(draw: st.DrawFn, most: int = 60) -> PairedCounts:
    n = draw(st.integers(1, most))
    gains = draw(st.integers(0, n))
    return PairedCounts(n, gains, draw(st.integers(0, n - gains)))


@pytest.mark.parametrize(
    ("n", "gains", "losses", "low", "high"),
    [
        (160, 20, 40, -0.218064, -0.030865),  # R: PropCIs::scoreci.mp(40, 20, 160)
        (21, 1, 7, -0.51723, -0.02600),  # Bentur 2009, in Fagerland, Lydersen and Laake
        (161, 6, 16, -0.12402, -0.00543),  # Cavo 2012
    ],
)
def test_tango_interval_agrees_with_published_ones(n: int, gains: int, losses: int, low: float, high: float) -> None:
    found = limits(PairedCounts(n, gains, losses), pass_alpha=0.025, fail_alpha=0.025)
    assert found == pytest.approx((low, high), abs=6e-6)


@pytest.mark.parametrize(
    ("n", "gains", "losses", "both", "low", "high"),
    [(21, 1, 7, 1, -0.50692, -0.02556), (161, 6, 16, 59, -0.11862, -0.00463)],
)
def test_newcombe_interval_agrees_with_published_ones(
    n: int, gains: int, losses: int, both: int, low: float, high: float
) -> None:
    assert newcombe_limits(PairedCounts(n, gains, losses), both, 0.05) == pytest.approx((low, high), abs=6e-6)


@pytest.mark.parametrize(
    ("n", "gains", "losses", "p", "exact"),
    [
        (500, 12, 15, 0.01672, 0.01710),
        (500, 5, 5, 0.00043, None),
        (200, 3, 4, 0.05462, 0.05929),
        (164, 4, 4, 0.06079, 0.06365),  # 0.06363 on a grid of 400 gain rates, which misses the worst one
        (250, 5, 5, None, 0.02164),
        (1319, 30, 40, 0.00055, None),
        (1319, 20, 60, 0.519, None),
        (87, 0, 0, 0.05047, None),
        (88, 0, 0, 0.04950, None),
        (98, 0, 0, None, 0.05054),
        (99, 0, 0, None, 0.04902),
        (164, 2, 5, 0.25, None),
    ],
)
def test_non_inferiority_at_three_points(n: int, gains: int, losses: int, p: float | None, exact: float | None) -> None:
    counts = PairedCounts(n, gains, losses)
    if p is not None:
        assert score_p(counts, -0.03) == pytest.approx(p, abs=6e-6 if p < 0.1 else 5e-3)
    if exact is not None:
        assert exact_p(counts, -0.03) == pytest.approx(exact, abs=6e-6)


@pytest.mark.parametrize(("n", "gains", "losses", "z"), [(500, 12, 15, 2.1267), (1319, 30, 40, 3.2624)])
def test_score_statistic_at_three_points(n: int, gains: int, losses: int, z: float) -> None:
    assert float(score_z(n, gains, losses, -0.03)) == pytest.approx(z, abs=6e-5)


@pytest.mark.parametrize(
    ("n", "gains", "losses", "low", "high"),
    [(500, 12, 15, -0.0240, 0.0116), (1319, 20, 60, -0.0419, -0.0195), (250, 3, 12, -0.0651, -0.0116)],
)
def test_one_sided_score_limits(n: int, gains: int, losses: int, low: float, high: float) -> None:
    assert limits(PairedCounts(n, gains, losses)) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.1])
def test_zero_discordance_has_a_closed_form(margin: float) -> None:
    assert float(score_z(70, 0, 0, -margin)) == pytest.approx((70 * margin / (1 - margin)) ** 0.5, rel=1e-12)


def test_score_statistic_takes_the_likeliest_rate_on_the_edge() -> None:
    """The closed form against a search over the gain rate, relative and absolute."""
    n, gains, losses = 90, 4, 9
    for change, keep in ((-0.05, 1.0), (-0.05, 0.95)):
        rates = np.linspace(1e-6, (1 + change) / (1 + keep) - 1e-6, 400_001)
        lost = -change + keep * rates
        likelihood = gains * np.log(rates) + losses * np.log(lost) + (n - gains - losses) * np.log(1 - rates - lost)
        rate = rates[likelihood.argmax()]
        variance = (keep * keep + keep) * rate - change * (1 + change)
        by_search = (-change * n + keep * gains - losses) / (n * variance) ** 0.5
        assert float(score_z(n, gains, losses, change, relative=keep != 1)) == pytest.approx(by_search, abs=1e-4)


def test_exact_p_is_the_worst_chance_found_by_plain_enumeration() -> None:
    n, seen = 12, PairedCounts(12, 2, 1)
    for change, keep in ((-0.1, 1.0), (-0.1, 0.9)):
        outcomes = [(g, ls) for g in range(n + 1) for ls in range(n + 1 - g)]
        z = {one: float(score_z(n, *one, change, relative=keep != 1)) for one in outcomes}
        bar = z[seen.gains, seen.losses]
        worst = {False: 0.0, True: 0.0}
        for rate in np.linspace(0, 0.9 / (1 + keep), 2000):
            lost = 0.1 + keep * rate
            left = max(1 - rate - lost, 0.0)
            for at_least in worst:
                tail = [one for one in outcomes if (z[one] <= bar + 1e-9 if at_least else z[one] >= bar - 1e-9)]
                chance = sum(ways(n, g, ls) * rate**g * lost**ls * left ** (n - g - ls) for g, ls in tail)
                worst[at_least] = max(worst[at_least], chance)
        for at_least, chance in worst.items():
            assert exact_p(seen, change, relative=keep != 1, at_least=at_least) == pytest.approx(chance, abs=1e-6)


def binary(*, both: int, gains: int, losses: int, neither: int = 0) -> tuple[list[float], list[float]]:
    baseline = [1.0] * both + [0.0] * gains + [1.0] * losses + [0.0] * neither
    return baseline, [1.0] * both + [1.0] * gains + [0.0] * losses + [0.0] * neither


def ways(n: int, gains: int, losses: int) -> float:
    result = 1.0
    for place in range(gains):
        result *= (n - place) / (gains - place)
    for place in range(losses):
        result *= (n - gains - place) / (losses - place)
    return result


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("change", [-0.1, -0.03, -0.01, 0.05])
def test_more_gains_or_fewer_losses_never_lower_the_statistic(change: float, relative: bool) -> None:
    """What makes the edge the worst of its hypothesis, for every outcome up to 200 pairs."""
    for n in (*range(1, 40), 77, 120, 200):
        gains = np.arange(n + 1.0)
        z = score_z(n, gains, gains[:, None], change, relative=relative)
        z[gains + gains[:, None] > n] = np.nan
        for axis, sign in ((1, 1), (0, -1)):
            steps = sign * np.diff(z, axis=axis)
            assert not (steps < -1e-9).any()


@given(some_counts(), st.floats(-0.5, 0.5))
def test_exchanging_the_sides_mirrors_the_absolute_statistic(counts: PairedCounts, change: float) -> None:
    here = float(score_z(counts.n, counts.gains, counts.losses, change))
    there = float(score_z(counts.n, counts.losses, counts.gains, -change))
    assert here == pytest.approx(-there, abs=1e-9)


@given(some_counts(), st.booleans(), st.floats(0.01, 0.4))
def test_score_limits_hold_the_change_seen_and_agree_with_the_p_values(
    counts: PairedCounts, relative: bool, margin: float
) -> None:
    low, high = limits(counts, relative=relative, margin=margin)
    right = counts.n - counts.gains
    if not relative or right:
        seen = (counts.gains - counts.losses) / (right if relative else counts.n)
        assert low <= seen
        assert high is None or seen <= high
    assert (low >= -margin) == (score_p(counts, -margin, relative=relative) <= 0.05)
    failed = score_p(counts, -margin, relative=relative, at_least=True) <= 0.05
    assert (high is not None and high <= -margin) == failed


def test_relative_counts_leave_out_what_both_sides_get_wrong() -> None:
    baseline, variant = [1.0, 1, 0, 0, 0], [1.0, 0, 1, 0, 0]
    assert informative(baseline, variant, relative=False) == PairedCounts(5, 1, 1)
    assert informative(baseline, variant, relative=True) == PairedCounts(3, 1, 1)
    assert informative([0.0], [0.0], relative=True) is None


def test_relative_limit_of_a_baseline_that_is_never_right_is_open_above() -> None:
    low, high = limits(PairedCounts(20, 20, 0), relative=True)
    assert low > 0
    assert high is None


@pytest.mark.parametrize(
    ("gains", "losses", "p", "mid"),
    [(6, 16, 0.052479, 0.034690), (3, 12, 0.0352, None), (20, 60, 8.58e-6, None), (2, 5, 0.453125, None)],
)
def test_mcnemar_agrees_with_published_values_and_statsmodels(
    gains: int, losses: int, p: float, mid: float | None
) -> None:
    counts = PairedCounts(1319, gains, losses)
    assert mcnemar_p(counts) == pytest.approx(p, rel=2e-3)
    assert mcnemar_p(counts) == pytest.approx(mcnemar([[500, gains], [losses, 500]], exact=True).pvalue, rel=1e-9)
    if mid is not None:
        assert mcnemar_p(counts, mid=True) == pytest.approx(mid, abs=5e-7)


def test_mcnemar_of_no_flip_or_even_flips_says_nothing() -> None:
    assert mcnemar_p(PairedCounts(9, 0, 0)) == 1.0
    assert mcnemar_p(PairedCounts(9, 2, 2)) == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (61, 400)])
def test_intervals_of_a_proportion_agree_with_statsmodels(successes: int, n: int) -> None:
    assert clopper_pearson(successes, n, 0.1) == pytest.approx(proportion_confint(successes, n, 0.1, "beta"), abs=1e-9)
    assert wilson(successes, n, 0.1) == pytest.approx(proportion_confint(successes, n, 0.1, "wilson"), abs=1e-9)


def test_zero_losses_leave_the_closed_form_upper_limit() -> None:
    assert clopper_pearson(0, 99, 0.1)[1] == pytest.approx(1 - 0.05 ** (1 / 99), rel=1e-9)


def test_relative_statistic_nears_the_t_of_the_contrast_when_cases_are_many() -> None:
    baseline, variant = binary(both=92_500, gains=2_400, losses=5_100)
    t, _ = contrast_t(baseline, variant, 0.03)
    assert float(score_z(100_000, 2400, 5100, -0.03, relative=True)) == pytest.approx(t, rel=0.01)


@pytest.mark.parametrize(("n", "gains", "losses"), [(0, 0, 0), (5, 3, 3), (5, -1, 0)])
def test_counts_that_cannot_be_are_refused(n: int, gains: int, losses: int) -> None:
    with pytest.raises(DataError, match="cannot hold"):
        PairedCounts(n, gains, losses)
