"""json_schema: the answer keeps the schema, or the first violated path is named; a schema we cannot use is unscored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers.json_schema import score

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name"],
    "additionalProperties": False,
}


def judged(answer: str, **more: Any) -> Score:
    made = score(answer, {"schema": SCHEMA, **more})
    assert isinstance(made, Score), made
    return made


@pytest.mark.parametrize("answer", ['{"name": "a"}', '```json\n{"name": "a", "tags": [1, 2]}\n```', ' {"name":"a"}\n'])
def test_json_that_keeps_the_schema_scores_one(answer: str) -> None:
    assert judged(answer).value == 1.0


@pytest.mark.parametrize(
    ("answer", "because"),
    [
        ("", "the answer is empty"),
        ("[]", '[] is not of type "object"'),
        ('{"name": "a", "tags": [1, "b"]}', '\'tags.1\': "b" is not of type "integer"'),
        ("{}", '"name" is a required property'),
        ('{"name": "a", "name": "b"}', "the key 'name' is given twice"),
    ],
)
def test_the_first_violated_path_is_named(answer: str, because: str) -> None:
    made = judged(answer)
    assert (made.value, made.because) == (0.0, because)


def test_prose_is_not_json() -> None:
    assert judged("The name is a.").because.startswith("not JSON")


def test_equals_asks_for_the_value_itself() -> None:
    assert judged('{"tags": [1.0], "name": "a"}', equals={"name": "a", "tags": [1]}).value == 1.0
    assert judged('{"name": "b"}', equals={"name": "a"}).because == "'name': 'b' instead of 'a'"


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {},
        {"schema": {"type": "no such type"}},
        {"schema": 5},
        {"schema": {}, "more": 1},
        {"schema": {"$ref": "http://localhost:9/schema.json"}},
        {"schema": {"$ref": "#/$defs/missing"}},
    ],
)
def test_a_schema_that_cannot_be_used_is_unscored(reference: Any) -> None:
    made = score("{}", reference)
    assert isinstance(made, Unscored)
    assert "\n" not in made.reason


@given(st.text(max_size=60))
def test_no_text_makes_the_scorer_fail(answer: str) -> None:
    assert judged(answer).value == 0.0
