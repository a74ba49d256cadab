"""Decisions: the smallest proven variant wins, nothing passes on missing data, and every sentence in full."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from quantgate.decide import decide, judge_capability, judge_variant, pass_alpha
from quantgate.errors import UsageError
from quantgate.evaluate.evidence import Comparison


def verdicts(decision: Any) -> Any:
    return {one.variant: one.verdict for one in decision.verdicts}


def test_smallest_passing_variant_wins(make: Any) -> None:
    gate = make.gate(pass_alpha=0.05 / 3)
    candidates, evidence = make.run(gate, large=(900, 200, 0), middle=(600, 200, 0), small=(300, 200, 60))
    decision = decide([gate], candidates, evidence, alpha=0.05, order="e-bonferroni")
    assert verdicts(decision) == {"large": "pass", "middle": "pass", "small": "fail"}
    assert decision.chosen == "middle"
    assert decision.sentence == "middle is the smallest of 3 variants that is proven safe"
    assert [one.variant for one in decision.verdicts] == ["large", "middle", "small"]  # largest first


def test_a_variant_whose_ledger_breaks_a_rule_is_not_chosen_though_it_passed(make: Any) -> None:
    gates = [make.gate("math")]
    evidence = [make.evidence(name, make.comparison(gates[0], 300)) for name in ("w4", "w8")]
    small = make.candidate("w4", 1).model_copy(update={"ledger": {"fallback": 2, "kept": 5}})
    candidates = [small, make.candidate("w8", 2)]

    def chosen(**ledger: int) -> str | None:
        return decide(gates, candidates, evidence, alpha=0.05, order="e-bonferroni", ledger=ledger).chosen

    assert chosen() == chosen(fallback=2) == chosen(damping=0) == "w4"
    assert chosen(fallback=1) == chosen(kept=0) == "w8"
    found = decide(gates, candidates, evidence, alpha=0.05, order="e-bonferroni", ledger={"fallback": 1, "kept": 9})
    verdict = next(one for one in found.verdicts if one.variant == "w4")
    assert verdict.verdict == "pass"
    assert verdict.sentence.endswith("; not to be chosen: 2 lines of fallback in its ledger, 1 allowed")


def test_of_two_equally_small_variants_the_first_by_name_wins(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, beta=(300, 200, 0), alpha=(300, 200, 0))
    for order in ("e-bonferroni", "fixed-sequence"):
        decision = decide([gate], candidates, evidence, alpha=0.05, order=order)
        assert decision.chosen == "alpha"
        assert [one.variant for one in decision.verdicts] == ["alpha", "beta"]


def test_order_of_the_arguments_changes_nothing(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, a=(900, 200, 0), b=(600, 200, 60), c=(300, 200, 0))
    first = decide([gate], candidates, evidence, alpha=0.05, order="fixed-sequence")
    assert decide([gate], candidates[::-1], evidence[::-1], alpha=0.05, order="fixed-sequence") == first


@pytest.mark.parametrize(("cases", "lost", "verdict"), [(200, 60, "fail"), (30, 0, "inconclusive")])
def test_fixed_sequence_chooses_nothing_behind_the_first_that_did_not_pass(
    make: Any, cases: int, lost: int, verdict: str
) -> None:
    gate = make.gate()
    candidates, evidence = make.run(
        gate, large=(900, 200, 0), middle=(600, cases, lost), small=(300, 200, 0), least=(1, 200, 0)
    )
    strict = decide([gate], candidates, evidence, alpha=0.05, order="fixed-sequence")
    assert verdicts(strict) == {"large": "pass", "middle": verdict, "small": "pass", "least": "pass"}
    assert [one.eligible for one in strict.verdicts] == [True, False, False, False]
    assert strict.chosen == "large"
    blocked = "keeps every capability, but a larger variant did not pass before it in the fixed sequence"
    assert strict.verdicts[2].sentence == blocked
    free = decide([gate], candidates, evidence, alpha=0.05, order="e-bonferroni")
    assert free.chosen == "least"


def test_many_variants_share_alpha_only_under_e_bonferroni() -> None:
    assert pass_alpha(0.05, 5, "e-bonferroni") == pytest.approx(0.01)
    assert pass_alpha(0.05, 5, "fixed-sequence") == 0.05
    assert pass_alpha(0.05, 0, "e-bonferroni") == 0.05


def test_e_bonferroni_needs_more_evidence_for_the_same_pass(make: Any) -> None:
    alone, shared = make.gate(), make.gate(pass_alpha=0.05 / 6)
    assert make.comparison(alone, 100).finding.verdict == "pass"
    assert make.comparison(shared, 100).finding.verdict == "inconclusive"
    assert make.comparison(shared, 140).finding.verdict == "pass"


def test_one_lost_capability_is_enough_to_fail(make: Any) -> None:
    gates = [make.gate("math"), make.gate("chat"), make.gate("refusals")]
    rows = [make.comparison(gates[0], 200), make.comparison(gates[1], 200, 60), make.comparison(gates[2], 20)]
    verdict = judge_variant(gates, make.candidate("w3", 1), make.evidence("w3", *rows), blocked=False)
    assert [row.verdict for row in verdict.capabilities] == ["pass", "fail", "inconclusive"]
    assert (verdict.verdict, verdict.eligible) == ("fail", False)
    assert verdict.sentence == "damages chat; refusals not decided"


def test_missing_capability_is_inconclusive(make: Any) -> None:
    gates = [make.gate("math"), make.gate("chat")]
    evidence = make.evidence("w4", make.comparison(gates[0], 200))
    verdict = judge_variant(gates, make.candidate("w4", 1), evidence, blocked=False)
    assert [row.verdict for row in verdict.capabilities] == ["pass", "inconclusive"]
    assert (verdict.verdict, verdict.eligible) == ("inconclusive", False)
    assert verdict.sentence == "not proven on chat; more cases or a wider margin may decide"
    assert verdict.capabilities[1].sentence == "chat: no evidence for these bytes and these rules, so nothing is proven"


def test_variant_without_evidence_is_inconclusive(make: Any) -> None:
    decision = decide([make.gate()], [make.candidate("w4", 1)], [], alpha=0.05, order="e-bonferroni")
    assert verdicts(decision) == {"w4": "inconclusive"}
    assert decision.chosen is None
    assert decision.verdicts[0].engine == "none"
    assert decision.sentence == "the only variant is not proven safe: keep the baseline"


def test_evidence_for_other_bytes_proves_nothing(make: Any) -> None:
    gate = make.gate()
    evidence = make.evidence("w4", make.comparison(gate, 200), artifact="sha256:" + "0" * 64)
    verdict = judge_variant([gate], make.candidate("w4", 1), evidence, blocked=False)
    assert verdict.verdict == "inconclusive"


@pytest.mark.parametrize("changed", [{"margin": 0.10}, {"seed": 1}, {"pass_alpha": 0.1}, {"test": "exact"}])
def test_evidence_for_other_rules_proves_nothing(make: Any, changed: Any) -> None:
    gate = make.gate()
    other = gate.model_copy(update=changed)
    assert judge_capability(gate, make.comparison(other, 120)).verdict == "inconclusive"


def test_zero_cases_are_inconclusive(make: Any) -> None:
    gate = make.gate()
    none = make.comparison(gate, 0, unscored=["math-1: baseline: too long"], void=1)
    assert judge_capability(gate, none).verdict == "inconclusive"
    assert judge_capability(gate, none).sentence == (
        "math: no case could be scored, so nothing is proven (1 of 1 unscored, first: math-1: baseline: too long)"
    )
    forged = make.comparison(gate, 200).model_copy(update={"n": 0})
    assert judge_capability(gate, forged).verdict == "inconclusive"


@pytest.mark.parametrize(("void", "verdict"), [(4, "pass"), (5, "inconclusive")])
def test_more_than_two_percent_unscored_cannot_pass(make: Any, void: int, verdict: str) -> None:
    gate = make.gate()
    named = [f"math-{at}: baseline: too long" for at in range(void)]
    row = judge_capability(gate, make.comparison(gate, 200 - void, unscored=named, void=void))
    assert row.verdict == verdict


def test_proven_loss_stays_a_loss_with_unscored_cases(make: Any) -> None:
    gate = make.gate()
    named = [f"math-{at}: variant: crashed" for at in range(60)]
    row = judge_capability(gate, make.comparison(gate, 200, 60, unscored=named))
    assert row.verdict == "fail"
    assert row.sentence.endswith("more than the 5 % allowed (60 of 200 unscored, first: math-0: variant: crashed)")


def test_no_gate_and_no_variant_are_nothing_to_decide_on(make: Any) -> None:
    told = "nothing to decide: name at least one capability and one variant besides the baseline"
    for gates, candidates in (([], [make.candidate("w4", 1)]), ([make.gate()], [])):
        with pytest.raises(UsageError, match=told):
            decide(gates, candidates, [], alpha=0.05, order="e-bonferroni")


def test_the_better_of_two_cannot_be_picked(make: Any) -> None:
    gate, candidate = make.gate(), make.candidate("w4", 1)
    bad, good = make.comparison(gate, 200, 60), make.comparison(gate, 200)
    wrong = {
        "variant 'w4' is given 2 times": ([gate], [candidate, candidate], [make.evidence("w4", good)]),
        "evidence of 'w4' is given 2 times": (
            [gate],
            [candidate],
            [make.evidence("w4", bad), make.evidence("w4", good)],
        ),
        "w4: comparison on 'math' is given 2 times": ([gate], [candidate], [make.evidence("w4", bad, good)]),
        "capability 'math' is given 2 times": ([gate, gate], [candidate], [make.evidence("w4", good)]),
        "compared with different baselines": (
            [gate],
            [candidate, make.candidate("w8", 2)],
            [make.evidence("w4", good), make.evidence("w8", good, baseline="another")],
        ),
    }
    for told, (gates, candidates, evidence) in wrong.items():
        with pytest.raises(UsageError, match=told):
            decide(gates, candidates, evidence, alpha=0.05, order="e-bonferroni")


def test_decision_names_the_bytes_and_the_engine(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, w4=(300, 200, 0))
    decision = decide([gate], candidates, evidence, alpha=0.05, order="e-bonferroni")
    assert decision.baseline == evidence[0].baseline
    assert (decision.verdicts[0].artifact, decision.verdicts[0].engine) == (evidence[0].artifact, evidence[0].engine)


SENTENCES = {
    "pass": (
        (200, 1, 1),
        {},
        "math: 99.5 % -> 99.5 % over 200 cases (1 lost, 1 gained); at worst {low} % lost, within the 5 % allowed",
    ),
    "fail": (
        (200, 60, 2),
        {},
        "math: 99 % -> 70 % over 200 cases (60 lost, 2 gained); at least {high} % lost, more than the 5 % allowed",
    ),
    "inconclusive": (
        (40, 1, 0),
        {},
        "math: 100 % -> 97.5 % over 40 cases (1 lost, 0 gained); the change lies between {low} % and {high} %, "
        "not proven to stay within the 5 % allowed, about {needed} cases would decide",
    ),
    "absolute": (
        (40, 1, 0),
        {"relative": False},
        "math: 100 % -> 97.5 % over 40 cases (1 lost, 0 gained); "
        "the change lies between {low} points and {high} points, "
        "not proven to stay within the 5 points allowed, about {needed} cases would decide",
    ),
    "one case": (
        (1, 0, 0),
        {},
        "math: 100 % -> 100 % over 1 case (0 lost, 0 gained); the change lies between {low} % and {high} %, "
        "not proven to stay within the 5 % allowed, about {needed} cases would decide",
    ),
    "small loss": (
        (1500, 25, 1),
        {},
        "math: 99.9 % -> 98.3 % over 1500 cases (25 lost, 1 gained); at worst {low} % lost, within the 5 % allowed; "
        "a small loss is itself proven",
    ),
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_sentence_in_full(make: Any, kind: str) -> None:
    (n, lost, gained), rules, wanted = SENTENCES[kind]
    gate = make.gate(**rules)
    comparison = make.comparison(gate, n, lost, gained)
    finding = comparison.finding
    row = judge_capability(gate, comparison)
    if row.verdict == "inconclusive":
        low, high = f"{100 * finding.low:.1f}", f"{100 * finding.high:+.1f}"
    else:
        low, high = f"{-100 * finding.low:.1f}", f"{-100 * finding.high:.1f}"
    low, high = low.removesuffix(".0"), high.removesuffix(".0")
    assert row.sentence == wanted.format(low=low, high=high, needed=finding.needed)
    assert row.verdict == (kind if kind in ("pass", "fail") else "pass" if kind == "small loss" else "inconclusive")


def test_pass_that_too_many_unscored_cases_spoil_says_so(make: Any) -> None:
    gate = make.gate()
    named = [f"math-{at}: baseline: too long" for at in range(10)]
    row = judge_capability(gate, make.comparison(gate, 190, unscored=named, void=10))
    assert row.sentence == (
        "math: 100 % -> 100 % over 190 cases (0 lost, 0 gained); too many cases could not be scored "
        "(10 of 200 unscored, first: math-0: baseline: too long)"
    )


def test_bound_is_never_printed_as_the_margin_it_lies_beyond(make: Any) -> None:
    gate = make.gate(margin=0.03)
    failed = make.comparison(gate, 400, 40)
    near = failed.finding.model_copy(update={"high": -0.0304})
    row = judge_capability(gate, failed.model_copy(update={"finding": near}))
    assert row.sentence.endswith("at least 3.04 % lost, more than the 3 % allowed")


@pytest.mark.parametrize(
    ("capabilities", "sentence"),
    [
        (("math",), "keeps math within its margin"),
        (("math", "chat"), "keeps both capabilities within their margins"),
        (("math", "chat", "code"), "keeps all 3 capabilities within their margins"),
    ],
)
def test_sentence_of_a_variant_that_passed(make: Any, capabilities: Any, sentence: str) -> None:
    gates = [make.gate(name) for name in capabilities]
    evidence = make.evidence("w8", *(make.comparison(gate, 200) for gate in gates))
    verdict = judge_variant(gates, make.candidate("w8", 1), evidence, blocked=False)
    assert (verdict.sentence, verdict.eligible) == (sentence, True)


def test_sentence_when_no_variant_is_safe(make: Any) -> None:
    gate = make.gate()
    candidates, evidence = make.run(gate, a=(2, 200, 60), b=(1, 200, 60))
    decision = decide([gate], candidates, evidence, alpha=0.05, order="e-bonferroni")
    assert decision.sentence == "none of 2 variants is proven safe: keep the baseline"
    assert decision.chosen is None


def test_nan_cannot_enter_evidence(make: Any) -> None:
    body = make.comparison(make.gate(), 200).body()
    for key in ("baseline_score", "variant_score"):
        with pytest.raises(ValidationError, match="finite number"):
            Comparison.model_validate(body | {key: float("nan")})
