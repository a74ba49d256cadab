"""contains: known answers by hand, and every way a reference can be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from quantgate.evaluate.scorers import Score, Unscored, get


def value(answer: str, reference: Any) -> float:
    made = get("contains")(answer, reference)
    assert isinstance(made, Score), made
    return made.value


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The code is 4821.", "4821", 1),
        ("The code is 48210.", "4821", 0),
        ("The code is 48210.", {"all": ["4821"], "word": False}, 1),
        ("Red Fox", "red fox", 1),
        ("Red Fox", {"all": ["red fox"], "case": True}, 0),
        ("red\n  fox", "red fox", 1),
        ("redfox", "red fox", 0),
        ("one and two", {"all": ["one", "two"]}, 1),
        ("one", {"all": ["one", "two"]}, 0),
        ("two", {"any": ["one", "two"]}, 1),
        ("three", {"any": ["one", "two"]}, 0),
        ("one, not two", {"all": ["one"], "none": ["two"]}, 0),
        ("one, not twofold", {"all": ["one"], "none": ["two"]}, 1),
        ("it costs $5 (about)", {"all": ["$5 (about)"]}, 1),
        ("a.b", {"all": ["axb"]}, 0),
        ("anything", {"none": ["nothing"]}, 1),
        ("", {"none": ["nothing"]}, 0),
        ("", "x", 0),
    ],
)
def test_answers_score_as_worked_out_by_hand(answer: str, reference: Any, expected: float) -> None:
    assert value(answer, reference) == expected


def test_because_names_the_missing_and_the_forbidden_string() -> None:
    made = get("contains")("red", {"all": ["red", "blue"], "any": ["a1", "b2"], "none": ["RED"]})
    assert isinstance(made, Score)
    assert made.because == "'blue' is missing; none of 'a1', 'b2' is there; 'RED' is forbidden"


@pytest.mark.parametrize(
    ("reference", "word"),
    [
        (7, "int"),
        (None, "NoneType"),
        (["red"], "list"),
        ({}, "asks for nothing"),
        ("", "'all'"),
        ({"all": "red"}, "'all'"),
        ({"any": [1]}, "'any'"),
        ({"none": [" "]}, "'none'"),
        ({"all": ["red"], "case": "no"}, "'case'"),
        ({"all": ["red"], "words": True}, "'words'"),
    ],
)
def test_a_bad_reference_is_unscored_and_says_what_is_wrong(reference: Any, word: str) -> None:
    made = get("contains")("red", reference)
    assert isinstance(made, Unscored)
    assert word in made.reason
