"""tool_call: a call counts by value, an abstention by its words, and the sentence names what differs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.evaluate.scorers import Score, Unscored
from quantgate.evaluate.scorers.tool_call import score

CALL = {"name": "book", "arguments": {"city": "Rome", "days": 5, "to": {"street": "Oak Street"}, "open": True}}
BARE = json.dumps(CALL)


def judged(answer: str, reference: Any = CALL) -> Score:
    made = score(answer, reference)
    assert isinstance(made, Score), made
    return made


def calling(**changes: Any) -> str:
    return json.dumps({"name": "book", "arguments": {**CALL["arguments"], **changes}})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "answer",
    [
        BARE,
        f"```json\n{BARE}\n```",
        f"<tool_call>\n{BARE}\n</tool_call>",
        f"[{BARE}]",
        json.dumps({"tool_calls": [{"id": "1", "type": "function", "function": {**CALL, "arguments": "{}"}}]}).replace(
            '"{}"', json.dumps(json.dumps(CALL["arguments"]))
        ),
        json.dumps({"type": "function", "function": CALL}),
        calling(days=5.0, city=" Rome "),
        json.dumps({"arguments": dict(reversed(CALL["arguments"].items())), "name": "book"}),  # type: ignore[attr-defined]
    ],
)
def test_the_right_call_counts_in_every_shape(answer: str) -> None:
    assert judged(answer).value == 1.0


@pytest.mark.parametrize(
    ("answer", "because"),
    [
        (calling(city="Oslo"), "argument 'city': 'Oslo' instead of 'Rome'"),
        (calling(city="rome"), "argument 'city': 'rome' instead of 'Rome'"),
        (calling(days="5"), "argument 'days': '5' instead of 5"),
        (calling(open=1), "argument 'open': 1 instead of True"),
        (calling(to={"street": "Elm"}), "argument 'to.street': 'Elm' instead of 'Oak Street'"),
        (calling(to={}), "argument 'to.street' is missing"),
        (calling(unit="kg"), "argument 'unit' is one too many"),
        (BARE.replace("book", "cancel"), "calls 'cancel' instead of 'book'"),
        (f"[{BARE}, {BARE}]", "2 calls instead of one"),
        (f"<tool_call>{BARE}</tool_call><tool_call>{BARE}</tool_call>", "2 calls instead of one"),
        ("", "the answer is empty"),
        ("no_tool", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("{}", "the JSON is not a call: it has no name"),
        ('{"name": "book"}', "the call has no object of arguments"),
        ('{"name": "book", "name": "book", "arguments": {}}', "the key 'name' is given twice"),
        ('{"name": "book", "arguments": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "the JSON is nested too deeply"),
    ],
)
def test_a_wrong_call_says_what_differs(answer: str, because: str) -> None:
    made = judged(answer)
    assert (made.value, made.because) == (0.0, because)


def test_text_around_the_call_is_against_the_format() -> None:
    assert judged(f"Sure! {BARE}").value == 0.0


def test_lists_are_compared_in_order() -> None:
    reference = {"name": "f", "arguments": {"items": [{"n": 1}, {"n": 2}]}}
    assert judged('{"name": "f", "arguments": {"items": [{"n": 1}, {"n": 2}]}}', reference).value == 1.0
    swapped = judged('{"name": "f", "arguments": {"items": [{"n": 2}, {"n": 1}]}}', reference)
    assert swapped.because == "argument 'items[0].n': 2 instead of 1"
    assert (
        judged('{"name": "f", "arguments": {"items": []}}', reference).because
        == "argument 'items': 0 items instead of 2"
    )


@pytest.mark.parametrize("answer", ["no_tool", " No_Tool. ", "`no_tool`"])
def test_an_abstention_counts_where_no_tool_fits(answer: str) -> None:
    assert judged(answer, {"abstain": True}).value == 1.0


@pytest.mark.parametrize(
    "answer", ["", "none", "no_tools", BARE, f"no_tool {BARE}", '{"name": "no_tool", "arguments": {}}']
)
def test_a_call_or_anything_else_is_no_abstention(answer: str) -> None:
    assert judged(answer, {"abstain": True}).value == 0.0


def test_the_reference_may_name_its_own_phrases() -> None:
    reference = {"abstain": True, "accept": ["cannot help", "no tool"]}
    assert judged("I cannot help with that.", reference).value == 1.0
    assert judged("no_tool", reference).because == "does not say 'cannot help' or 'no tool'"


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {},
        {"name": "f"},
        {"name": 1, "arguments": {}},
        {"name": "f", "arguments": []},
        {"name": "f", "arguments": {}, "x": 1},
        {"abstain": False},
        {"abstain": True, "accept": []},
        {"abstain": True, "accept": [" "]},
        {"abstain": True, "name": "f"},
    ],
)
def test_a_bad_reference_is_unscored(reference: Any) -> None:
    assert isinstance(score(BARE, reference), Unscored)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_any_arguments_written_out_are_right_and_with_one_more_are_wrong(arguments: dict[str, Any]) -> None:
    reference = {"name": "f", "arguments": arguments}
    assert judged(json.dumps(reference), reference).value == 1.0
    assert judged(json.dumps({"name": "f", "arguments": {**arguments, "longer key": 1}}), reference).value == 0.0


@given(st.text(max_size=60))
def test_no_text_makes_the_scorer_fail(answer: str) -> None:
    assert judged(answer).value == 0.0
