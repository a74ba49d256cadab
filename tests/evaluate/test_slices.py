"""Slices that were declared up front: judged by themselves, asked for until they are decided, never at others' cost."""

from __future__ import annotations

from typing import Any

import pytest

from quantgate.capability_config import SliceConfig
from quantgate.decide import judge_capability
from quantgate.errors import UnknownName
from quantgate.evaluate.compare import Task, compare, compare_all
from quantgate.evaluate.evidence import Comparison, Gate, SliceGate
from quantgate.pipeline.slices import with_slices
from quantgate.records import canonical

GATE = Gate(capability="sums", suite="sums", margin=0.05, cases=600)


def third(cases: Any) -> Any:
    """Every third case in the slice ``third=yes``, besides the halves ``last=0`` and ``last=1``."""
    return [
        case.model_copy(update={"slices": (*case.slices, "third=yes")}) if at % 3 == 0 else case
        for at, case in enumerate(cases)
    ]


def declared(cases: Any, *slices: Any, gate: Gate = GATE) -> Gate:
    wanted = [SliceConfig(name=one) if isinstance(one, str) else SliceConfig(**one) for one in slices]
    return with_slices(gate, tuple(wanted), cases)


def test_a_slice_is_asked_for_until_it_is_decided(sums: Any, side: Any) -> None:
    """The whole passes after 100 cases; a third of 600 holds 200, of which 90 are needed, looked at after 100."""
    cases = third(sums.cases(600))
    base, other = sums.engine(), sums.engine(weights="w4")
    found = compare(declared(cases, "third=yes"), cases, side(base), side(other))
    (slice_,) = found.judged
    assert (found.finding.verdict, found.asked) == ("pass", 100)
    assert (slice_.finding.verdict, slice_.asked, slice_.available) == ("pass", 100, 200)
    assert slice_.gate.capability == "sums [third=yes]"
    assert len(base.asked) == len(other.asked) == found.asked + found.asked_for_slices
    assert 50 < found.asked_for_slices < 100  # about a third of the first hundred were in the slice already
    verdict = judge_capability(found.gate, found)
    assert (verdict.verdict, [(one.name, one.verdict) for one in verdict.slices]) == ("pass", [("third=yes", "pass")])
    assert verdict.sentence.endswith("; of its slices third=yes kept")


def test_a_slice_that_breaks_fails_a_capability_that_passes_as_a_whole(sums: Any, side: Any) -> None:
    cases = [
        case.model_copy(update={"slices": ("tenth=yes",)}) if at % 10 == 0 else case
        for at, case in enumerate(sums.cases(3000))
    ]
    gate = declared(cases, "tenth=yes", gate=GATE.model_copy(update={"margin": 0.15}))
    broken = sums.engine(lambda prompt: sums.number(prompt) % 20 == 0, weights="w3")  # half of the slice, 5 % of all
    found = compare(gate, cases, side(sums.engine()), side(broken))
    verdict = judge_capability(gate, found)
    assert found.finding.verdict == "pass"
    assert (verdict.verdict, verdict.slices[0].verdict) == ("fail", "fail")
    assert verdict.slices[0].sentence.startswith("sums [tenth=yes]: 100 % -> ")
    assert verdict.sentence.endswith("; of its slices tenth=yes damaged")
    assert any(flip.slices == ("tenth=yes",) for flip in found.flips)


def test_other_slices_go_on_when_one_is_damaged(sums: Any, side: Any) -> None:
    cases = sums.cases(1200)
    gate = declared(cases, "last=0", "last=1", gate=GATE.model_copy(update={"margin": 0.2}))
    broken = sums.engine(lambda prompt: sums.number(prompt) % 6 == 0, weights="w3")  # a third of the even ones
    found = compare(gate, cases, side(sums.engine()), side(broken))
    kinds = {one.name: one.verdict for one in judge_capability(gate, found).slices}
    assert kinds == {"last=0": "fail", "last=1": "pass"}


def test_nothing_more_is_asked_for_slices_once_the_whole_has_failed(sums: Any, side: Any) -> None:
    cases = sums.cases(600)
    gate = declared(cases, "last=0", "last=1")
    found = compare(gate, cases, side(sums.engine()), side(sums.engine(lambda _: True, weights="w2")))
    assert (found.finding.verdict, found.asked) == ("fail", 10)
    assert found.asked_for_slices <= 20
    assert judge_capability(gate, found).verdict == "fail"


def test_a_slice_with_too_few_cases_is_reported_only_and_costs_nothing(sums: Any, side: Any) -> None:
    cases = third(sums.cases(240))
    gate = declared(cases, "third=yes")
    assert (gate.slices[0].cases, gate.slices[0].needs, gate.slices[0].judged) == (80, 90, False)
    found = compare(gate, cases, side(sums.engine()), side(sums.engine(weights="w4")))
    assert (found.asked, found.asked_for_slices, found.judged) == (100, 0, ())
    verdict = judge_capability(gate, found)
    assert (verdict.verdict, verdict.slices[0].verdict) == ("pass", "report only")
    assert verdict.slices[0].sentence == (
        "sums [third=yes]: report only, 80 cases where a margin of 5 % needs at least 90"
    )


def test_a_slice_may_have_a_margin_of_its_own(sums: Any, side: Any) -> None:
    cases = third(sums.cases(240))
    gate = declared(cases, {"name": "third=yes", "margin": 0.1})
    assert gate.slices[0].judged and gate.slices[0].needs == 44
    found = compare(gate, cases, side(sums.engine()), side(sums.engine(weights="w4")))
    assert (found.judged[0].gate.margin, found.judged[0].finding.verdict) == (0.1, "pass")


@pytest.mark.parametrize("share", [0.0, 0.04, 0.2])
def test_a_slice_is_judged_as_if_it_were_a_capability_of_its_own(sums: Any, side: Any, share: float) -> None:
    cases = third(sums.cases(900))
    gate = declared(cases, "third=yes", "last=1")
    sides = side(sums.engine()), side(sums.engine(sums.share(share), weights="w3"))
    found = compare(gate, cases, *sides)
    for one in found.judged:
        name = one.gate.capability.partition("[")[2][:-1]
        alone = compare(one.gate, [case for case in cases if name in case.slices], *sides)
        if found.finding.verdict != "fail" or one.finding.verdict == "fail":
            assert canonical(alone.model_copy(update={"flips": ()}).body()) == canonical(one.body())
    shared = GATE.model_copy(
        update={"sharing": 3}
    )  # a loss of one of three gates is enough to fail, so they share alpha
    bare = compare(shared, cases, *sides)
    update = {"gate": shared, "judged": (), "asked_for_slices": 0, "flips": bare.flips}
    assert found.model_copy(update=update) == bare  # the whole is judged on the cases it would have had alone


def test_capabilities_with_and_without_slices_do_not_disturb_each_other(sums: Any, side: Any) -> None:
    cases = third(sums.cases(600))
    plain = GATE.model_copy(update={"capability": "plain"})
    tasks = [Task(declared(cases, "third=yes"), cases), Task(plain, sums.cases(900)[600:])]
    seen: list[tuple[int, list[str]]] = []
    sides = side(sums.engine()), side(sums.engine(weights="w4"))
    together = compare_all(tasks, *sides, progress=lambda done, _all, undecided: seen.append((done, undecided)))
    assert together == [compare(task.gate, task.cases, *sides) for task in tasks]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (900, [])


def test_a_fixed_test_asks_all_and_judges_the_slice_once(sums: Any, side: Any) -> None:
    cases = third(sums.cases(300))
    gate = declared(cases, "third=yes", gate=GATE.model_copy(update={"test": "exact", "relative": False}))
    found = compare(gate, cases, side(sums.engine()), side(sums.engine(weights="w4")))
    assert (found.asked, found.asked_for_slices, found.judged[0].asked) == (300, 0, 100)
    assert found.judged[0].finding.verdict == "pass"


def test_a_slice_with_unscored_cases_does_not_pass(sums: Any, side: Any) -> None:
    cases = third(sums.cases(900))
    lost = sums.engine(fails=lambda prompt: sums.number(prompt) % 30 == 0)  # a tenth of the slice, 3.3 % of all
    found = compare(declared(cases, "third=yes"), cases, side(lost), side(sums.engine(weights="w4")))
    verdict = judge_capability(found.gate, found)
    assert (verdict.verdict, verdict.slices[0].verdict) == ("inconclusive", "inconclusive")
    assert "too many cases could not be scored" in verdict.slices[0].sentence


def test_missing_slices_prove_nothing(sums: Any, side: Any) -> None:
    cases = third(sums.cases(600))
    gate = declared(cases, "third=yes")
    found = compare(gate, cases, side(sums.engine()), side(sums.engine(weights="w4")))
    assert judge_capability(gate, found).verdict == "pass"
    without = found.model_copy(update={"judged": ()})
    assert judge_capability(gate, without).verdict == "inconclusive"
    wider = found.judged[0].model_copy(update={"gate": found.judged[0].gate.model_copy(update={"margin": 0.5})})
    assert judge_capability(gate, found.model_copy(update={"judged": (wider,)})).verdict == "inconclusive"
    undeclared = gate.model_copy(update={"slices": ()})
    assert judge_capability(undeclared, found).verdict == "inconclusive"  # evidence for other rules


def test_all_means_every_slice_that_does_not_hold_all_cases(sums: Any) -> None:
    cases = [
        case.model_copy(update={"slices": (*case.slices, "difficulty=default")}) for case in third(sums.cases(600))
    ]
    gate = with_slices(GATE.model_copy(update={"margin": 0.05}), "all", cases)
    assert [(one.name, one.cases) for one in gate.slices] == [("last=0", 300), ("last=1", 300), ("third=yes", 200)]


def test_an_unknown_slice_is_told_with_the_nearest_known(sums: Any) -> None:
    told = r"capabilities: sums: slices: unknown slice 'last=2'; did you mean 'last=[01]'\? Known: last=0, last=1"
    with pytest.raises(UnknownName, match=told):
        declared(sums.cases(30), "last=2")


def test_many_variants_share_alpha_in_slices_as_well(sums: Any) -> None:
    shared = GATE.model_copy(update={"pass_alpha": 0.05 / 6})
    assert declared(sums.cases(600), "last=0", gate=shared).slices[0].needs == 133
    assert declared(sums.cases(600), "last=0").slices[0].needs == 90


def test_records_without_slices_keep_their_digest(sums: Any, side: Any) -> None:
    found = compare(GATE, sums.cases(60), side(sums.engine()), side(sums.engine(weights="w4")))
    assert not {"judged", "asked_for_slices"} & set(found.body())
    assert "slices" not in GATE.body()
    again = Comparison.model_validate(found.body())
    assert again == found
    assert SliceGate(name="a", margin=0.1, cases=3, needs=4).judged is False
