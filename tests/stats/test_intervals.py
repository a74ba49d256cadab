"""Student's t and clusters, against worked numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.regression.linear_model import OLS

from quantgate.errors import DataError
from quantgate.stats.intervals import clopper_pearson, cluster_error, contrast_t, paired_t

GRADED = [0, 0, -0.5, 0, 0.25, 0, -0.25, 0, 0, 0, -1, 0, 0, 0.5, 0, 0, 0, 0, 0, -0.25]
CLUSTERED = [0.0, -1, 0, 1, 0, 0, -1, -1, 0, 0, 0, 0]
CLUSTERS = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_relative_margin_by_the_t_of_the_contrast() -> None:
    baseline = [1.0] * 400 + [0.0] * 12 + [1.0] * 15 + [0.0] * 73
    variant = [1.0] * 400 + [1.0] * 12 + [0.0] * 15 + [0.0] * 73
    assert (sum(baseline) / 500, sum(variant) / 500) == (0.830, 0.824)
    assert contrast_t(baseline, variant, 0.03) == pytest.approx((1.8410, 0.03311), abs=6e-5)


def test_graded_scores_by_t() -> None:
    assert sum(GRADED) / 20 == -0.0625
    assert paired_t(GRADED, 0.05) == pytest.approx((-0.19208, 0.57514, -0.17503), abs=6e-6)


def test_clustered_cases_have_a_wider_error() -> None:
    assert cluster_error(CLUSTERED, CLUSTERS) == pytest.approx(0.186339, abs=6e-7)
    assert cluster_error(CLUSTERED, range(12)) == pytest.approx(0.159571, abs=6e-7)


def test_cluster_error_agrees_with_statsmodels_without_its_correction() -> None:
    fit = OLS(CLUSTERED, [1.0] * 12).fit(cov_type="cluster", cov_kwds={"groups": CLUSTERS, "use_correction": False})
    assert cluster_error(CLUSTERED, CLUSTERS) == pytest.approx(float(fit.bse[0]), rel=1e-9)


@pytest.mark.parametrize("scores", [[], [0.0], [0.0] * 200])
def test_t_refuses_scores_that_do_not_vary(scores: list[float]) -> None:
    with pytest.raises(DataError, match="use the e-process"):
        paired_t(scores, 0.03)


@given(st.integers(1, 300), st.data())
def test_interval_of_a_proportion_holds_the_share_seen(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = clopper_pearson(successes, n, 0.05)
    assert 0 <= low <= successes / n <= high <= 1
