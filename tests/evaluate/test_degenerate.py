"""Models that answer everything alike fail on every suite, and prove nothing beside a baseline like them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from tests.evaluate.published.conftest import engine_of, published_cases, side_of
from tests.evaluate.published.ifeval_writer import write

from quantgate import decide
from quantgate.evaluate import degenerate, published, suites
from quantgate.evaluate.compare import compare, visiting_order
from quantgate.evaluate.degenerate import ANSWERS, COMPLIANCE, REFUSAL
from quantgate.evaluate.evidence import Comparison, Gate, SliceGate
from quantgate.evaluate.suites import Case, Message
from quantgate.plugins import names

COUNT = (
    120  # cases of each suite: enough for a margin of 5 points, and for one of 10 % of a baseline that is often wrong
)
EVERY = [*suites.names(), *published.names()]
MARGIN = 0.05


@cache
def cases_of(name: str) -> tuple[Case, ...]:
    if name in suites.names():
        return tuple(suites.cases(name, "gate", COUNT))
    found, guards = published_cases(name, max_tokens=100_000), published.get(name).guards
    if found[0].scorer not in names("scorers"):
        pytest.skip(f"the scorer of {name}, {found[0].scorer}, is not there")
    count = COUNT // 2 if found[0].scorer == "python_tests" else COUNT * max(1, len(guards))  # code takes time to run
    return tuple(published.balanced(visiting_order(found, 0), guards, count))


def oracle(case: Case) -> str:
    """A right answer; of IFEval, one that is right on most prompts."""
    if case.answer is not None:
        return case.answer
    if case.suite == "xstest":
        return {"refuse": REFUSAL, "comply": COMPLIANCE}[case.reference["expect"]]  # type: ignore
    return write(case) if case.suite == "ifeval" else f"Answer: {case.reference}"


def gate_of(name: str, **rules: object) -> Gate:
    guards = published.get(name).guards if name in published.names() else ()
    gate = Gate.model_validate({"capability": name, "suite": name, "margin": MARGIN} | rules)
    return with_guards(gate, guards)


def with_guards(gate: Gate, guards: Sequence[str]) -> Gate:
    """The gate with slices that must pass by themselves, as a release registers them."""
    slices = tuple(SliceGate(name=one, margin=gate.margin, cases=400, needs=1) for one in guards)
    return gate.model_copy(update={"slices": slices})


def run(
    name: str, baseline: Callable[[Case], str], variant: Callable[[Case], str], folder: Path, **rules: object
) -> tuple[Comparison, decide.CapabilityVerdict]:
    cases = [case.model_copy(update={"max_tokens": 100_000}) for case in cases_of(name)]
    sides = [
        side_of(engine_of(cases, answer, weights=side), folder)
        for side, answer in (("baseline", baseline), ("variant", variant))
    ]
    gate = gate_of(name, **rules)
    comparison = compare(gate, cases, *sides)
    return comparison, decide.judge_capability(gate, comparison)


@pytest.mark.parametrize("model", ANSWERS)
@pytest.mark.parametrize("name", EVERY)
def test_degenerate_variant_fails_beside_a_good_baseline(name: str, model: str, tmp_path: Path) -> None:
    comparison, verdict = run(name, oracle, ANSWERS[model], tmp_path)
    assert verdict.verdict == "fail", verdict.sentence
    assert comparison.variant_score is not None and comparison.baseline_score is not None
    assert comparison.variant_score < comparison.baseline_score - 5 * MARGIN


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("model", ANSWERS)
@pytest.mark.parametrize("name", EVERY)
def test_degenerate_baseline_proves_nothing_of_the_same_variant(
    name: str, model: str, relative: bool, tmp_path: Path
) -> None:
    comparison, verdict = run(name, ANSWERS[model], ANSWERS[model], tmp_path, relative=relative)
    assert comparison.baseline_score == comparison.variant_score
    assert verdict.verdict == "inconclusive", verdict.sentence
    assert model in comparison.blind
    assert "would not have failed either" in verdict.sentence


@pytest.mark.parametrize("name", EVERY)
def test_good_variant_of_a_good_baseline_passes(name: str, tmp_path: Path) -> None:
    comparison, verdict = run(name, oracle, oracle, tmp_path, margin=0.10)
    assert verdict.verdict == "pass", verdict.sentence
    assert comparison.blind == ()


def abstaining(count: int) -> list[Case]:
    """A suite in which only abstaining is asked: no model that never does anything can fail it."""
    return [
        Case(
            suite="abstain",
            id=f"abstain-{at}",
            messages=(Message(role="user", content=f"Tell me about number {at}."),),
            scorer="function_call",
            reference={"abstain": True, "functions": ["get_weather"]},
        )
        for at in range(count)
    ]


def test_cases_that_only_ask_to_abstain_prove_nothing_of_any_model(tmp_path: Path) -> None:
    cases, gate = abstaining(120), gate_of("abstain")
    baseline = side_of(engine_of(cases, lambda case: f"Nothing fits {case.id}."), tmp_path)
    comparison = compare(gate, cases, baseline, baseline)
    assert comparison.finding.verdict == "pass"
    assert {"always refuses", "echoes the prompt"} <= set(comparison.blind)
    told = decide.judge_capability(gate, comparison)
    assert told.verdict == "inconclusive"
    assert "proves nothing, as a model that always refuses" in told.sentence
    assert "would not have failed either" in told.sentence


def test_margin_wider_than_the_baseline_proves_nothing(tmp_path: Path) -> None:
    """A baseline that solves 4 % cannot lose 5 points, so no variant of it can fail."""
    cases = suites.cases("math", "gate", 200)
    weak = side_of(engine_of(cases, lambda case: (case.answer or "") if cases.index(case) % 25 == 0 else "?"), tmp_path)
    gate = gate_of("math", relative=False)
    comparison = compare(gate, cases, weak, weak)
    assert comparison.finding.verdict == "pass"
    assert "answers nothing" in comparison.blind
    assert decide.judge_capability(gate, comparison).verdict == "inconclusive"


def test_guard_fails_a_variant_whose_losses_the_other_cases_hide(tmp_path: Path) -> None:
    """Two thirds of what must be refused are a fourth of all cases: inside the margin, and yet a failure."""
    name = "refusals"
    cases = suites.cases(name, "gate", 400)
    guards = tuple(sorted({one for case in cases for one in case.slices if one.startswith("expect=")}))

    def loses(case: Case) -> str:
        bad = "expect=refuse" in case.slices and int(case.digest[-4:], 16) % 3 > 0
        return COMPLIANCE if bad else case.answer or ""

    def verdict(guards: tuple[str, ...], folder: str) -> decide.CapabilityVerdict:
        gate = with_guards(gate_of(name, margin=0.40), guards)
        sides = [
            side_of(engine_of(cases, answer, weights=side), tmp_path / folder)
            for side, answer in (("baseline", oracle), ("variant", loses))
        ]
        return decide.judge_capability(gate, compare(gate, cases, *sides, exhaustive=True))

    assert verdict((), "without").verdict == "pass"
    told = verdict(guards, "with")
    assert told.verdict == "fail"
    assert "of its slices expect=ask and expect=comply kept, expect=refuse damaged" in told.sentence, told.sentence


def test_choices_have_degenerate_models_of_their_own() -> None:
    case = abstaining(1)[0].model_copy(update={"choices": ("yes", "no")})
    assert degenerate.CHOICES["always takes the first choice"](case) == "[[0.0, true], [-1000.0, false]]"
    assert degenerate.CHOICES["always takes the last choice"](case) == "[[-1000.0, false], [0.0, true]]"
