"""The door: verdicts that agree with their limits, and refusals that name what is wrong."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from quantgate import stats
from quantgate.errors import DataError, UnknownName, UsageError

TESTS = ["eprocess", "exact", "tango"]
MARGINS = st.sampled_from([0.01, 0.03, 0.1, 0.3])


def binary(n: int, gains: int, losses: int, neither: int = 0) -> tuple[list[float], list[float]]:
    both = n - gains - losses - neither
    baseline = [1.0] * both + [0.0] * gains + [1.0] * losses + [0.0] * neither
    return baseline, [1.0] * both + [1.0] * gains + [0.0] * losses + [0.0] * neither


@st.composite
def some_binary(draw: st.DrawFn, most: int = 120) -> tuple[int, int, int, int]:
    n = draw(st.integers(2, most))
    gains = draw(st.integers(0, n // 2))
    losses = draw(st.integers(0, n // 2))
    return n, gains, losses, draw(st.integers(0, n - gains - losses))


@pytest.mark.parametrize(
    ("test", "n", "gains", "losses", "verdict"),
    [
        ("exact", 500, 12, 15, "pass"),
        ("exact", 500, 5, 5, "pass"),
        ("exact", 200, 3, 4, "inconclusive"),
        ("exact", 164, 4, 4, "inconclusive"),
        ("exact", 250, 5, 5, "pass"),
        ("exact", 98, 0, 0, "inconclusive"),
        ("exact", 99, 0, 0, "pass"),
        ("tango", 87, 0, 0, "inconclusive"),
        ("tango", 88, 0, 0, "pass"),
        ("tango", 1319, 30, 40, "pass"),
        ("tango", 1319, 20, 60, "inconclusive"),
        ("eprocess", 150, 0, 0, "inconclusive"),
        ("eprocess", 151, 0, 0, "pass"),
        ("eprocess", 200, 1, 1, "pass"),
        ("eprocess", 500, 12, 15, "inconclusive"),
        ("eprocess", 28, 0, 9, "fail"),
    ],
)
def test_verdict_on_three_points(test: str, n: int, gains: int, losses: int, verdict: str) -> None:
    finding = stats.judge(*binary(n, gains, losses), 0.03, relative=False, test=test)
    assert finding.verdict == verdict
    assert (finding.n, finding.gains, finding.losses) == (n, gains, losses)
    assert finding.effect == pytest.approx((gains - losses) / n)
    assert (finding.needed is None) == (verdict != "inconclusive") or finding.losses == 60  # lost the margin itself


@pytest.mark.parametrize("test", TESTS)
def test_a_loss_within_the_margin_passes_and_is_told(test: str) -> None:
    finding = stats.judge(*binary(3000, 2, 40), 0.03, relative=False, test=test if test != "exact" else "tango")
    assert finding.verdict == "pass"
    assert finding.measurable_loss


@given(some_binary(), MARGINS, st.booleans(), st.sampled_from(TESTS))
@hypothesis_settings(max_examples=40)
def test_verdict_agrees_with_the_limits(
    counts: tuple[int, int, int, int], margin: float, relative: bool, test: str
) -> None:
    finding = stats.judge(*binary(*counts), margin, relative=relative, test=test)
    if finding.low is not None:
        failed = finding.high is not None and finding.high <= -margin
        assert (finding.verdict == "fail") == failed
        assert (finding.verdict == "pass") == (finding.low >= -margin and not failed)
        if finding.effect is not None:
            assert finding.low <= finding.effect + 1e-9
            assert finding.high is None or finding.effect <= finding.high + 1e-9


@given(some_binary(), MARGINS, st.booleans(), st.sampled_from(TESTS))
@hypothesis_settings(max_examples=40)
def test_a_loss_less_or_a_gain_more_never_lowers_the_verdict(
    counts: tuple[int, int, int, int], margin: float, relative: bool, test: str
) -> None:
    """One answer of the variant turned from wrong to right, wherever one is wrong."""
    rank = {"fail": 0, "inconclusive": 1, "pass": 2}
    baseline, variant = binary(*counts)
    before = stats.judge(baseline, variant, margin, relative=relative, test=test)
    for right in (0.0, 1.0):
        where = next((i for i in range(len(baseline)) if baseline[i] == right and variant[i] == 0.0), None)
        if where is not None:
            better = [*variant[:where], 1.0, *variant[where + 1 :]]
            after = stats.judge(baseline, better, margin, relative=relative, test=test)
            assert rank[after.verdict] >= rank[before.verdict]


@given(st.lists(st.floats(0, 1), max_size=80), MARGINS, st.booleans())
def test_a_model_against_itself_never_fails(scores: list[float], margin: float, relative: bool) -> None:
    assert stats.judge(scores, scores, margin, relative=relative).verdict != "fail"


@given(st.integers(0, 120), st.integers(0, 120), MARGINS, st.booleans(), st.sampled_from(["exact", "tango"]))
@hypothesis_settings(max_examples=30)
def test_a_model_against_itself_never_fails_a_fixed_test(
    right: int, wrong: int, margin: float, relative: bool, test: str
) -> None:
    scores = [1.0] * right + [0.0] * wrong
    assert stats.judge(scores, scores, margin, relative=relative, test=test).verdict != "fail"


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=50), st.randoms(), st.booleans())
def test_finding_does_not_depend_on_the_order(
    pairs: list[tuple[float, float]], shuffler: random.Random, relative: bool
) -> None:
    other = list(pairs)
    shuffler.shuffle(other)
    first, second = (
        stats.judge([b for b, _ in one], [v for _, v in one], 0.03, relative=relative) for one in (pairs, other)
    )
    assert first == second


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("relative", [False, True])
def test_no_pair_is_inconclusive_under_the_test_that_was_registered(test: str, relative: bool) -> None:
    finding = stats.judge([], [], 0.03, relative=relative, test=test)
    assert (finding.verdict, finding.test, finding.n) == ("inconclusive", test, 0)
    assert (finding.effect, finding.low, finding.high, finding.needed) == (None, None, None, None)


@pytest.mark.parametrize("test", TESTS)
def test_a_baseline_that_is_never_right_proves_no_relative_margin(test: str) -> None:
    finding = stats.judge([0.0] * 400, [0.0] * 400, 0.03, relative=True, test=test)
    assert finding.verdict == "inconclusive"
    assert finding.effect is None
    assert finding.needed is None


@pytest.mark.parametrize("test", TESTS)
def test_a_hundred_unchanged_answers_do_not_prove_one_percent(test: str) -> None:
    """Where nothing varies a t-test is certain; yet one variant in three that loses 1 % shows no loss in 100 cases."""
    finding = stats.judge([1.0] * 100, [1.0] * 100, 0.01, relative=True, test=test)
    assert finding.verdict == "inconclusive"
    assert finding.needed is not None
    assert finding.needed >= 268


@pytest.mark.parametrize("test", TESTS)
def test_cases_that_both_get_wrong_do_not_move_a_relative_verdict(test: str) -> None:
    few = stats.judge(*binary(150, 2, 9), 0.03, test=test)
    many = stats.judge(*binary(400, 2, 9, neither=250), 0.03, test=test)
    assert (few.low, few.high, few.evidence_pass, few.evidence_fail) == pytest.approx(
        (many.low, many.high, many.evidence_pass, many.evidence_fail)
    )


@pytest.mark.parametrize("test", TESTS)
def test_sharing_alpha_raises_the_bar_to_pass_and_leaves_the_one_to_fail(test: str) -> None:
    alone = stats.judge(*binary(160, 0, 0), 0.03, test=test)
    shared = stats.judge(*binary(160, 0, 0), 0.03, test=test, pass_alpha=0.05 / 60)
    assert (alone.verdict, shared.verdict) == ("pass", "inconclusive")
    assert shared.high == alone.high
    lost = stats.judge(*binary(160, 0, 60), 0.03, test=test, pass_alpha=0.05 / 60)
    assert lost.verdict == "fail"


def test_graded_scores_are_judged_by_the_e_process() -> None:
    finding = stats.judge([0.75] * 300, [0.75] * 290 + [0.5] * 10, 0.05)
    assert finding.verdict == "pass"
    assert finding.effect == pytest.approx(-2.5 / 225)
    assert finding.losses == 10


def test_tiny_scores_give_a_finding_without_infinities() -> None:
    finding = stats.judge([5e-324] * 3, [1.0] * 3, 0.03)
    assert finding.effect is None
    assert finding.low is not None
    assert math.isfinite(finding.low)


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.01, 1.01])
@pytest.mark.parametrize("test", TESTS)
def test_a_score_outside_the_scale_is_refused(score: float, test: str) -> None:
    with pytest.raises(DataError, match=r"lies outside 0\.\.1; mend the scorer"):
        stats.judge([1.0, 1.0], [1.0, score], 0.03, test=test)


def test_scores_without_a_partner_are_refused() -> None:
    with pytest.raises(DataError, match="2 baseline scores and 1 variant scores"):
        stats.judge([1.0, 0.0], [1.0], 0.03)


@pytest.mark.parametrize("scores", [[], [1.0]])
def test_an_unknown_test_is_named_with_its_nearest_neighbour(scores: list[float]) -> None:
    with pytest.raises(UnknownName, match="unknown test 'eproces'; did you mean 'eprocess'"):
        stats.judge(scores, scores, 0.03, test="eproces")


@pytest.mark.parametrize("test", ["exact", "tango"])
def test_graded_scores_are_refused_by_tests_for_binary_ones(test: str) -> None:
    with pytest.raises(
        UsageError, match=rf"the test '{test}' takes scores of 0 and 1 only, not 0\.5; use the test 'eprocess'"
    ):
        stats.judge([1.0, 1.0], [1.0, 0.5], 0.03, test=test)


@pytest.mark.parametrize("margin", [0.0, -0.03, 1.0, 3.0, math.nan])
def test_a_margin_that_is_no_share_is_refused(margin: float) -> None:
    with pytest.raises(UsageError, match=r"margin .* lies outside 0\.\.1"):
        stats.judge([1.0], [1.0], margin)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, math.nan])
def test_a_level_that_is_no_chance_is_refused(level: float) -> None:
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        stats.judge([1.0], [1.0], 0.03, alpha=level)
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        stats.judge([1.0], [1.0], 0.03, pass_alpha=level)
