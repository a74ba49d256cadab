"""What is told of measured requests: validity, goodput, TPOT, pace, objectives, knee and limits, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.errors import UsageError
from quantgate.loadtest import Timed
from quantgate.loadtest.drive import Run
from quantgate.loadtest.knee import LimitPoint, RatePoint, bend, knee_of, policy_of
from quantgate.loadtest.measure import goodput_of, measure, validity_of
from quantgate.loadtest.objectives import Objective, judge, keeps, parse_objective
from quantgate.loadtest.stages import from_body, from_comment, from_header
from quantgate.stats.quantiles import quantile

TTFT = Objective(latency="ttft", q=0.95, most_s=0.3)
TPOT = Objective(latency="tpot", q=0.95, most_s=0.05)


def timed(
    at: int = 0, ttft: float | None = 0.1, e2e: float | None = 0.5, tokens: int | None = 11, **more: Any
) -> Timed:
    start = {"at": at, "due_s": at * 0.1, "lag_s": 0.0, "gaps_s": (), "prompt_tokens": 5, "beside": 1.0, "stages": {}}
    return Timed(**{**start, "ttft_s": ttft, "e2e_s": e2e, "tokens": tokens, **more})


def run_of(*requests: Timed, wanted: float = 10.0, took: float | None = None) -> Run:
    return Run([*requests], len(requests), wanted, wanted, took or wanted, "", wanted)


def test_tpot_is_the_time_after_the_first_token_over_the_tokens_after_it() -> None:
    assert timed().tpot_s == pytest.approx(0.4 / 10)
    assert timed(tokens=1).tpot_s is None and timed(tokens=None).tpot_s is None and timed(ttft=None).tpot_s is None


def test_goodput_counts_requests_within_every_objective() -> None:
    """Of six: two good, one late to begin, one slow to go on, one lost, one of which tokens are not known."""
    requests = [
        timed(),
        timed(tokens=1),  # nothing to wait for behind its only token
        timed(ttft=0.4),
        timed(tokens=5),  # 0.4 s over 4 tokens
        timed(e2e=None, lost="cut"),
        timed(tokens=None),
    ]
    found = goodput_of(requests, [TTFT, TPOT], seconds=4.0)
    assert (found.good, found.n, found.unknown) == (2, 5, 1)
    assert found.share == 0.4 and found.rate == 0.5
    assert found.low == pytest.approx(0.0527, abs=1e-3) and found.high == pytest.approx(0.8534, abs=1e-3)


def test_a_request_that_breaks_a_known_objective_is_bad_whatever_is_unknown() -> None:
    assert keeps(timed(ttft=0.9, tokens=None), [TTFT, TPOT]) is False
    assert keeps(timed(ttft=0.1, tokens=None), [TTFT, TPOT]) is None


@pytest.mark.parametrize(
    ("took", "lag", "because"),
    [
        (10.0, 0.0, ""),
        (10.2, 0.0, "could not hold the rate"),
        (10.05, 0.02, ""),
        (10.0, 0.03, "over 5 % of the median"),
    ],
)
def test_a_run_is_valid_at_99_percent_of_its_rate_and_a_lag_within_5_percent_of_the_median(
    took: float, lag: float, because: str
) -> None:
    found = validity_of([run_of(*[timed(at, lag_s=lag) for at in range(100)], took=took)])
    assert found.asked_rate == 10.0 and found.achieved_rate == pytest.approx(100 / took)
    assert found.valid is (not because) and because in found.because


def test_a_wait_at_the_limit_is_no_lag_of_the_generator() -> None:
    held = [timed(at, lag_s=3.0, held=True) for at in range(50)]
    assert validity_of([run_of(*held, *[timed(at) for at in range(50, 100)])]).valid


def test_nothing_answered_and_nothing_sent_are_not_valid() -> None:
    assert "no request was answered" in validity_of([run_of(timed(e2e=None, lost="x"))]).because
    assert "nothing was sent" in validity_of([Run()]).because


def test_lost_requests_are_in_no_quantile_but_above_all() -> None:
    requests = [timed(at, ttft=0.1) for at in range(80)] + [
        timed(at, ttft=0.05, e2e=None, lost="cut") for at in range(20)
    ]
    found = measure([run_of(*requests)], [TTFT])
    p95 = found.at("ttft", 0.95)
    assert p95 is not None and p95.value is None and p95.beyond == 20
    assert found.lost == 20 and found.why_lost == {"cut": 20} and found.answered == 80
    assert found.kept[0].verdict == "fail" and "20 of 100 requests never answered" in found.kept[0].because


def test_what_an_engine_does_not_report_is_unknown_and_not_zero() -> None:
    found = measure([run_of(*[timed(at, tokens=None, stages={"queue": 0.0}) for at in range(30)])], [TPOT])
    by_stage = {one.stage: one for one in found.stages}
    assert by_stage["queue"].p95_s == 0.0 and by_stage["prefill"].p95_s is None and by_stage["prefill"].reported == 0
    assert found.token_rate is None and "tpot" not in found.quantiles
    assert found.kept[0].verdict == "inconclusive" and found.kept[0].because == "it could not be measured"


def test_a_partial_or_invalid_run_decides_nothing_however_clear_it_looks() -> None:
    requests = [timed(at, ttft=0.01) for at in range(500)]
    assert measure([run_of(*requests)], [TTFT]).kept[0].verdict == "pass"
    assert measure([run_of(*requests)], [TTFT], partial="stopped").kept[0].verdict == "inconclusive"
    assert measure([run_of(*requests, took=12.0)], [TTFT]).kept[0].verdict == "inconclusive"
    slow = [timed(at, ttft=3.0) for at in range(500)]
    assert measure([run_of(*slow)], [TTFT]).kept[0].verdict == "fail"
    assert measure([run_of(*slow)], [TTFT], partial="stopped").kept[0].verdict == "inconclusive"


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_verdict_never_contradicts_the_interval(values: list[float], most: float) -> None:
    objective, found = Objective(latency="ttft", q=0.95, most_s=most), quantile(values, 0.95)
    verdict = judge(objective, found, "").verdict
    if verdict == "pass":
        assert found.high is not None and found.high <= most
    if verdict == "fail":
        assert found.low is not None and found.low > most


def test_requests_are_grouped_by_how_many_ran_beside_them_in_powers_of_two() -> None:
    requests = [timed(at, beside=float(1 + at % 6)) for at in range(240)]
    found = measure([run_of(*requests)], [])
    assert [(one.low, one.high, one.n) for one in found.batches] == [(1, 1, 40), (2, 2, 40), (3, 4, 80), (5, 8, 80)]
    assert all(one.tpot is not None for one in found.batches)


def test_pace_falls_below_one_where_a_queue_grows() -> None:
    """Requests every 0.1 s for 10 s, served one at a time in 0.2 s each: half of them end meanwhile."""
    growing = [timed(at, e2e=0.2 + 0.1 * at) for at in range(101)]
    keeping = [timed(at, e2e=0.2) for at in range(101)]
    behind, level = measure([run_of(*growing)], []), measure([run_of(*keeping)], [])
    assert behind.pace == pytest.approx(0.5, abs=0.05) and behind.keeps_up is False
    assert level.pace == pytest.approx(1.0, abs=0.05) and level.keeps_up is True


def test_short_stretches_that_begin_without_a_queue_show_none_where_there_is_none() -> None:
    """Ten stretches of a few requests, each answered in 0.35 s: the last one of each is always in flight at its end."""

    def stretch(rows: int, took: float) -> Run:
        return run_of(*[timed(at, e2e=took) for at in range(rows)], wanted=0.1 * (rows - 1))

    level = measure([stretch(20, 0.35) for _ in range(10)], [])
    assert level.pace == pytest.approx(1.0, abs=0.05) and level.keeps_up is True
    over_before_an_answer = measure([stretch(4, 0.35) for _ in range(10)], [])
    assert over_before_an_answer.pace is None and over_before_an_answer.keeps_up is None
    assert measure([stretch(1, 0.35) for _ in range(10)], []).keeps_up is None


def test_a_curve_without_a_word_on_its_queue_says_so() -> None:
    points = [RatePoint(rate=rate, keeps_up=None, latency_s=0.1, kept="none", valid=True) for rate in (1, 2)]
    assert "too few requests, or too short stretches, to tell" in knee_of(points, "e2e p95").sentence
    invalid = [point(1, 0.1, "none", valid=False), point(2, 0.1, "none", valid=False)]
    assert "no run was valid" in knee_of(invalid, "e2e p95").sentence


def test_the_knee_of_a_queue_is_where_its_latency_turns_up() -> None:
    """An M/M/1 queue with service rate 10: 1 / (10 - rate). Against the chord from 1 to 9.5 the sag is largest where
    the slope 1 / (10 - rate)^2 equals the chord's, 1 / (9 * 0.5): at 10 - sqrt(4.5) = 7.88."""
    curve = [(rate / 2, 1 / (10 - rate / 2)) for rate in range(2, 20)]
    assert bend(curve) == 8.0


@pytest.mark.parametrize(
    "curve",
    [
        [],
        [(1, 1.0)],
        [(1, 1.0), (2, 9.0), (3, 9.0)],
        [(at, 5.0) for at in range(1, 9)],
        [(at, float(at)) for at in range(1, 9)],
        [(at, 9.0 - at) for at in range(1, 9)],
        [(2, 0.468), (4, 0.5), (8, 0.5), (12, 0.387), (16, 0.5)],  # noise around one height
    ],
)
def test_a_curve_that_does_not_bend_has_no_knee(curve: list[tuple[float, float]]) -> None:
    assert bend(curve) is None


def point(rate: float, latency: float | None, kept: Any, *, up: bool = True, valid: bool = True) -> RatePoint:
    return RatePoint(rate=rate, keeps_up=up, latency_s=latency, kept=kept, valid=valid)


def test_a_rate_is_safe_only_if_all_below_it_are() -> None:
    points = [
        point(1, 0.1, "pass"),
        point(2, 0.1, "inconclusive"),
        point(4, 0.1, "pass"),
        point(8, 2.0, "fail", up=False),
    ]
    found = knee_of(points, "ttft p95")
    assert found.safe == 1 and found.keeps_up == 4 and found.knee == 4
    assert found.sentence == "ttft p95 bends at 4/s; keeps up to 4/s; objectives proven up to 1/s"


def test_invalid_runs_are_no_points_of_the_curve() -> None:
    points = [point(rate, 0.1, "none", valid=False) for rate in (1, 2, 4)] + [point(8, 0.1, "none")]
    assert knee_of(points, "e2e p95").keeps_up == 8
    assert knee_of(points[:3], "e2e p95").keeps_up is None


def test_the_largest_limit_that_is_proven_is_the_policy_and_what_lies_beyond_is_told() -> None:
    verdicts: dict[int, Any] = {1: "fail", 4: "pass", 2: "pass", 8: "inconclusive", 16: "fail"}
    points = [LimitPoint(limit=limit, kept=kept, latency_s=0.1 * limit) for limit, kept in verdicts.items()]
    found = policy_of("W4A16", points, "ttft p95")
    assert found.limit == 4
    assert found.sentence == (
        "W4A16: limit concurrency to 4 (ttft p95 400 ms; at 8, ttft p95 is 800 ms (inconclusive))"
    )
    none = policy_of("W4A16", points[:1], "ttft p95")
    assert none.limit is None and "no tested limit (1)" in none.sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("ttft-p95", "expected latency"), ("tttf-p95=3ms", "did you mean 'ttft'"), ("ttft-p0=3ms", "no percentile"),
     ("ttft-p95=3", "300ms with its unit"), ("ttft-p95=-3ms", "more than nothing"), 
     ("ttft-p95=0s", "more than nothing"),
     ("e2e-p99=900h", "is more than 24 h"), ("ttft-p95=fast", "300ms with its unit")],
)  # fmt: skip
def test_absurd_objectives_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_objective(text)


def test_stages_come_from_three_dialects() -> None:
    llama = {"cache_n": 0, "prompt_n": 9, "prompt_ms": 20.0, "predicted_n": 3, "predicted_ms": 30.0}
    assert from_body(llama) == {"prefill": 0.02, "decode": 0.03}
    assert from_body({"time_to_first_token_ms": 30.0}) == {}, "with the queue's share unknown, so is the prompt's"
    assert from_body(None) == {} and from_body({"prompt_ms": "x", "predicted_ms": float("nan")}) == {}
    header = 'parse;dur=0.4, cache-lookup;dur=1, queue;desc="a;dur=9,b";dur=12.5, prefill;dur="40"'
    assert from_header(header) == {"parse": 0.0004, "queue": 0.0125}
    assert from_comment(" server-timing: validate;dur=0.25, stream;dur=3") == {"validate": 0.00025, "stream": 0.003}


@given(st.text())
def test_no_header_breaks_the_reading(text: str) -> None:
    assert all(seconds >= 0 for seconds in from_header(text).values())
