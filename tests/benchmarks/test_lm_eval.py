"""Beside lm-eval: its scores are judged as ours are, and a race is only won at the same verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.evaluate.conftest import Sums

from benchmarks.harness import Race, _exhaustive, _overhead, _verdict_table
from quantgate.evaluate.evidence import Gate
from quantgate.evaluate.suites import Case, Message

GATE = Gate(capability="sums", suite="sums", margin=0.05, relative=False, cases=400, alpha=0.05, pass_alpha=0.05)


def text(case: Case) -> str:
    first: Message = case.messages[0]
    return first.content


@pytest.mark.parametrize(("lost", "verdict"), [(0, "pass"), (2, "fail"), (25, "inconclusive")])
def test_scores_of_the_harness_get_the_verdict_of_our_test(lost: int, verdict: str) -> None:
    """None lost, every second one lost, and one in 25 lost."""
    cases = Sums.cases(300 if verdict != "inconclusive" else 60)
    first = {text(case): 1.0 for case in cases}
    second = {text(case): float(not lost or at % lost > 0) for at, case in enumerate(cases)}
    assert _exhaustive(GATE, cases, first, second) == verdict


@pytest.mark.parametrize(
    ("ours_s", "verdict", "told"), [(10.0, "pass", "met"), (10.0, "fail", "missed"), (30.0, "pass", "missed")]
)
def test_a_race_is_won_in_a_fifth_of_the_time_at_the_same_verdicts(ours_s: float, verdict: str, told: str) -> None:
    races = [Race("baseline", 30.0, 0.0, ("", ""), 0), Race("W8A16", 30.0, ours_s, ("pass", verdict), 90)]
    table = _verdict_table(races, 400, "two cores")
    assert table.rows[-1][-1] == told and len(table.rows) == 3


def test_what_a_case_costs_is_measured_beside_the_answers(tmp_path: Path) -> None:
    row = _overhead(tmp_path, 60)
    assert 0 < float(row[2].split()[0]) < 1000 and row[-1] in ("met", "missed")
