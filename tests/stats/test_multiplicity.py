"""Many tests, one error rate."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from quantgate.stats.multiplicity import benjamini_hochberg, e_bonferroni, fixed_sequence, holm

P_VALUES = [0.01, 0.04, 0.03, 0.005]


def test_holm_and_benjamini_hochberg_of_four_p_values() -> None:
    assert holm(P_VALUES) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(P_VALUES) == pytest.approx([0.02, 0.04, 0.04, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=30)
def test_adjusted_p_values_agree_with_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist(), abs=1e-12)
    assert benjamini_hochberg(p_values) == pytest.approx(
        multipletests(p_values, method="fdr_bh")[1].tolist(), abs=1e-12
    )


def test_no_p_values_adjust_to_none() -> None:
    assert holm([]) == benjamini_hochberg([]) == []


def test_nothing_counts_behind_the_first_that_did_not_pass() -> None:
    assert fixed_sequence([True, True, False, True]) == [True, True, False, False]
    assert fixed_sequence([]) == []


def test_each_of_six_tests_needs_six_times_the_evidence() -> None:
    assert e_bonferroni(0.05, 6) == pytest.approx(120)
