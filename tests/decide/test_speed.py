"""Latency, rate and cost on a target: what a load test proves, what only a roofline says, and what decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.decide.load_evidence import load_evidence
from quantgate.decide.load_order import next_to_load
from quantgate.decide.planning import Plan, PlanRow
from quantgate.decide.rules import LoadEvidence, TargetRules
from quantgate.decide.targets import TargetDecision, TargetVerdict, decide_target
from quantgate.hardware.roofline import Estimate, Memory
from quantgate.hardware.support import Support
from quantgate.records import digest_of

NONE: Mapping[str, Any] = MappingProxyType({})
SIZES = {"large": 3000, "middle": 2000, "small": 1000}


def row_of(variant: str, *, tpot_s: float = 0.001, ttft_s: float = 0.01, cost: float | None = None) -> PlanRow:
    """As the planner leaves it: it runs and fits, so fast at best."""
    support = Support(
        runtime="torch", scheme="W4A16", container="compressed_tensors", hardware="here", kernel="some",
        computes="bf16", status="documented", source="nobody", date="2026-11",
    )  # fmt: skip
    estimate = Estimate(
        memory=Memory(process=0, weights=1, cache=1, activations=1, available=100),
        fits=True, largest_batch=8, ttft_s=ttft_s, ttft_bound="bytes", tpot_s=tpot_s, tpot_bound="bytes",
        tokens_per_s=1 / tpot_s, requests_per_s=50.0, cost_per_million=cost,
    )  # fmt: skip
    return PlanRow(variant=variant, target="desk", stored_bytes=SIZES[variant], support=support, estimate=estimate)


@pytest.fixture(scope="module")
def desk(make: Any, loads: Any) -> Any:
    return Desk(make, loads)


class Desk:
    """Three variants on one target; all pass math unless ``lost`` says how many cases they lose."""

    def __init__(self, make: Any, loads: Any) -> None:
        self.make, self.loads = make, loads
        self.gate = make.gate()

    def rules(self, **place: Any) -> TargetRules:
        found: TargetRules = self.loads.rules(self.gate, **place)
        return found

    def load(self, name: str, rules: TargetRules, seconds: dict[float, float], **made: Any) -> LoadEvidence:
        bytes_ = (digest_of("base"), digest_of(made.pop("bytes_of", name)))
        result = self.loads.result(seconds, weights=bytes_, names=("baseline", name), **made)
        candidate = self.make.candidate(made.get("bytes_of", name), SIZES[name])
        return load_evidence(result, rules, candidate, where="load.json")

    def decide(
        self,
        rules: TargetRules,
        loads: Sequence[LoadEvidence] = (),
        *,
        lost: Mapping[str, int] = NONE,
        order: Any = "e-bonferroni",
        costs: Mapping[str, float] = NONE,
        **row: Any,
    ) -> TargetDecision:
        rows = tuple(row_of(name, cost=costs.get(name), **row) for name in SIZES)
        plan = Plan(model="m", parameters=1, baseline_bytes=1, targets={"desk": rules.place}, rows=rows)
        return decide_target(
            rules,
            [self.make.candidate(name, size) for name, size in SIZES.items()],
            [self.make.evidence(name, self.make.comparison(self.gate, 400, lost.get(name, 0))) for name in SIZES],
            plan,
            loads,
            alpha=0.05,
            order=order,
        )


def finding(verdict: TargetVerdict | None, about: str, label: str = "") -> Any:
    assert verdict is not None
    return next(one for one in verdict.findings if one.about == about and label in one.rule)


def test_a_promise_that_is_kept_under_load_chooses_the_variant_and_spares_the_larger_ones(desk: Desk) -> None:
    rules = desk.rules(concurrency=8)
    found = desk.decide(rules, [desk.load("small", rules, {4.0: 0.4}, limits={8: 1.0})])
    assert found.chosen == "small" and found.sentence == (
        "desk: small keeps every rule; large and middle, larger there, needed no load test; "
        "run it with at most 8 in flight (e2e p95 400 ms)"
    )
    kept = finding(found.of("small"), "latency")
    assert (kept.verdict, kept.by, kept.needs) == ("pass", "measured", ())
    assert kept.sentence == ("e2e p95 <= 1.00 s: p95 is at most 400 ms at 4 requests/s with at most 8 in flight")
    assert finding(found.of("small"), "rate").verdict == "pass"
    for name in ("large", "middle"):
        for about in ("latency", "rate"):
            spared = finding(found.of(name), about)
            assert (spared.verdict, spared.needs) == ("inconclusive", ())
            assert spared.sentence.endswith("not measured: small, which is smaller, passed")
        told = found.of(name)
        assert told is not None and told.sentence == "not load-tested: small, which is smaller, passed"
    lost = desk.decide(rules, [desk.load("small", rules, {4.0: 0.4}, limits={8: 1.0})], lost={"large": 80})
    large = lost.of("large")
    assert large is not None and large.sentence.startswith("breaks math within") and "e2e" not in large.sentence
    assert lost.sentence.startswith("desk: small keeps every rule; middle, larger there, needed no load test")


def test_a_promise_that_is_broken_under_load_fails_the_variant_and_says_where_it_would_be_kept(desk: Desk) -> None:
    rules = desk.rules()
    found = desk.decide(rules, [desk.load("small", rules, {4.0: 1.7, 2.0: 0.4, 1.0: 0.3})])
    broken = finding(found.of("small"), "latency")
    assert (broken.verdict, broken.by) == ("fail", "measured")
    assert "p95 is at least 1.70 s at 4 requests/s" in broken.sentence
    assert broken.needs[0] == "at most 2 requests/s, up to which every promise is proven"
    assert found.chosen is None and "not measured there" in finding(found.of("large"), "latency").sentence


def test_a_limit_that_would_keep_the_promise_is_told_where_nothing_else_passes(desk: Desk) -> None:
    """At 4 in flight everything is proven, and the evidence is of that limit."""
    rules = desk.rules(concurrency=8)
    load = desk.load("small", rules, {4.0: 0.4}, limits={8: 4.0, 4: 1.0})
    assert load.limit == load.at_most == 4
    of_eight = load.model_copy(update={"limit": 8, "measured": desk.load("small", rules, {4.0: 1.7}).measured})
    assert (
        "at most 4 in flight, with which every promise is proven"
        in finding(desk.decide(rules, [of_eight]).of("small"), "latency").needs
    )


def test_without_a_sweep_a_broken_promise_asks_for_lower_rates(desk: Desk) -> None:
    rules = desk.rules()
    (first, *_) = finding(desk.decide(rules, [desk.load("small", rules, {4.0: 1.7})]).of("small"), "latency").needs
    assert first == "a lower rate, which a sweep would find (load_test: {sweep: [2/s, 1/s]})"


def test_an_undecided_promise_says_how_many_requests_would_bound_it(desk: Desk) -> None:
    rules = desk.rules()
    found = finding(desk.decide(rules, [desk.load("small", rules, {4.0: 0.4}, requests=40)]).of("small"), "latency")
    assert found.verdict == "inconclusive" and "40 requests leave p95 open above" in found.sentence
    assert found.needs == ("about 144 requests, 40 were asked",)


def test_a_promise_without_a_rate_is_not_broken_by_a_rate_that_nobody_asked_for(desk: Desk) -> None:
    rules = desk.rules(rate=None)
    slow = desk.load("small", rules, {1.0: 1.7})
    behind = slow.model_copy(update={"measured": slow.measured.model_copy(update={"keeps_up": False})})
    found = finding(desk.decide(rules, [behind]).of("small"), "latency")
    assert found.verdict == "inconclusive" and found.needs == (
        "nothing says how many requests come: write 'rate' into the target",
    )
    assert finding(desk.decide(rules, [slow]).of("small"), "latency").verdict == "fail", "it keeps up, and is too slow"


def test_a_lighter_load_proves_no_promise_kept_and_may_prove_one_broken(desk: Desk) -> None:
    rules = desk.rules(prompt=1024)
    kept = finding(desk.decide(rules, [desk.load("small", rules, {4.0: 0.4})]).of("small"), "latency")
    assert kept.verdict == "inconclusive" and "but prompts had 128 tokens, and the target says 1024" in kept.sentence
    assert finding(desk.decide(rules, [desk.load("small", rules, {4.0: 0.4})]).of("small"), "rate").verdict != "pass"
    assert finding(desk.decide(rules, [desk.load("small", rules, {4.0: 1.7})]).of("small"), "latency").verdict == "fail"


def test_what_falls_behind_breaks_the_rate_and_says_with_which_it_keeps_up(desk: Desk) -> None:
    rules = desk.rules(e2e_p95="60s")
    load = desk.load("small", rules, {4.0: 0.1, 2.0: 0.1}, queue=0.25)
    found = finding(desk.decide(rules, [load]).of("small"), "rate")
    assert found.verdict == "fail" and "falls behind" in found.sentence
    assert found.needs[0] == "at most 2 requests/s, with which it keeps up"


def test_a_roofline_that_misses_a_promise_by_little_leaves_it_to_the_load_test_of_this_machine(desk: Desk) -> None:
    here, there = desk.rules(), desk.rules(hardware="h100-sxm")
    for tpot_s, told in ((0.08, "not measured there"), (0.5, "out of reach")):  # of 1 s for 16 tokens
        assert told in finding(desk.decide(here, tpot_s=tpot_s).of("small"), "latency").sentence
    assert "out of reach" in finding(desk.decide(there, tpot_s=0.08).of("small"), "latency").sentence
    measured = desk.decide(here, [desk.load("small", here, {4.0: 0.4})], tpot_s=0.5)
    assert finding(measured.of("small"), "latency").verdict == "pass", "what was measured counts"


def test_cost_goes_by_the_proven_rate_where_a_sweep_found_one(desk: Desk) -> None:
    """3.60 an hour at 8/s with 16 tokens each: 0.001 a second for 128 tokens, 7.8125 for a million."""
    rules = desk.rules(price="3.60/h", cost=8.0)
    swept = desk.load("small", rules, {4.0: 0.4, 8.0: 0.7, 16.0: 3.0})
    found = desk.decide(rules, [swept], costs={"small": 0.5})
    verdict = found.of("small")
    assert verdict is not None and verdict.cost == pytest.approx(7.8125) and verdict.cost_measured
    cost = finding(verdict, "cost")
    assert (cost.verdict, cost.by) == ("pass", "measured")
    assert cost.sentence == (
        "a million answer tokens cost 7.81 at 8 requests/s, up to which every promise is proven, 8 allowed"
    )
    dear = desk.rules(price="3.60/h", cost=7.0)
    assert finding(desk.decide(dear, [swept], costs={"small": 0.5}).of("small"), "cost").verdict == "fail"
    one = desk.decide(rules, [desk.load("small", rules, {4.0: 0.4})], costs={"small": 0.5}).of("small")
    assert one is not None and one.cost == 0.5 and not one.cost_measured
    assert finding(one, "cost").sentence == "a million answer tokens cost 0.50 at best, 8 allowed"


def test_the_smallest_is_loaded_first_and_the_next_only_when_it_does_not_pass(desk: Desk) -> None:
    rules = desk.rules()
    assert next_to_load(desk.decide(rules), ()) == "small"
    slow, quick = desk.load("small", rules, {4.0: 1.7}), desk.load("middle", rules, {4.0: 0.4})
    assert next_to_load(desk.decide(rules, [slow]), {"small"}) == "middle"
    assert next_to_load(desk.decide(rules, [slow, quick]), {"small", "middle"}) is None
    assert desk.decide(rules, [slow, quick]).chosen == "middle"
    assert next_to_load(desk.decide(rules, lost={"small": 200}), ()) == "middle", "a lost capability stops it before"
    assert next_to_load(desk.decide(rules, lost={"middle": 200}, order="fixed-sequence"), ()) == "large"
    assert next_to_load(desk.decide(rules, tpot_s=0.5), ()) is None, "far out of reach"
    open_ = [desk.load("small", rules, {4.0: 0.4}, requests=40)]
    assert next_to_load(desk.decide(rules, open_), {"small"}) == "middle", "undecided is not passed"


def test_by_cost_the_next_is_loaded_while_it_could_be_cheaper_than_what_passed(desk: Desk) -> None:
    """A roofline's cost is the least there is: 0.4 may beat a measured 7.8, and 9 cannot."""
    rules, costs = desk.rules(price="3.60/h", prefer="cost"), {"small": 0.5, "middle": 0.4, "large": 9.0}
    assert next_to_load(desk.decide(rules, costs=costs), ()) == "middle"
    swept = desk.load("middle", rules, {4.0: 0.4, 8.0: 0.7})
    assert next_to_load(desk.decide(rules, [swept], costs=costs), {"middle"}) == "small"
    both = [swept, desk.load("small", rules, {4.0: 0.4, 8.0: 2.0})]
    found = desk.decide(rules, both, costs=costs)
    assert found.chosen == "middle" and next_to_load(found, {"middle", "small"}) is None
    assert "not measured: middle, which is cheaper, passed" in finding(found.of("large"), "latency").sentence


FAULTS = ("partial", "invalid", "slower", "faster", "bytes")


@settings(max_examples=60)
@given(
    fault=st.sampled_from(FAULTS),
    seconds=st.floats(0.01, 20.0),
    variant=st.sampled_from(sorted(SIZES)),
    other=st.sampled_from([0.4, 1.7, None]),
    promise=st.sampled_from(["ttft_p95", "e2e_p95", "e2e_p50"]),
)
def test_what_is_not_whole_valid_of_these_bytes_and_at_this_rate_decides_nothing(
    desk: Desk, fault: str, seconds: float, variant: str, other: float | None, promise: str
) -> None:
    """However fast or slow: no pass, no fail by measurement, and nothing changes for any other variant."""
    rules = desk.rules(**{"e2e_p95": None, promise: "1s"})
    made: dict[str, Any] = {"partial": "stopped before the end"} if fault == "partial" else {}
    made |= {"took": 1.1} if fault == "invalid" else {}
    rate = {"slower": 2.0, "faster": 8.0}.get(fault, 4.0)
    asked = desk.rules(**{"e2e_p95": None, promise: "1s", "rate": f"{rate}/s"})
    doubtful = desk.load(variant, asked, {rate: seconds}, **made)
    if fault == "bytes":
        doubtful = doubtful.model_copy(update={"artifact": digest_of("others")})
    names = [name for name in SIZES if name != variant]
    beside = [] if other is None else [desk.load(names[0], rules, {4.0: other})]
    before, after = desk.decide(rules, beside), desk.decide(rules, [*beside, doubtful])
    verdict = after.of(variant)
    assert verdict is not None and verdict.verdict == "inconclusive" and not verdict.eligible
    for one in verdict.findings:
        if one.about in ("latency", "rate"):
            assert (one.verdict, one.by) == ("inconclusive", "none") and one.needs
    assert after.chosen == before.chosen
    assert [after.of(name) for name in names] == [before.of(name) for name in names]
