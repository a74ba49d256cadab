"""code_gen: gold code and plain meaning agree, problems are named without their wording, guessing fails."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from quantgate.evaluate import suites
from quantgate.evaluate.scorers import Score
from quantgate.evaluate.scorers.python_expression import score
from quantgate.evaluate.suites import Difficulty, Draft, code_gen

LEVELS: tuple[Difficulty, ...] = ("default", "hard")


def drawn(level: Difficulty, count: int = 600) -> list[Draft]:
    rng = random.Random(7)
    return [code_gen.draw(rng, level) for _ in range(count)]


def value_of(answer: str, draft: Draft) -> float:
    made = score(answer, draft.reference)
    assert isinstance(made, Score), made
    return made.value


@pytest.mark.parametrize("level", LEVELS)
def test_the_gold_code_gives_the_outputs_that_the_steps_mean(level: Difficulty) -> None:
    assert [draft.answer for draft in drawn(level) if value_of(draft.answer, draft) != 1.0] == []


@pytest.mark.parametrize("level", LEVELS)
def test_one_identity_has_one_answer_whatever_the_wording(level: Difficulty) -> None:
    answers: dict[str, set[str]] = {}
    wordings: dict[str, set[str]] = {}
    for draft in drawn(level, 4000):
        answers.setdefault(draft.identity, set()).add(draft.answer)
        wordings.setdefault(draft.identity, set()).add(draft.messages[0][1])
    assert all(len(one) == 1 for one in answers.values())
    if level == "default":  # hard problems hardly ever come twice
        assert max(len(one) for one in wordings.values()) > 2


@pytest.mark.parametrize("level", LEVELS)
def test_degenerate_answers_score_badly(level: Difficulty) -> None:
    found = drawn(level)
    for answer in ("", "abc", "xs", "s", "0", "[]", "''", "sorted(xs)", "sum(xs)", "len(s)", "s.upper()"):
        assert sum(value_of(answer, draft) for draft in found) < 0.10 * len(found), answer
    assert sum(value_of(draft.messages[0][1], draft) for draft in found) == 0.0


@pytest.mark.parametrize("level", LEVELS)
def test_every_declared_slice_value_occurs(level: Difficulty) -> None:
    found = drawn(level)
    kinds = Counter(draft.slices["kind"] for draft in found)
    assert set(kinds) == {"list", "string"} and min(kinds.values()) > 0.2 * len(found)
    assert {draft.slices["ops"] for draft in found} == ({"2", "3"} if level == "default" else {"4", "5"})


@pytest.mark.parametrize("level", LEVELS)
def test_the_gate_split_has_enough_cases(level: Difficulty) -> None:
    assert len({case.id for case in suites.cases("code_gen", "gate", 400, difficulty=level)}) == 400
