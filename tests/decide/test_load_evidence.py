"""A load test as evidence: the right arm, rate and limit are picked, or one sentence says what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantgate.decide.load_evidence import batching, load_evidence, read_load
from quantgate.decide.rules import LoadEvidence
from quantgate.errors import RecordError, UnknownName, UsageError
from quantgate.loadtest.drive import Run
from quantgate.loadtest.measure import measure
from quantgate.loadtest.result import LoadResult
from quantgate.records import digest_of


@pytest.fixture
def pick(make: Any, loads: Any) -> Callable[..., LoadEvidence]:
    """Evidence for the variant ``small`` of 1000 bytes; keywords are the target's."""

    def found(result: LoadResult, *, name: str = "small", evidence: Any = None, **place: Any) -> LoadEvidence:
        return load_evidence(result, loads.rules(**place), make.candidate(name, 1000), evidence, where="load.json")

    return found


def test_the_arm_of_the_variants_bytes_at_the_asked_rate_is_taken_with_the_baseline_beside_it(
    loads: Any, pick: Any
) -> None:
    found = pick(loads.result({4.0: 0.4, 2.0: 0.3}))
    assert (found.target, found.variant, found.artifact) == ("desk", "small", digest_of("small"))
    assert found.rate == 4.0 and found.limit is None and not found.declared and not found.doubt
    assert found.measured.at("e2e", 0.95).value == 0.4 and found.baseline.at("e2e", 0.95).value == 0.8
    assert {one.latency for one in found.pairs} >= {"e2e", "ttft"} and {one.rate for one in found.pairs} == {4.0}
    assert all(ratio.value == pytest.approx(0.5) for one in found.pairs for ratio in one.ratios)
    assert found.answer_tokens == pytest.approx(16) and not found.lighter


def test_the_rate_up_to_which_everything_is_proven_is_that_of_the_targets_promises(loads: Any, pick: Any) -> None:
    """The load test was made for 1 s, where 8/s keeps it; the target promises 0.5 s, and 4/s is the last that does."""
    swept = loads.result({4.0: 0.4, 2.0: 0.3, 8.0: 0.7, 16.0: 3.0})
    assert swept.knees["small"].safe == 8.0
    found = pick(swept, e2e_p95="500ms")
    assert found.safe == 4.0 and found.rates == (2.0, 4.0, 8.0, 16.0)
    assert {one.rate: [kept.verdict for kept in one.measured.kept] for one in found.curve} == {
        2.0: ["pass"], 8.0: ["fail"], 16.0: ["fail"],
    }  # fmt: skip
    assert all(one.baseline is not None for one in found.curve)
    assert pick(swept).safe == 8.0
    assert pick(loads.result({4.0: 0.4})).safe is None, "one rate is no sweep"


def test_a_promise_that_the_load_test_did_not_know_is_judged_all_the_same(loads: Any, pick: Any) -> None:
    found = pick(loads.result({4.0: 0.4}), ttft_p95="50ms")
    verdicts = {one.objective.label: one.verdict for one in found.measured.kept}
    assert verdicts == {"ttft p95 <= 50 ms": "fail", "e2e p95 <= 1.00 s": "pass"}


@pytest.mark.parametrize(
    ("limits", "concurrency", "limit", "at_most"),
    [
        ({8: 1.0}, 8, 8, 8),
        ({8: 9.0, 4: 1.0, 1: 1.0}, 8, 4, 4),  # at 8 it is too slow, and 4 is the largest that is not
        ({8: 9.0, 4: 9.0}, 8, 8, None),
        ({8: 1.0, 4: 1.0}, 4, 4, 4),  # there is no room for 8
        ({None: 1.0}, 4, None, None),  # a server that keeps its own limit
    ],
)
def test_the_targets_own_limit_counts_else_the_largest_that_keeps_every_promise(
    loads: Any, pick: Any, limits: dict[int | None, float], concurrency: int, limit: int | None, at_most: int | None
) -> None:
    found = pick(loads.result({4.0: 0.4}, limits=limits, requests=200), concurrency=concurrency)
    assert (found.limit, found.at_most) == (limit, at_most)
    assert (f"run it with at most {at_most} in flight" in found.policy) == (at_most is not None)
    if limits == {8: 9.0, 4: 1.0, 1: 1.0}:
        assert found.policy == "run it with at most 4 in flight (e2e p95 400 ms; at 8, e2e p95 is 3.60 s (fail))"


def test_an_address_is_its_operators_word_and_the_arm_of_the_variants_name_or_the_last_one(
    loads: Any, pick: Any
) -> None:
    urls = ("http://a#big", "http://b#tiny")
    server = loads.result({4.0: 0.4}, weights=(), whats=urls, names=("big", "tiny"))
    found = pick(server)
    assert found.declared and found.what == "http://b#tiny" and found.baseline is not None
    first = pick(server, name="big")
    assert first.what == "http://a#big" and first.baseline is None and first.pairs == ()


def test_a_batch_shows_in_the_time_of_a_token(loads: Any) -> None:
    alone = [loads.timed(at, at / 4, 0.4) for at in range(40)]
    crowd = [loads.timed(at, at / 4, 1.6).model_copy(update={"beside": 7.0}) for at in range(40, 80)]
    run = Run([*alone, *crowd], 80, 20.0, 20.0, 20.0, "", 21.0)
    assert batching(measure([run], [])) == "a token (p95) takes 20 ms alone, 80 ms with 5-8 together"
    assert batching(measure([Run(alone, 40, 20.0, 20.0, 20.0, "", 21.0)], [])) == ""


def test_requests_that_are_much_shorter_than_the_targets_are_named(loads: Any, pick: Any) -> None:
    found = pick(loads.result({4.0: 0.4}, tokens=5), prompt=1024)
    assert found.lighter == (
        "prompts had 128 tokens, and the target says 1024 and answers had 5 tokens, and the target says 16"
    )
    assert not pick(loads.result({4.0: 0.4}, tokens=13, prompt=103)).lighter


def test_a_result_without_bytes_is_taken_by_the_engine_that_was_judged(make: Any, loads: Any, pick: Any) -> None:
    older = loads.result({4.0: 0.4}, weights=())
    judged = make.evidence("small").model_copy(update={"engine": digest_of("engine of small")})
    assert pick(older, evidence=judged).what == digest_of("engine of small")
    with pytest.raises(UsageError, match="does not say which bytes its engine ran"):
        pick(older, evidence=make.evidence("small"))
    with pytest.raises(UsageError, match="does not say which bytes"):
        pick(older)


@pytest.mark.parametrize(
    ("made", "asked", "sentence"),
    [
        (
            {"seconds": {2.0: 0.1, 1.0: 0.1}},
            {},
            "was made at 1, 2 requests/s, and desk asks 4; test it with --rate 4/s",
        ),
        ({"seconds": {8.0: 0.1}}, {}, "was made at 8 requests/s, and desk asks 4"),
        (
            {"weights": (digest_of("base"), digest_of("other"))},
            {},
            r"is of baseline .* and small .*, and small is sha256",
        ),
        ({"limits": {16: 1.0}}, {"concurrency": 4}, "had up to 16 requests in flight, and desk has room for 4"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    loads: Any, pick: Any, made: dict[str, Any], asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence) as refused:
        pick(loads.result(**{"seconds": {4.0: 0.1}} | made), **asked)
    assert str(refused.value).startswith("load.json: ") and str(refused.value).count("\n") == 0


def test_a_result_that_ended_before_the_variants_turn_is_refused(loads: Any, pick: Any) -> None:
    whole = loads.result({4.0: 0.1})
    ended = whole.model_copy(update={"results": whole.results[:1], "partial": "stopped before the end"})
    with pytest.raises(UsageError, match="holds no request of small"):
        pick(ended)


def test_a_percentile_that_was_not_kept_is_told_with_the_option_that_asks_for_it(loads: Any, pick: Any) -> None:
    whole = loads.result({4.0: 0.1})
    rows = [
        one.model_copy(
            update={
                "measured": one.measured.model_copy(
                    update={"quantiles": {name: held[:1] for name, held in one.measured.quantiles.items()}}
                )
            }
        )
        for one in whole.results
    ]
    with pytest.raises(UsageError, match=r"holds p50 of e2e, and desk promises p95; .* --objective 'e2e-p95=1.00s'"):
        pick(whole.model_copy(update={"results": tuple(rows)}))


def test_a_file_is_read_by_target_and_variant(make: Any, loads: Any, tmp_path: Path) -> None:
    result = loads.result({4.0: 0.4})
    result.save(tmp_path / "load.json")
    rules, candidates = [loads.rules()], [make.candidate("small", 1000)]
    for path in (tmp_path, tmp_path / "load.json"):
        found = read_load(f"desk:small={path}", rules, candidates)
        assert (found.target, found.variant, found.result) == ("desk", "small", result.digest)
    for told, error, sentence in [
        ("load.json", UsageError, "expected TARGET:VARIANT=path"),
        (f"desk={tmp_path}", UsageError, "expected TARGET:VARIANT=path"),
        (f"desl:small={tmp_path}", UnknownName, "did you mean 'desk'"),
        (f"desk:smal={tmp_path}", UnknownName, "did you mean 'small'"),
        ("desk:small=nowhere/load.json", RecordError, "no such LoadResult"),
    ]:
        with pytest.raises(error, match=sentence):
            read_load(told, rules, candidates)
