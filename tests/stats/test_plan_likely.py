"""How many cases a variant that loses nothing is likely to need."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate import stats
from quantgate.stats.plan import fewest_cases, likely_cases

MARGINS = (0.01, 0.02, 0.03, 0.05)


def test_tests_at_a_fixed_number_need_what_the_power_table_says_and_never_less_than_the_fewest() -> None:
    assert [likely_cases(0.06, margin, test="exact") for margin in MARGINS] == [3710, 928, 413, 149]
    assert [likely_cases(0.02, margin, test="exact") for margin in MARGINS] == [1237, 310, 138, 59]
    assert (
        likely_cases(0.06, 0.03, test="exact", relative=True, baseline=0.5) == 1649
    )  # 413 at half the margin, fourfold


@pytest.mark.parametrize(("margin", "relative"), [(0.03, False), (0.05, True), (0.1, False)])
def test_without_flips_the_e_process_needs_its_fewest(margin: float, relative: bool) -> None:
    assert likely_cases(0.0, margin, relative=relative) == fewest_cases(margin, relative=relative)


@pytest.mark.parametrize(("flip_rate", "margin"), [(0.02, 0.05), (0.06, 0.1)])
def test_simulated_runs_of_a_lossless_variant_pass_about_where_it_says(flip_rate: float, margin: float) -> None:
    told, rng, needed = likely_cases(flip_rate, margin), random.Random(5), []
    for _ in range(60):
        base, other = list[float](), list[float]()
        while True:
            pair = rng.choice([(1.0, 0.0), (0.0, 1.0)]) if rng.random() < flip_rate else (1.0, 1.0)
            base.append(pair[0])
            other.append(pair[1])
            passed = len(base) % 10 == 0 and stats.judge(base, other, margin, relative=False).verdict == "pass"
            if passed or len(base) > 3000:
                break
        needed.append(len(base))
    assert told is not None
    assert 0.6 * told <= statistics.median(needed) <= 1.4 * told


@given(st.floats(0, 0.3), st.floats(0.02, 0.3), st.sampled_from(["eprocess", "exact"]), st.booleans())
def test_more_flips_never_need_fewer_cases(flip_rate: float, margin: float, test: str, relative: bool) -> None:
    few = likely_cases(flip_rate / 2, margin, test=test, relative=relative)
    many = likely_cases(flip_rate, margin, test=test, relative=relative)
    assert many is None or (few is not None and few <= many + 1)
    assert few is None or few >= fewest_cases(margin, test=test, relative=relative)
