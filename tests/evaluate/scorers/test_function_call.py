"""function_call: acceptable values, optional arguments, abstention, and calls in every usual form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers.function_call import alike, score

AREA = {
    "name": "geometry_area",
    "arguments": {"base": [10], "shape": ["right-angled", "right angled"], "unit": ["cm", ""]},
}
ARGUMENTS = {"base": 10, "shape": "Right Angled"}
ABSTAIN = {"abstain": True, "functions": ["get_weather"]}


def value(answer: str, reference: Any) -> float:
    found = score(answer, reference)
    assert isinstance(found, Score)
    assert (found.value == 1.0) == (not found.because)
    return found.value


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps({"name": "geometry_area", "arguments": ARGUMENTS}),
        json.dumps({"name": "geometry.area", "parameters": ARGUMENTS}),
        f"<tool_call>\n{json.dumps({'name': 'geometry.area', 'arguments': ARGUMENTS})}\n</tool_call>",
        json.dumps({"tool_calls": [{"function": {"name": "geometry_area", "arguments": json.dumps(ARGUMENTS)}}]}),
        "[geometry.area(base=10, shape='Right Angled', unit='cm')]",
        "```python\ngeometry_area(base=10.0, shape='right/angled')\n```",
    ],
)
def test_a_right_call_is_right_in_every_form(answer: str) -> None:
    assert value(answer, AREA) == 1.0


@pytest.mark.parametrize(
    ("call", "because"),
    [
        ("area(base=10, shape='right angled')", "calls 'area' instead of 'geometry_area'"),
        ("geometry_area(base='10', shape='right angled')", "argument 'base': '10' is none of 10"),
        ("geometry_area(base=True, shape='right angled')", "argument 'base': True is none of 10"),
        ("geometry_area(shape='right angled')", "argument 'base' is missing"),
        ("geometry_area(base=10, shape='right angled', unit='m')", "argument 'unit': 'm' is none of 'cm'"),
        ("geometry_area(base=10, shape='right angled', colour='red')", "argument 'colour' is one too many"),
        ("geometry_area(10, 'right angled')", "not JSON"),
        ("geometry_area(base=open('f'))", "not JSON"),
        ("", "the answer is empty"),
        ("abc", "not JSON"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(call: str, because: str) -> None:
    found = score(call, AREA)
    assert isinstance(found, Score)
    assert found.value == 0.0
    assert found.because.startswith(because)


@pytest.mark.parametrize("answer", ["None of the functions fits.", "I can't do that here.", "Which city do you mean?"])
def test_words_without_a_call_abstain(answer: str) -> None:
    assert value(answer, ABSTAIN) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "abc",
        "...",
        '{"name": "get_weather", "arguments": {}}',
        '{"name": "sing", "arguments": {}}',
        "I will call get_weather(city='Rome').",
        'Sure. <tool_call>{"name": "get_weather"}</tool_call>',
        'Here: {"name": "other", "arguments": {"a": 1}} and more.',
    ],
)
def test_a_call_or_no_word_is_no_abstention(answer: str) -> None:
    assert value(answer, ABSTAIN) == 0.0


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {},
        {"name": "f"},
        {"name": "f", "arguments": {"a": 1}},
        {"name": "f", "arguments": {"a": []}},
        {"abstain": 1},
    ],
)
def test_a_bad_reference_is_unscored(reference: object) -> None:
    assert isinstance(score("f(a=1)", reference), Unscored)


JSON = st.recursive(
    st.booleans() | st.integers(-99, 99) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_every_value_is_like_itself(given: Any) -> None:
    assert alike(given, given)
    assert (
        value(json.dumps({"name": "f", "arguments": {"a": given}}), {"name": "f", "arguments": {"a": [given]}}) == 1.0
    )


@given(st.text(max_size=200))
def test_no_text_breaks_the_scorer(answer: str) -> None:
    assert isinstance(score(answer, AREA), Score)
    assert isinstance(score(answer, ABSTAIN), Score)
