"""The promises about chance, by simulation through the comparison itself: scripted engines, journals, looks and stops.

Each run draws anew which cases the variant loses and gains; everything is seeded. Enumeration over all outcomes is in
``tests/stats/test_error_rates.py``; here the whole path is on trial, with the looks that it really takes.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from quantgate.cli.screen import exit_code
from quantgate.decide import Candidate, decide
from quantgate.engines.scripted import ScriptedEngine, last
from quantgate.errors import DataError, Overlap, QuantgateError
from quantgate.evaluate import overlap
from quantgate.evaluate.answers import Answers
from quantgate.evaluate.compare import Side, compare
from quantgate.evaluate.evidence import Comparison, Evidence, Gate
from quantgate.evaluate.suites import Case, Message
from quantgate.records import digest_of

GATE = Gate(capability="math", suite="math", margin=0.03, relative=False)
MEMORY = Path("/dev/shm")  # where journals are flushed at no cost, if there is such a folder


def cases_of(count: int) -> list[Case]:
    return [
        Case(
            suite="math",
            id=str(at),
            messages=(Message(role="user", content=str(at)),),
            scorer="exact",
            reference="yes",
        )
        for at in range(count)
    ]


class Lab:
    """Runs one comparison after another in a folder that is thrown away."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cases = folder, dict[int, list[Case]]()

    def run(self, rng: random.Random, gate: Gate, count: int, lost: float, gained: float) -> Comparison:
        """``count`` cases, of which each is lost or gained by chance alone; a case cannot be both."""
        base, other = dict[str, str](), dict[str, str]()
        for at in range(count):
            draw = rng.random()
            kinds = ("yes", "no") if draw < lost else ("no", "yes") if draw < lost + gained else ("yes", "yes")
            base[str(at)], other[str(at)] = kinds
        cases = self.cases.setdefault(count, cases_of(count))
        return self.compare(gate, cases, base.__getitem__, other.__getitem__)

    def compare(
        self, gate: Gate, cases: Sequence[Case], base: Callable[[str], str], other: Callable[[str], str]
    ) -> Comparison:
        sides = []
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            for name, answer in (("base", base), ("other", other)):
                engine = ScriptedEngine(lambda prompt, answer=answer: answer(last(prompt)), weights=name)  # type: ignore[misc]
                sides.append(Side(engine, Answers(Path(folder), engine.identity)))
            return compare(gate, cases, *sides)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(MEMORY if os.access(MEMORY, os.W_OK) else tmp_path)


@pytest.mark.parametrize(("lost", "gained"), [(0.10, 0.0), (0.15, 0.05)])
def test_a_variant_on_the_line_passes_at_most_alpha_of_the_time_however_often_it_is_looked_at(
    lab: Lab, lost: float, gained: float
) -> None:
    rng, runs, alpha = random.Random(f"line {lost}"), 150, 0.1
    gate = GATE.model_copy(update={"margin": 0.1, "alpha": alpha, "pass_alpha": alpha})
    found = [lab.run(rng, gate, 150, lost, gained) for _ in range(runs)]
    verdicts = [one.finding.verdict for one in found]
    assert verdicts.count("pass") <= binom.ppf(0.999, runs, alpha)
    assert verdicts.count("fail") <= binom.ppf(0.999, runs, alpha)
    assert verdicts.count("pass") > 0 or verdicts.count("fail") > 0  # the bar is within reach, so the test could fail
    assert len({one.asked for one in found}) > 1  # some looks did stop


def test_a_lossless_variant_passes_at_a_median_of_at_most_250_cases(lab: Lab) -> None:
    """2 % of the answers flip, as many up as down; 3 points are allowed."""
    rng = random.Random("lossless")
    found = [lab.run(rng, GATE, 800, 0.01, 0.01) for _ in range(100)]
    assert [one.finding.verdict for one in found].count("pass") >= 97
    assert statistics.median(one.asked for one in found) <= 250


def test_a_collapse_of_30_points_is_stopped_at_a_median_of_at_most_40_cases(lab: Lab) -> None:
    rng = random.Random("collapse")
    found = [lab.run(rng, GATE, 300, 0.30, 0.0) for _ in range(100)]
    assert {one.finding.verdict for one in found} == {"fail"}
    assert statistics.median(one.asked for one in found) <= 40
    assert max(one.asked for one in found) <= 150


def test_a_collapse_with_gains_beside_it_is_stopped_as_soon(lab: Lab) -> None:
    rng = random.Random("mixed collapse")
    found = [lab.run(rng, GATE, 300, 0.33, 0.03) for _ in range(100)]
    assert {one.finding.verdict for one in found} == {"fail"}
    assert statistics.median(one.asked for one in found) <= 40


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.2])
def test_identical_answers_never_fail(lab: Lab, margin: float) -> None:
    """However many of them are right."""
    rng = random.Random(f"alike {margin}")
    for _ in range(12):
        share, gate = rng.random(), GATE.model_copy(update={"margin": margin, "relative": rng.random() < 0.5})
        right = {str(at): "yes" if rng.random() < share else "no" for at in range(rng.randrange(1, 400))}
        found = lab.compare(gate, cases_of(len(right)), right.__getitem__, right.__getitem__)
        assert found.finding.verdict != "fail"
        assert (found.finding.losses, found.finding.gains) == (0, 0)


def test_a_slice_on_the_line_passes_its_capability_at_most_alpha_of_the_time(lab: Lab) -> None:
    """All other cases are alike, so the whole is within its margin; the slice alone is on it."""
    from quantgate.capability_config import SliceConfig
    from quantgate.decide import judge_capability
    from quantgate.pipeline.slices import with_slices

    rng, gate, runs, passed = random.Random("slice"), GATE.model_copy(update={"margin": 0.1}), 60, 0
    cases = [
        case.model_copy(update={"slices": ("rare=yes",)}) if at % 3 == 0 else case
        for at, case in enumerate(cases_of(300))
    ]
    gate = with_slices(gate, (SliceConfig(name="rare=yes"),), cases)
    wholes = 0
    for _ in range(runs):
        lost = {str(at) for at in range(0, 300, 3) if rng.random() < 0.1}
        found = lab.compare(gate, cases, lambda _: "yes", lambda at, lost=lost: "no" if at in lost else "yes")  # type: ignore[misc]
        wholes += found.finding.verdict == "pass"
        passed += judge_capability(gate, found).verdict == "pass"
    assert passed <= binom.ppf(0.999, runs, 0.05)
    assert wholes > 0.8 * runs


def code_of(gates: Sequence[Gate], comparisons: Sequence[Comparison], **evidence: Any) -> int:
    candidate = Candidate(name="w4", artifact=digest_of("w4"), stored_bytes=1, bits_per_weight=4.0)
    fields = {
        "variant": "w4", "artifact": digest_of("w4"), "baseline": "b", "engine": "e", "baseline_engine": "e",
        "kernels": (), "comparisons": tuple(comparisons), "drift": None,
    } | evidence  # fmt: skip
    return exit_code(decide(gates, [candidate], [Evidence(**fields)], alpha=0.05, order="e-bonferroni"))


def test_whole_evidence_exits_0_and_less_never_does(lab: Lab) -> None:
    """The control first: what is whole passes. Then one thing at a time is taken away or exchanged."""
    gates = [GATE, GATE.model_copy(update={"capability": "chat", "suite": "chat"})]
    whole = [lab.compare(gate, cases_of(300), lambda _: "yes", lambda _: "yes") for gate in gates]
    assert code_of(gates, whole) == 0
    rng = random.Random("not whole")
    for _ in range(40):
        at = rng.randrange(2)
        kept, gone = whole[at], whole[1 - at]
        changes: list[dict[str, Any]] = [
            {"margin": 0.5},
            {"seed": 9},
            {"alpha": 0.4},
            {"test": "exact"},
            {"suite": "x"},
        ]
        other = gates[at].model_copy(update=rng.choice(changes))
        holes = {
            "a capability is missing": [kept],
            "no capability is there": [],
            "judged by other rules": [gone, kept.model_copy(update={"gate": other})],
            "no pair was judged": [gone, kept.model_copy(update={"n": 0})],
            "too many are unscored": [gone, kept.model_copy(update={"unscored": ("lost",) * rng.randrange(7, 90)})],
        }
        for what, comparisons in holes.items():
            assert code_of(gates, comparisons) == 3, what
        assert code_of(gates, whole, artifact=digest_of(rng.random())) == 3  # evidence for other bytes
        assert code_of(gates, whole, screened="not judged: screened") == 3


def test_variants_that_answer_nothing_and_baselines_that_answer_nothing_never_exit_0(lab: Lab) -> None:
    def silent(_: str) -> str:
        return ""

    empty = lab.compare(GATE, cases_of(300), lambda _: "yes", silent)
    assert code_of([GATE], [empty]) == 1
    lost = lab.compare(GATE.model_copy(update={"relative": True}), cases_of(300), silent, silent)
    assert code_of([lost.gate], [lost]) == 3  # there was nothing to lose
    with pytest.raises(DataError, match="the suite is empty"):
        lab.compare(GATE, [], silent, silent)


def test_leaks_stop_a_run_before_any_case_is_asked() -> None:
    rng, cases = random.Random("leak"), [
        Case(
            suite="math", id=str(at), messages=(Message(role="user", content=f"What is {at} times {at + 3}, please?"),),
            scorer="exact", reference=str(at * (at + 3)),
        )
        for at in range(50)
    ]  # fmt: skip
    for _ in range(20):
        leaked = rng.choice(cases)
        traffic = [(("user", f"something else {at}"), ("assistant", "yes")) for at in range(30)]
        traffic.insert(rng.randrange(30), (("user", leaked.messages[0].content), ("assistant", "known")))
        with pytest.raises(Overlap) as told:
            overlap.refuse(overlap.find([overlap.Sample(at, one) for at, one in enumerate(traffic, 1)], cases))
        assert told.value.exit_code != 0


def test_every_error_of_a_user_has_an_exit_code_that_is_not_0() -> None:
    waiting: list[type[QuantgateError]] = [QuantgateError]
    while waiting:
        kind = waiting.pop()
        assert kind.exit_code != 0
        waiting += kind.__subclasses__()
