"""How many cases a margin needs."""

from __future__ import annotations

import math

import pytest

from quantgate.stats.paired import PairedCounts
from quantgate.stats.plan import fewest_cases, needed_cases, needed_pairs, power_cases
from quantgate.stats.sequential import Contrast

TABLE = {  # flip rate: cases for margins of 1, 2, 3, 5 points at power 0.80 and 0.90
    0.02: [(1237, 1713), (310, 429), (138, 191), (50, 69)],
    0.04: [(2474, 3426), (619, 857), (275, 381), (99, 138)],
    0.06: [(3710, 5139), (928, 1285), (413, 571), (149, 206)],
    0.10: [(6183, 8564), (1546, 2141), (687, 952), (248, 343)],
}


@pytest.mark.parametrize("flip_rate", TABLE)
def test_power_table_of_the_normal_approximation(flip_rate: float) -> None:
    found = [
        tuple(power_cases(flip_rate, margin, power=power) for power in (0.8, 0.9))
        for margin in (0.01, 0.02, 0.03, 0.05)
    ]
    assert found == TABLE[flip_rate]


@pytest.mark.parametrize(
    ("margin", "exact", "tango"), [(0.1, 29, 25), (0.05, 59, 52), (0.03, 99, 88), (0.02, 149, 133), (0.01, 299, 268)]
)
def test_fewest_cases_without_a_flip(margin: float, exact: int, tango: int) -> None:
    assert fewest_cases(margin, test="exact") == exact
    assert fewest_cases(margin, test="tango") == tango
    assert fewest_cases(margin, test="exact", relative=True) == exact


def test_e_process_needs_151_cases_for_three_points() -> None:
    assert fewest_cases(0.03) == 151
    assert fewest_cases(0.03, relative=True) == 151


def test_a_baseline_that_is_often_wrong_needs_more_cases_for_a_relative_margin() -> None:
    assert fewest_cases(0.03, relative=True, baseline=0.5) == 302
    assert fewest_cases(0.03, relative=True, baseline=0.9) == math.ceil(151 / 0.9)
    assert fewest_cases(0.03, relative=False, baseline=0.5) == 151


def test_more_variants_need_more_cases() -> None:
    needs = [fewest_cases(0.03, alpha=0.05 / variants, relative=True) for variants in (1, 2, 4, 8)]
    assert needs == sorted(needs)
    assert len(set(needs)) == 4


def flipped(n: int, gains: int, losses: int) -> Contrast:
    contrast = Contrast()
    contrast.pairs.update({(1.0, 1.0): n - gains - losses, (0.0, 1.0): gains, (1.0, 0.0): losses})
    return contrast


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (3, 3), (0, 8)])
@pytest.mark.parametrize("relative", [False, True])
def test_cases_needed_are_those_after_which_the_same_shares_decide(gains: int, losses: int, relative: bool) -> None:
    needed = needed_cases(flipped(100, gains, losses), 0.03, relative=relative, pass_alpha=0.05, fail_alpha=0.05)
    assert needed is not None
    for times in (needed / 100, (needed - 1) / 100):
        evidence = flipped(100, gains, losses).log_e(0.03, relative=relative, scale=times)
        assert (max(evidence) >= math.log(20)) == (times == needed / 100)


def test_no_number_of_cases_decides_a_change_on_the_margin_itself() -> None:
    assert needed_cases(flipped(100, 0, 3), 0.03, relative=False, pass_alpha=0.05, fail_alpha=0.05) is None
    assert needed_pairs(PairedCounts(100, 0, 3), 100, 0.03, test="exact", alpha=0.05, relative=False) is None


def test_nothing_seen_plans_nothing() -> None:
    assert needed_cases(Contrast(), 0.03, relative=True, pass_alpha=0.05, fail_alpha=0.05) is None


def test_fixed_tests_need_the_larger_of_power_and_floor_and_more_than_were_seen() -> None:
    assert needed_pairs(PairedCounts(200, 6, 6), 200, 0.03, test="exact", alpha=0.05, relative=False) == 413
    assert needed_pairs(PairedCounts(60, 0, 0), 60, 0.03, test="exact", alpha=0.05, relative=False) == 99
    assert needed_pairs(PairedCounts(60, 0, 0), 120, 0.03, test="exact", alpha=0.05, relative=True) == 198
    assert needed_pairs(PairedCounts(500, 6, 6), 500, 0.03, test="exact", alpha=0.05, relative=False) == 501
