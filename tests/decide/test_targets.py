"""The choice for a target: every rule must be kept, what is not known is never taken for kept, and it is all said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.decide import Candidate
from quantgate.decide.planning import Plan, PlanRow
from quantgate.decide.rules import DriftLimits, TargetRules
from quantgate.decide.targets import TargetDecision, decide_target
from quantgate.decide.why import of_target
from quantgate.evaluate.evidence import Evidence, Gate
from quantgate.hardware import Estimate, Support
from quantgate.hardware.roofline import Memory
from quantgate.hardware.targets import Place
from quantgate.records import parse

GB = 10**9


def place(**told: Any) -> Place:
    return parse(Place, {"hardware": "h100-sxm", "runtime": "torch", **told}, where="test")


def rules(gate: Gate, *, at: Mapping[str, Any] | None = None, **told: Any) -> TargetRules:
    return TargetRules.model_validate({"name": "fleet", "place": place(**at or {}), "gates": (gate,)} | told)


def row(
    name: str, *, problems: tuple[str, ...] = (), fallback: str = "", fits: bool | None = True, **told: Any
) -> PlanRow:
    """A row of a plan; ``told`` replaces parts of its estimate."""
    found = Support(
        runtime="torch", scheme="W4A16", container="compressed_tensors", hardware="h100-sxm", kernel="k",
        computes="bf16", status="documented", source="a page", date="2026-11", problems=problems, fallback=fallback,
    )  # fmt: skip
    available = None if fits is None else 2 * GB if fits else GB // 2
    estimate = {
        "memory": Memory(process=0, weights=GB, cache=0, activations=0, available=available), "fits": fits,
        "largest_batch": 4, "ttft_s": 0.05, "ttft_bound": "bytes", "tpot_s": 0.01, "tpot_bound": "bytes",
        "tokens_per_s": 100.0, "requests_per_s": 5.0, "cost_per_million": 1.5,
    } | told  # fmt: skip
    return PlanRow(
        variant=name, target="fleet", stored_bytes=1, support=found,
        estimate=None if problems else Estimate.model_validate(estimate),
    )  # fmt: skip


def plan(*rows: PlanRow) -> Plan:
    return Plan(model="m", parameters=1, baseline_bytes=1, targets={"fleet": place()}, rows=rows)


def decided(
    one: TargetRules,
    candidates: list[Candidate],
    evidence: list[Evidence],
    found: Plan | None,
    order: Any = "e-bonferroni",
) -> TargetDecision:
    runs = [each.model_copy(update={"runtime": ("engine=torch",)}) for each in evidence]
    return decide_target(one, candidates, runs, found, [], alpha=0.05, order=order)


def of(decision: TargetDecision, variant: str = "w4") -> dict[str, str]:
    found = decision.of(variant)
    assert found
    return {one.about: one.verdict for one in found.findings}


def test_the_smallest_that_keeps_every_rule_is_chosen(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, w8=(800, 200, 0), w4=(400, 200, 0), w3=(300, 200, 60))
    decision = decided(rules(gate), candidates, evidence, plan(row("w8"), row("w4"), row("w3")))
    assert decision.chosen == "w4"
    assert decision.sentence == "fleet: w4 is the smallest of the 2 that keep every rule"
    assert [one.variant for one in decision.verdicts] == ["w8", "w4", "w3"]
    assert [one.verdict for one in decision.verdicts] == ["pass", "pass", "fail"]


def test_a_small_file_that_is_decoded_when_it_is_opened_is_not_the_smallest(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, w4=(400, 200, 0), q3=(300, 200, 0))
    light, heavy = (Memory(process=0, weights=size, cache=0, activations=0, available=2 * GB) for size in (500, 900))
    rows = plan(row("w4", memory=light), row("q3", memory=heavy))
    assert decided(rules(gate), candidates, evidence, rows).chosen == "w4"


def test_the_cheapest_is_chosen_by_the_users_word(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, w8=(800, 200, 0), w4=(400, 200, 0))
    rows = plan(row("w8", cost_per_million=0.9), row("w4", cost_per_million=1.1))
    assert decided(rules(gate), candidates, evidence, rows).chosen == "w4"
    cheap = decided(rules(gate, prefer="cost", at={"price": "2/h"}), candidates, evidence, rows)
    assert cheap.chosen == "w8"
    assert cheap.sentence == "fleet: w8 is the cheapest of the 2 that keep every rule"


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str], str]] = {
    "a runtime that refuses": ({}, {"problems": ("no kernel; choose W8A8",)}, {"runtime": "fail"}, "no kernel"),
    "memory that is short": ({}, {"fits": False}, {"memory": "fail"}, "only 500.0 MB are there"),
    "memory nobody knows": ({}, {"fits": None}, {"memory": "inconclusive"}, "nobody says how much memory"),
    "a promise not measured": ({"at": {"ttft_p95": "300ms"}}, {}, {"latency": "inconclusive"}, "not measured there"),
    "a promise planned": (
        {"at": {"ttft_p95": "300ms"}, "speed": "planned"}, {}, {"latency": "pass"}, "not measured (speed: planned)",
    ),
    "a promise out of reach": ({"at": {"ttft_p95": "30ms"}}, {}, {"latency": "fail"}, "at best it takes 50 ms"),
    "an end out of reach": (
        {"at": {"e2e_p95": "1s", "answer": 128}}, {}, {"latency": "fail"}, "at best it takes 1.32 s",
    ),
    "a fallback planned": (
        {"at": {"ttft_p95": "300ms"}, "speed": "planned"}, {"fallback": "weight-only"}, {"latency": "inconclusive"},
        "runs as a fallback there, whose speed no roofline foretells",
    ),
    "a rate not measured": ({"at": {"rate": "2/s"}}, {}, {"rate": "inconclusive"}, "2 requests/s: not measured there"),
    "a rate out of reach": ({"at": {"rate": "9/s"}}, {}, {"rate": "fail"}, "at best 5/s"),
    "a cost that is kept": ({"cost": 2.0}, {}, {"cost": "pass"}, "cost 1.50 at best, 2 allowed"),
    "a cost beyond it": ({"cost": 1.0}, {}, {"cost": "fail"}, "cost 1.50 at best, 1 allowed"),
    "a cost nobody knows": ({"cost": 1.0}, {"cost_per_million": None}, {"cost": "inconclusive"}, "is not known"),
    "a ledger that is kept": ({"ledger": {"fallback": 0}}, {}, {"ledger": "pass"}, "0 lines of fallback"),
    "drift not measured": ({"drift": DriftLimits(kl_mean=0.1)}, {}, {"drift": "inconclusive"}, "drift: "),
    "another runtime": ({"at": {"runtime": "vllm"}}, {}, {"stack": "inconclusive"}, "and vllm will ship"),
    "another runtime, taken": ({"at": {"runtime": "vllm"}, "stack": "any"}, {}, {"stack": "pass"}, "are not proven"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_rule_decides_and_says_why(make: Any, case: str) -> None:
    told, planned, verdicts, sentence = CASES[case]
    gate = make.gate()
    candidates, evidence = make.run(gate, w4=(400, 200, 0))
    decision = decided(rules(gate, **told), candidates, evidence, plan(row("w4", **planned)))
    found = of(decision)
    assert {about: found[about] for about in verdicts} == verdicts
    assert any(sentence in one.sentence for one in decision.verdicts[0].findings)
    kept = set(found.values()) == {"pass"}
    assert (decision.chosen == "w4") == kept
    needs = [one.needs for one in decision.verdicts[0].findings if one.verdict == "fail"]
    assert all(needs), "what fails says what it would take"


def test_what_cannot_run_has_no_speed_and_no_price(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, w4=(400, 200, 0))
    one = rules(gate, at={"ttft_p95": "300ms", "rate": "2/s"}, cost=1.0)
    assert not {"latency", "rate", "cost"} & set(
        of(decided(one, candidates, evidence, plan(row("w4", problems=("no",)))))
    )


def test_a_variant_that_was_not_planned_or_not_asked_is_not_decided(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, w4=(400, 200, 0))
    assert of(decided(rules(gate), candidates, evidence, None)) == {
        "runtime": "inconclusive",
        "stack": "pass",
        "capability": "pass",
    }
    assert of(decided(rules(gate), candidates, [], plan(row("w4"))))["capability"] == "inconclusive"


def test_evidence_of_other_bytes_or_another_gate_proves_nothing(make: Any) -> None:
    gate = make.gate()
    candidates = [make.candidate("w4", 400)]
    other = make.evidence("w4", make.comparison(gate, 200), artifact="sha256:" + "0" * 64)
    assert decided(rules(gate), candidates, [other], plan(row("w4"))).chosen is None
    tighter = gate.model_copy(update={"margin": 0.01})
    own = make.evidence("w4", make.comparison(gate, 200))
    assert decided(rules(tighter), candidates, [own], plan(row("w4"))).chosen is None
    both = own.model_copy(update={"for_targets": (make.comparison(tighter, 900),)})
    assert decided(rules(tighter), candidates, [both], plan(row("w4"))).chosen == "w4"


def test_a_fixed_sequence_ends_at_the_first_whose_tests_do_not_pass_and_skips_what_does_not_fit(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, a=(900, 200, 60), b=(800, 200, 0), c=(700, 200, 60), d=(600, 200, 0))
    rows = plan(row("a", fits=False), row("b"), row("c"), row("d"))
    decision = decided(rules(gate), candidates, evidence, rows, order="fixed-sequence")
    assert decision.chosen == "b"
    assert [one.eligible for one in decision.verdicts] == [False, True, False, False]
    assert decision.verdicts[3].sentence == (
        "keeps every rule, but c, which is larger, did not pass before it in the fixed sequence"
    )
    fewer = decided(rules(gate), candidates, evidence[:3], rows, order="fixed-sequence")
    assert (
        fewer.verdicts[3].sentence == "not asked: c, which is larger, did not pass before it, so it could not be chosen"
    )


def test_a_slow_variant_does_not_end_a_fixed_sequence(make: Any) -> None:
    """Its tests passed; that it is slow says nothing about those below it."""
    gate = make.gate()
    candidates, evidence = make.run(gate, big=(900, 200, 0), small=(400, 200, 0))
    one = rules(gate, at={"tpot_p95": "20ms"}, speed="planned")
    rows = plan(row("big", tpot_s=0.03), row("small"))
    assert decided(one, candidates, evidence, rows, order="fixed-sequence").chosen == "small"


VERDICTS = st.sampled_from(["pass", "fail", "open", "nothing"])
SPEEDS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"tpot_s": 9.0}, {"ttft_s": None}, {"requests_per_s": 0.1}, {"requests_per_s": None}]
)


@st.composite
def variants(draw: st.DrawFn) -> tuple[str, str, bool | None, bool, dict[str, Any]]:
    return (
        draw(VERDICTS),
        draw(st.sampled_from(["torch", "other"])),
        draw(st.sampled_from([True, False, None])),
        draw(st.booleans()),
        draw(SPEEDS),
    )


@given(found=st.lists(variants(), min_size=1, max_size=5), order=st.sampled_from(["e-bonferroni", "fixed-sequence"]))
def test_only_what_is_known_to_keep_every_rule_is_ever_chosen(make: Any, found: list[Any], order: str) -> None:
    gate = make.gate()
    shapes = {"pass": (200, 0), "fail": (200, 60), "open": (30, 0)}
    candidates, evidence, rows = [], [], []
    for at, (verdict, runtime, fits, problem, speed) in enumerate(found):
        name = f"v{at}"
        candidates.append(make.candidate(name, 1000 - at))
        if verdict != "nothing":
            one = make.evidence(name, make.comparison(gate, *shapes[verdict]))
            evidence.append(one.model_copy(update={"runtime": (f"engine={runtime}",)}))
        rows.append(row(name, fits=fits, problems=("no",) if problem else (), **speed))
    one = rules(gate, at={"tpot_p95": "1s", "ttft_p95": "1s", "rate": "1/s"}, speed="planned")
    decision = decide_target(one, candidates, evidence, plan(*rows), [], alpha=0.05, order=order)  # type: ignore[arg-type]
    good = [
        f"v{at}"
        for at, (verdict, runtime, fits, problem, speed) in enumerate(found)
        if verdict == "pass" and runtime == "torch" and fits and not problem and speed == {}
    ]
    if decision.chosen is not None:
        assert decision.chosen in good
    if order == "e-bonferroni":
        assert decision.chosen == (good[-1] if good else None)
    for verdict in decision.verdicts:
        assert (verdict.verdict == "pass") == (verdict.variant in good)
        assert all(finding.sentence and finding.rule for finding in verdict.findings)
    assert TargetDecision.model_validate(decision.body()) == decision


def test_why_tells_each_rule_and_what_it_would_take(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, w8=(800, 200, 0), w4=(400, 200, 0), w3=(300, 200, 60))
    decision = decided(rules(gate), candidates, evidence, plan(row("w8"), row("w4"), row("w3", fits=False)))
    chosen, larger, broken = (of_target(decision, name, None) for name in ("w4", "w8", "w3"))
    assert chosen and larger and broken
    assert chosen.sentence == "w4 is chosen for fleet: it keeps all 4 rules, and it is the smallest that does"
    assert not chosen.needs
    assert larger.sentence == (
        "w8 is not chosen for fleet: it keeps all 4 rules, and w4 does as well and is smaller on disk "
        "(0.0 MB against 0.0 MB)"
    )
    assert broken.sentence == "w3 is not chosen for fleet: it does not fit and breaks math within 5 %"
    assert "at most 4 at once" in broken.needs
    assert "math: better bits where it hurts: quantgate repair w3" in broken.needs
    assert of_target(decision, "w5", None) is None
