"""What every tailored suite promises: seeds, splits, right answers that are right, and nothing for the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.evaluate.tailored.conftest import OPTIONS

from quantgate.errors import UsageError
from quantgate.evaluate import scorers, tailored
from quantgate.evaluate.answers import prompt_of
from quantgate.evaluate.files import check_cases
from quantgate.evaluate.scorers import Score

NAMES = tailored.names()


def value(case: Any, answer: str) -> float:
    found = scorers.get(case.scorer)(answer, case.reference)
    assert isinstance(found, Score), found
    return found.value


def whole(case: Any) -> str:
    return "\n".join(message.content for message in case.messages)


@pytest.mark.parametrize("name", NAMES)
def test_the_right_answer_is_right(made: Any, name: str) -> None:
    for case in made(name):
        assert value(case, case.answer) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "answer",
    [
        lambda case: "",
        lambda case: "abc",
        lambda case: "I'm sorry, but I can't help with that.",
        lambda case: "Sure, here is how to do that.",
        lambda case: case.messages[-1].content,
        whole,
    ],
    ids=["empty", "abc", "refuses", "complies", "echoes the last turn", "echoes everything"],
)
def test_degenerate_answers_score_nothing(made: Any, name: str, answer: Any) -> None:
    assert sum(value(case, answer(case)) for case in made(name)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_another_cases_answer_is_wrong(made: Any, name: str) -> None:
    cases = made(name)
    shifted = [*cases[1:], cases[0]]
    wrong = sum(value(case, other.answer) for case, other in zip(cases, shifted, strict=True))
    assert wrong <= 0.05 * len(cases)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_makes_the_same_cases_and_another_seed_others(made: Any, place: Any, name: str) -> None:
    cases = made(name)
    order = tailored.order_of(name, OPTIONS.get(name, {}))
    again = tailored.cases(name, place, order, split="gate", count=len(cases), seed=0)
    assert [case.digest for case in again] == [case.digest for case in cases]
    other = made(name, seed=1)
    assert len({case.digest for case in cases} & {case.digest for case in other}) < len(cases) / 2


@pytest.mark.parametrize("name", NAMES)
def test_the_gate_shares_no_problem_with_tuning(made: Any, name: str) -> None:
    gate, tune = made(name, "gate"), made(name, "tune", 20)
    assert not {case.digest for case in gate} & {case.digest for case in tune}
    if name != "json_depth":  # a short code may be drawn twice; names, identifiers and words may not
        names = {case.answer for case in gate} & {case.answer for case in tune}
        assert len(names) <= 2 or name == "tool_conversation"


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_asked_equally_often(made: Any, name: str) -> None:
    counts: dict[tuple[str, ...], int] = {}
    crossed = {"needle": ("length", "depth"), "key_value": ("length", "depth"), "tool_conversation": ("round",)}
    keys = crossed.get(name, ("depth",) if name == "json_depth" else ("kind",))
    for case in made(name):
        cell = tuple(one for one in case.slices if one.partition("=")[0] in keys)
        counts[cell] = counts.get(cell, 0) + 1
    assert len(counts) >= 3 and max(counts.values()) - min(counts.values()) <= (1 if name != "rare_traffic" else 6)


@pytest.mark.parametrize("name", NAMES)
def test_cases_are_distinct_fit_the_context_and_hold_their_answer(made: Any, place: Any, name: str) -> None:
    cases = made(name)
    check_cases(cases, name)
    for case in cases:
        turns = tuple((message.role, message.content) for message in case.messages)
        assert place.measure(turns, case.tools) + case.max_tokens <= place.context
        assert len(place.encode(case.answer)) <= case.max_tokens
        assert prompt_of(case).tools == case.tools


@pytest.mark.parametrize("name", NAMES)
def test_misspelt_options_are_answered_with_the_nearest(name: str) -> None:
    known = next(iter(tailored.get(name).options.model_fields))
    with pytest.raises(UsageError, match=f"{name}: options: unknown key '{known}x'; did you mean '{known}'"):
        tailored.order_of(name, {f"{known}x": 1})


def test_json_that_is_valid_with_other_values_is_wrong(made: Any) -> None:
    for case in made("json_depth"):
        value_of = json.loads(case.answer)
        (top,) = value_of
        leaf = next(key for key, one in value_of[top].items() if isinstance(one, int) and not isinstance(one, bool))
        value_of[top][leaf] += 1
        found = scorers.get(case.scorer)(json.dumps(value_of), case.reference)
        assert isinstance(found, Score) and found.value == 0 and "instead of" in found.because
